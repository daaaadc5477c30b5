"""`evals import`: five formats become the same cases. Rows and expectations are written by hand."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_jsonl
from pipeline.evals.cases import Case, read_case_file
from pipeline.evals.import_cases import EVALS_IMPORT
from pipeline.evals.score import EVALS_SCORE, EvalScoreResult
from pipeline.evals.tool_calls.lint import build_reference, lint_cases

OWN = Path(__file__).resolve().parents[2] / "assets" / "eval_cases.jsonl"
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Weather of a day.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
ENDLESS: dict[str, Any] = {
    "name": "f",
    "inputSchema": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
}
CALL: dict[str, Any] = {"name": "get_weather", "arguments": '{"city": "Oslo", "days": 2}'}


def convert(tmp_path: Path, form: str, rows: list[Any] | Path, **fields: Any) -> list[Case]:
    source = rows if isinstance(rows, Path) else tmp_path / "source.jsonl"
    if not isinstance(rows, Path):
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "cases.jsonl"
    result = EVALS_IMPORT.call({"source": str(source), "out": str(out), "format": form, **fields})
    cases = read_case_file(out)
    assert result.num_cases == len(cases) == sum(result.kinds.values())
    return cases


def references(case: Case) -> list[tuple[str, dict[str, Any]]]:
    built = [build_reference(call) for call in case.expected.calls]
    return [(call.name, call.arguments) for call in built]


def score_references(tmp_path: Path, cases: list[Case]) -> EvalScoreResult:
    rows = [
        {"id": case.id, "calls": [{"name": n, "arguments": a} for n, a in references(case)]} for case in cases
    ]
    made = tmp_path / "made.jsonl"
    made.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return EVALS_SCORE.call({"cases": str(tmp_path / "cases.jsonl"), "predictions": str(made)})


def test_our_rows_become_one_executable_case_a_turn(workspace: Path, tmp_path: Path) -> None:
    cases = {case.id: case for case in convert(tmp_path, "own", OWN)}
    call, reply = cases["create#0"], cases["create#1"]
    assert references(call) == [
        ("create_task", {"title": "call Ann", "due_date": "Friday", "priority": "high"})
    ]
    assert (call.tool_set, call.today, call.group) == ("task_api", "2026-03-11", "create:a")
    assert [task["id"] for task in call.initial_state] == [1, 2, 4]
    assert [step.name for step in call.oracle_calls or ()] == ["create_task"]
    assert (reply.expected.kind, reply.messages[-1]["role"]) == ("none", "tool")
    assert {case.expected.kind for case in cases.values()} == {"calls", "none", "ask"}


def test_openai_rows_become_one_case_a_turn_of_the_assistant(workspace: Path, tmp_path: Path) -> None:
    row = {
        "id": "w",
        "tools": [{"type": "function", "function": WEATHER}],
        "messages": [
            {"role": "user", "content": "Oslo, two days"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": CALL}]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
            {"role": "assistant", "content": "Rain."},
        ],
    }
    first, second = convert(tmp_path, "openai", [row])
    assert (first.id, second.id, first.cluster, second.cluster) == ("w#0", "w#1", "w", "w")
    assert references(first) == [("get_weather", {"city": "Oslo", "days": 2})]
    assert len(first.messages) == 1
    assert (second.expected.kind, len(second.messages)) == ("none", 3)


@pytest.mark.parametrize(
    "said",
    [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>',
        '{"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}',
        {"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}},
    ],
)
def test_calls_inside_the_text_of_sharegpt_rows_are_read(
    workspace: Path, tmp_path: Path, said: str | dict[str, Any]
) -> None:
    row = {
        "system": "You know the weather.",
        "tools": json.dumps([WEATHER]),
        "conversations": [
            {"from": "human", "value": "Oslo, two days"},
            {"from": "function_call", "value": said},
            {"from": "observation", "value": {"sky": "rain"}},
            {"from": "gpt", "value": "Rain."},
        ],
    }
    first, second = convert(tmp_path, "sharegpt", [row])
    assert references(first) == [("get_weather", {"city": "Oslo", "days": 2})]
    assert [message["role"] for message in first.messages] == ["system", "user"]
    assert second.messages[-1] == {"role": "tool", "content": '{"sky": "rain"}'}


def bfcl_question(identity: str) -> dict[str, Any]:
    properties = {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "box": {"type": "dict", "properties": {"north": {"type": "float"}}},
    }
    parameters = {"type": "dict", "properties": properties, "required": ["city"]}
    function = {"name": "geo.weather", "description": "", "parameters": parameters}
    return {"id": identity, "question": [[{"role": "user", "content": "Oslo"}]], "function": [function]}


def test_bfcl_files_find_their_answers_beside_them(workspace: Path, tmp_path: Path) -> None:
    """In BFCL's lists, "" says that an optional argument may be left out; for a required one it is the empty text."""
    path = tmp_path / "BFCL_v4_parallel.json"
    path.write_text(json.dumps(bfcl_question("p_0")) + "\n", encoding="utf-8")
    (tmp_path / "possible_answer").mkdir()
    allowed = {"city": ["Oslo", "oslo", ""], "days": [2, ""], "box": [{"north": [60.5, ""]}]}
    truth = {"id": "p_0", "ground_truth": [{"geo.weather": allowed}]}
    (tmp_path / "possible_answer" / path.name).write_text(json.dumps(truth) + "\n", encoding="utf-8")
    (case,) = convert(tmp_path, "bfcl", path)
    slots = case.expected.calls[0].args
    assert [alternative.value for alternative in slots["city"].any_of] == ["Oslo", "oslo", ""]
    assert (slots["days"].optional, [a.value for a in slots["days"].any_of]) == (True, [2])
    north = (slots["box"].any_of[0].object or {})["north"]
    assert (north.optional, [a.value for a in north.any_of]) == (True, [60.5])
    assert score_references(tmp_path, [case]).correct.right == 1


