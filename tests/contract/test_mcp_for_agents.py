"""What an agent meets: few short tools, consent before costs, answers that fit, things to read, and a call log."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import CallToolResult, PromptReference, ResourceTemplateReference, TextResourceContents

from mcp_server.audit import FILE_NAME
from mcp_server.offers import DEFAULT_FIELDS, Offer
from mcp_server.server import build_server
from mcp_server.shorten import MAX_CHARACTERS, fit
from mcp_server.skills import read_skills
from mcp_server.tool_list import FILE, built_tools, listed_tools
from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json
from pipeline.core.runs import Run
from pipeline.lessons.guides import list_guides
from pipeline.operations import OPERATIONS, find_operation

MAX_TOOL_LIST_CHARACTERS = 16_000
MAX_TOOLS = 24


def ask(name: str, arguments: dict[str, Any], offer: Offer | None = None, **client: Any) -> CallToolResult:
    async def session() -> CallToolResult:
        async with Client(build_server(offer), **client) as connected:
            result = await connected.call_tool(name, arguments)
            assert isinstance(result, CallToolResult)
            return result

    return anyio.run(session)


def values_of(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result
    assert result.structured_content is not None
    return result.structured_content


def test_the_stored_tool_list_is_what_the_operations_say() -> None:
    built = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in built_tools(Offer())]
    assert read_json(FILE) == built, "run `python -m mcp_server.tool_list`"


@pytest.mark.parametrize("read_only", [False, True])
def test_the_default_set_is_the_same_from_the_file_and_from_the_operations(*, read_only: bool) -> None:
    offer = Offer(read_only=read_only)
    assert listed_tools(offer) == built_tools(offer)


def test_listing_the_default_tools_imports_no_operation_module() -> None:
    code = (
        "import sys; from mcp_server.server import build_server; from mcp_server.tool_list import listed_tools; "
        "from mcp_server.offers import Offer; build_server(); assert len(listed_tools(Offer())) > 20; "
        "print([name for name in ('jsonschema', 'pipeline.train', 'pipeline.evals', 'pipeline.data') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_default_tool_list_fits_a_clients_context(mode: str) -> None:
    async def session() -> tuple[int, int]:
        async with Client(build_server(), mode=mode) as client:
            listed = await client.list_tools()
            text = json.dumps(listed.model_dump(by_alias=True, exclude_none=True, mode="json"))
            for tool in listed.tools:
                assert tool.title
                assert tool.description
                assert tool.output_schema
                assert tool.annotations
            return len(text), len(listed.tools)

    characters, num_tools = anyio.run(session)
    assert characters <= MAX_TOOL_LIST_CHARACTERS
    assert num_tools <= MAX_TOOLS


def test_the_default_set_names_operations_and_fields_that_exist() -> None:
    for name, fields in DEFAULT_FIELDS.items():
        request = find_operation(name).request
        assert set(fields) <= request.model_fields.keys()
        required = {field for field, spec in request.model_fields.items() if spec.is_required()}
        assert required <= set(fields), name


def test_a_group_is_offered_whole_and_an_unknown_group_is_refused() -> None:
    offered = {operation.name for operation, shown in Offer.of_groups(["data"]).tools() if shown is None}
    assert offered == {entry.name for entry in OPERATIONS if entry.name.startswith("data.")}
    with pytest.raises(InvalidInputError, match="nonsense"):
        Offer.of_groups(["nonsense"])


def test_an_operation_that_is_no_tool_is_found_and_called_like_one(workspace: Path) -> None:
    found = values_of(ask("operations_find", {"words": "sharegpt loss"}))["operations"]
    assert list(found) == ["data.convert"]
    schema = values_of(ask("operations_find", {"name": "data.convert"}))["schema"]
    assert {"data", "to", "out"} <= schema["properties"].keys()
    assert values_of(ask("operations_call", {"name": "jobs.list"}))["total"] == 0
    assert ask("operations_call", {"name": "data.explode"}).is_error
    assert ask("operations_call", {"name": "jobs.cancel"}, Offer(read_only=True)).is_error


def test_what_costs_is_a_dry_run_until_its_token_comes_back(workspace: Path) -> None:
    (workspace / "data").mkdir()
    (workspace / "data" / "train.jsonl").write_text("{}\n", encoding="utf-8")
    request = {"out": "data", "num_rows": 20, "test_rows": 5}
    dry = values_of(ask("synth_generate", request))
    assert "replaced" in dry["warnings"][0]
    assert not list((workspace / "runs").glob("*-synth-*"))
    refused = ask("synth_generate", {**request, "num_rows": 21, "confirm_token": dry["confirm_token"]})
    assert refused.is_error
    assert not list((workspace / "runs").glob("*-synth-*"))
    assert values_of(ask("synth_generate", {**request, "confirm_token": dry["confirm_token"]}))["run_id"]


def test_what_costs_nothing_asks_nothing(workspace: Path) -> None:
    assert "run_id" in values_of(ask("synth_generate", {"out": "new", "num_rows": 20, "test_rows": 5}))


def test_training_always_asks_first(workspace: Path) -> None:
    assert "confirm_token" in values_of(ask("train_run", {"data": "data"}))


@pytest.mark.parametrize("size", [1, 50, 5000])
def test_an_answer_is_never_longer_than_a_client_bears(size: int, workspace: Path) -> None:
    values = {
        "warnings": ["first"],
        "next_step": "go",
        "rows": [{"text": "x" * 37, "n": i} for i in range(size)],
        "log": "line\n" * size * 10,
    }
    shown = fit(values)
    assert len(json.dumps(shown)) <= MAX_CHARACTERS
    assert shown["next_step"] == "go"
    assert shown["warnings"][0] == "first"
    if size == 1:
        assert shown == values
    if size == 5000:
        assert 0 < len(shown["rows"]) < 5000
        whole = next((workspace / "runs" / "mcp_answers").glob("*.json"))
        assert json.loads(whole.read_text(encoding="utf-8")) == values
        assert whole.name in shown["warnings"][-1]


def test_a_long_log_comes_shortened_over_mcp(workspace: Path) -> None:
    run = Run.create("demo.log", {})
    (run.path / "log.txt").write_text("".join(f"{'y' * 480} {i}\n" for i in range(900)), encoding="utf-8")
    shown = values_of(ask("jobs_logs", {"run_id": run.id, "tail": 1000}))
    assert len(json.dumps(shown)) <= MAX_CHARACTERS
    assert shown["log"].endswith("899")


def test_each_call_is_one_line_of_the_log_with_secrets_masked(workspace: Path) -> None:
    ask("jobs_logs", {"run_id": "hf_abcdefghijklmnop", "grep": "z" * 150})
    ask("jobs_list", {}, Offer.of_groups(["jobs"]))
    text = (workspace / "runs" / FILE_NAME).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["operation"], line["is_error"]) for line in lines] == [
        ("jobs.logs", True),
        ("jobs.list", False),
    ]
    assert "hf_abcdefghijklmnop" not in text


def test_a_call_log_that_cannot_be_written_costs_no_call(workspace: Path) -> None:
    (workspace / "runs").mkdir()
    (workspace / "runs" / FILE_NAME).symlink_to("/dev/full")
    assert values_of(ask("jobs_status", {"run_id": Run.create("demo.x", {}).id}))["state"] == "running"


def read(uri: str) -> str:
    async def session() -> str:
        async with Client(build_server()) as client:
            (content,) = (await client.read_resource(uri)).contents
            assert isinstance(content, TextResourceContents)
            return content.text

    return anyio.run(session)


def test_lessons_jobs_data_sets_and_skills_can_be_read(workspace: Path) -> None:
    run = Run.create("demo.read", {})
    run.log_metrics(step=1, loss=2.5)
    (run.artifacts / "report.md").write_text("# What it made\n", encoding="utf-8")
    (workspace / "datasets" / "mine").mkdir(parents=True)
    (workspace / "datasets" / "mine" / "README.md").write_text("# Mine\n", encoding="utf-8")
    assert all(f"lesson://{guide.number} " in read("lesson://index") for guide in list_guides())
    assert read("lesson://61.3").startswith("# 61.3")
    assert json.loads(read(f"job://{run.id}"))["state"] == "running"
    assert json.loads(read(f"job://{run.id}/metrics"))["loss"] == 2.5
    assert read(f"run://{run.id}/card") == "# What it made\n"
    assert read("dataset://mine") == "# Mine\n"
    assert "ui/initialize" in read("ui://train/loss-curve.html")
    for skill in read_skills():
        assert read(f"skill://{skill.folder.name}/SKILL.md").startswith("---\nname:")


@pytest.mark.parametrize(
    "uri",
    [
        "lesson://99.9",
        "lesson://../../etc/passwd",
        "lesson://..%2f..%2fetc%2fpasswd",
        "job://nope",
        "dataset://..",
        "dataset://-x",
        "skill://../AGENTS.md",
        "skill://llmops-fine-tuner/../../AGENTS.md",
        "run://x/../../y",
        "file:///etc/passwd",
        "ui://train/other.html",
    ],
)
def test_a_uri_of_nothing_is_a_protocol_error_not_a_leak(uri: str, workspace: Path) -> None:
    async def session() -> None:
        async with Client(build_server()) as client:
            with pytest.raises(MCPError, match="no resource"):
                await client.read_resource(uri)

    anyio.run(session)


def test_prompts_are_filled_and_completed(workspace: Path) -> None:
    run = Run.create("demo.prompt", {})

    async def session() -> None:
        async with Client(build_server()) as client:
            names = [prompt.name for prompt in (await client.list_prompts()).prompts]
            assert names == ["finetune", "debug_run", "lesson", "review_dataset"]
            message = (await client.get_prompt("debug_run", {"run_id": run.id})).messages[0]
            assert run.id in str(message.content)
            with pytest.raises(MCPError, match="goal"):
                await client.get_prompt("finetune", {})
            reference = PromptReference(type="ref/prompt", name="debug_run")
            completed = await client.complete(reference, {"name": "run_id", "value": run.id[:10]})
            assert completed.completion.values == [run.id]
            template = ResourceTemplateReference(type="ref/resource", uri="lesson://{number}")
            completed = await client.complete(template, {"name": "number", "value": "61.3"})
            assert completed.completion.values == ["61.3"]

    anyio.run(session)


def test_every_operation_a_prompt_names_exists() -> None:

    from mcp_server.prompts import _PROMPTS  # pyright: ignore[reportPrivateUsage] - the texts are what is tested

    tools = {entry.name.replace(".", "_") for entry in OPERATIONS}
    groups = {entry.name.partition(".")[0] for entry in OPERATIONS}
    named = {
        word
        for template in _PROMPTS.values()
        for word in re.findall(r"\b[a-z]+_[a-z_]+\b", template.text)
        if word.partition("_")[0] in groups
    }
    assert named <= tools
