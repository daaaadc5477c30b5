"""CLI and MCP are made from one declaration: same schemas, same errors, same results."""

import io
import json
import re
import subprocess
import sys
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent, Tool

from mcp_server.costs import asks_first
from mcp_server.offers import Offer
from mcp_server.server import INSTRUCTIONS, build_server
from pipeline.catalogue import GROUP_SUMMARIES, CatalogueEntry
from pipeline.cli import main
from pipeline.operations import OPERATIONS

ON_MCP = [entry for entry in OPERATIONS if "mcp" in entry.load().surfaces]
MAX_DESCRIPTION_CHARACTERS = 600
EVERYTHING = Offer.of_groups(["all"])
META_TOOLS = ["operations_find", "operations_call"]


def tools(offer: Offer = EVERYTHING) -> dict[str, Tool]:
    async def ask() -> dict[str, Tool]:
        async with Client(build_server(offer)) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    return anyio.run(ask)


def call(name: str, arguments: dict[str, Any], mode: str = "auto") -> CallToolResult:
    async def ask() -> CallToolResult:
        async with Client(build_server(EVERYTHING), mode=mode) as client:
            result = await client.call_tool(name, arguments)
            assert isinstance(result, CallToolResult)
            return result

    return anyio.run(ask)


def error_of(result: CallToolResult) -> dict[str, Any]:
    assert result.is_error
    (block,) = result.content
    assert isinstance(block, TextContent)
    return json.loads(block.text)