@pytest.mark.parametrize(
    ("category", "kind"),
    [("irrelevance", "none"), ("live_irrelevance", "none"), ("live_relevance", "any_call")],
)
def test_bfcl_files_without_answers_expect_a_decision(
    workspace: Path, tmp_path: Path, category: str, kind: str
) -> None:
    path = tmp_path / f"BFCL_v4_{category}.json"
    path.write_text(json.dumps(bfcl_question("x_0")) + "\n", encoding="utf-8")
    (case,) = convert(tmp_path, "bfcl", path)
    assert case.expected.kind == kind


@pytest.mark.parametrize(
    ("name", "reason"),
    [("multi_turn_base", "cannot be imported"), ("simple_python", r":1: no answer for 'x_0'")],
)
def test_bfcl_files_that_cannot_be_judged_are_refused(
    workspace: Path, tmp_path: Path, name: str, reason: str
) -> None:
    path = tmp_path / f"BFCL_v4_{name}.json"
    path.write_text(json.dumps(bfcl_question("x_0")) + "\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=reason):
        convert(tmp_path, "bfcl", path)


def test_the_tools_of_our_own_mcp_server_become_sound_smoke_cases(workspace: Path, tmp_path: Path) -> None:
    """A real server process, asked over stdio; its list is written down as it came."""

    async def list_tools() -> dict[str, Any]:
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "mcp_server", "--tools", "all"], env=dict(os.environ)
        )
        async with Client(server) as client:
            return (await client.list_tools()).model_dump(mode="json", by_alias=True, exclude_none=True)

    listing = anyio.run(list_tools)
    source = tmp_path / "tools.json"
    source.write_text(json.dumps(listing), encoding="utf-8")
    cases = convert(tmp_path, "mcp", source)
    names = [tool["name"] for tool in listing["tools"]]
    assert "evals_score" in names
    assert [case.id for case in cases] == [f"smoke-{name}" for name in names]
    assert [finding for finding in lint_cases(cases) if finding.is_fatal] == []
    result = score_references(tmp_path, cases)
    assert (result.correct.right, result.correct.total) == (len(names), len(names))
    as_wrapped = tmp_path / "wrapped.json"
    as_wrapped.write_text(json.dumps({"jsonrpc": "2.0", "id": 1, "result": listing}), encoding="utf-8")
    assert convert(tmp_path, "mcp", as_wrapped) == cases


def test_smoke_values_follow_references_choices_and_required_keys(workspace: Path, tmp_path: Path) -> None:
    schema = {
        "$defs": {
            "Box": {"type": "object", "properties": {"w": {"type": "integer"}}, "required": ["w"]},
            "Size": {"enum": ["s", "l"]},
        },
        "type": "object",
        "properties": {
            "box": {"$ref": "#/$defs/Box"},
            "size": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Size"}]},
            "tags": {"type": "array", "minItems": 2, "items": {"type": "string"}},
            "late": {"type": "boolean"},
        },
        "required": ["box", "size", "tags"],
    }
    source = tmp_path / "tools.json"
    source.write_text(json.dumps([{"name": "send", "inputSchema": schema}]), encoding="utf-8")
    (case,) = convert(tmp_path, "mcp", source)
    assert references(case) == [("send", {"box": {"w": 3}, "size": "s", "tags": ["example", "example"]})]


BROKEN: list[tuple[str, str, str]] = [
    ("openai", "{", ":1: not JSON"),
    ("openai", "[]", ":1: a line is one JSON object"),
    ("openai", '{"tools": []}', ":1: KeyError: 'messages'"),
    ("openai", '{"messages": [{"role": "user", "content": "x"}]}', ":1: no assistant turn to predict"),
    ("sharegpt", '{"conversations": [{"from": "narrator", "value": "x"}]}', "unknown speaker 'narrator'"),
    ("sharegpt", '{"conversations": 3}', ":1: TypeError"),
    ("own", '{"id": "a"}', ":1: "),
    ("bfcl", '{"question": []}', ":1: KeyError: 'id'"),
    ("mcp", '{"tools": []}', "give the answer of tools/list"),
    ("mcp", "[3]", "source.jsonl: "),
    ("mcp", json.dumps([ENDLESS]), "source.jsonl: RecursionError"),
    ("openai", "", "holds no case"),
]


@pytest.mark.parametrize(("form", "text", "reason"), BROKEN)
def test_a_file_that_is_not_of_the_format_is_refused_by_line(
    workspace: Path, tmp_path: Path, form: str, text: str, reason: str
) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=reason):
        convert(tmp_path, form, source)
    assert not (tmp_path / "cases.jsonl").exists()


def test_rows_of_one_id_are_refused(workspace: Path, tmp_path: Path) -> None:
    row = {
        "id": "a",
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
    }
    with pytest.raises(InvalidInputError, match="'a' occurs twice"):
        convert(tmp_path, "openai", [row, row])
    assert read_jsonl(tmp_path / "source.jsonl") == [row, row]