def without_titles(schema: Any) -> Any:
    """Drop generated titles; a property that is called title keeps its schema."""
    if isinstance(schema, list):
        return [without_titles(item) for item in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {k: v for k, v in schema.items() if not (k == "title" and isinstance(v, str))}  # pyright: ignore[reportUnknownVariableType]
    return {k: without_titles(v) for k, v in kept.items()}


def without_nulls(schema: Any) -> Any:
    """Say of a field that may be left out only what it is when it is given."""
    if isinstance(schema, list):
        return [without_nulls(item) for item in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {k: without_nulls(v) for k, v in schema.items()}  # pyright: ignore[reportUnknownVariableType]
    choices = found.get("anyOf", [])
    if {"type": "null"} in choices and found.get("default", "") is None:
        del found["default"], found["anyOf"]
        rest = [choice for choice in choices if choice != {"type": "null"}]
        found |= rest[0] if len(rest) == 1 else {"anyOf": rest}
    return found


@pytest.fixture(scope="module")
def listed() -> dict[str, Tool]:
    return tools()


def test_mcp_offers_exactly_the_operations_meant_for_it(listed: dict[str, Tool]) -> None:
    assert list(listed) == [*(entry.name.replace(".", "_") for entry in ON_MCP), *META_TOOLS]


@pytest.mark.parametrize("entry", ON_MCP, ids=lambda entry: entry.name)
def test_a_tool_is_its_operations_declaration(entry: CatalogueEntry, listed: dict[str, Tool]) -> None:
    operation, tool = entry.load(), listed[entry.name.replace(".", "_")]
    token = {"confirm_token"} if asks_first(operation) else set[str]()
    declared = without_nulls(without_titles(operation.request.model_json_schema()))
    properties = {k: v for k, v in tool.input_schema.get("properties", {}).items() if k not in token}
    assert {**tool.input_schema, "properties": properties} == {"properties": {}, **declared}
    assert tool.input_schema["additionalProperties"] is False
    assert tool.output_schema is not None
    expected = {"run_id"} if operation.long_running else operation.result.model_fields.keys()
    assert {"warnings", "next_step", *expected} | token == tool.output_schema["properties"].keys()
    assert tool.title
    assert (tool.description or "").startswith(entry.summary)
    assert len(tool.description or "") <= MAX_DESCRIPTION_CHARACTERS
    assert tool.annotations is not None
    assert (tool.annotations.read_only_hint or False) is operation.read_only
    assert (tool.annotations.destructive_hint or False) is operation.destructive


@pytest.mark.parametrize("entry", OPERATIONS, ids=lambda entry: entry.name)
def test_the_command_has_a_flag_for_every_field(
    entry: CatalogueEntry, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*entry.name.split("."), "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert entry.summary.split()[0] in shown
    operation = entry.load()
    for name in operation.request.model_fields:
        assert (name.upper() if name in operation.positional else "--" + name.replace("_", "-")) in shown


@pytest.mark.parametrize("entry", OPERATIONS, ids=lambda entry: entry.name)
def test_an_unknown_field_is_invalid_input_on_both_surfaces(
    entry: CatalogueEntry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"no_such_field": 1}'))
    assert main([*entry.name.split("."), "--request", "-"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    shown = json.loads(captured.err)
    assert shown["code"] == "invalid_input"
    assert "no_such_field: Extra inputs are not permitted" in shown["details"]["problems"]
    if entry in ON_MCP:
        assert error_of(call(entry.name.replace(".", "_"), {"no_such_field": 1})) == shown


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_results_are_the_same_on_both_surfaces_and_in_both_protocol_eras(
    mode: str, workspace: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "list"]) == 0
    printed = json.loads(capsys.readouterr().out)
    result = call("jobs_list", {}, mode)
    assert not result.is_error
    assert result.structured_content == printed
    (block,) = result.content
    assert isinstance(block, TextContent)
    assert json.loads(block.text) == printed


def test_errors_are_the_same_on_both_surfaces(workspace: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "status", "nope"]) == 2
    assert error_of(call("jobs_status", {"run_id": "nope"})) == json.loads(capsys.readouterr().err)


def refusal(name: str, *, read_only: bool) -> str:
    async def ask() -> CallToolResult:
        async with Client(build_server(Offer.of_groups(["all"], read_only=read_only))) as client:
            result = await client.call_tool(name, {"run_id": "x"})
            assert isinstance(result, CallToolResult)
            return result

    return error_of(anyio.run(ask))["message"]


def test_an_unknown_tool_is_an_error_that_the_model_sees() -> None:
    assert "unknown tool 'jobs_explode'" in refusal("jobs_explode", read_only=False)
    assert "unknown tool 'jobs.list'" in refusal("jobs.list", read_only=False)


def test_operations_that_talk_on_the_terminal_are_not_offered_over_mcp(listed: dict[str, Tool]) -> None:
    assert "agent_chat" not in listed
    assert "unknown tool 'agent_chat'" in refusal("agent_chat", read_only=False)


def test_a_read_only_server_offers_and_executes_only_what_changes_nothing(workspace: object) -> None:
    offered = tools(Offer.of_groups(["all"], read_only=True))
    assert offered.keys() == {*(e.name.replace(".", "_") for e in ON_MCP if e.load().read_only), *META_TOOLS}
    assert {"jobs_status", "doctor_run"} <= offered.keys()
    assert "unknown tool" in refusal("jobs_cancel", read_only=True)


def test_the_instructions_are_short_and_name_only_tools_that_exist() -> None:
    assert len(INSTRUCTIONS) <= 800
    groups = "|".join(GROUP_SUMMARIES)
    named = set(re.findall(rf"\b(?:{groups})_[a-z_]+", INSTRUCTIONS))
    assert named
    assert named <= {entry.name.replace(".", "_") for entry in ON_MCP}


def llmops(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_prints_exactly_one_json_object_on_stdout(workspace: object) -> None:
    done = llmops("synth", "generate", "--request", "-", stdin='{"out": "d", "num_rows": 5, "test_rows": 5}')
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["num_rows"] == 5
    assert "synth: done" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--help",), 0),
        (("--version",), 0),
        (("jobs", "--help"), 0),
        ((), 2),
        (("jobs",), 2),
        (("nonsense",), 2),
        (("jobs", "nonsense"), 2),
        (("jobs", "work"), 2),
        (("jobs", "list", "--limit", "0"), 2),
        (("jobs", "list", "--nope"), 2),
        (("jobs", "list", "--request", "/no/such/file"), 2),
        (("jobs", "work", "no-such-run"), 2),
    ],
)
def test_exit_statuses(workspace: object, arguments: tuple[str, ...], status: int) -> None:
    done = llmops(*arguments)
    assert done.returncode == status
    if done.returncode and not done.stdout:
        error = json.loads(done.stderr.splitlines()[-1])
        assert error["code"] == "invalid_input"
        assert error["hint"].endswith(".")
