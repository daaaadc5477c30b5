import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.evals.cases import Case, read_case_file, write_case_file

TOOL = {
    "name": "book",
    "description": "",
    "parameters": {"type": "dict", "properties": {"n": {"type": "integer"}}},
}


def row(**changes: Any) -> dict[str, Any]:
    calls = [{"name": "book", "args": {"n": {"any_of": [2, {"value": 3}]}}}]
    return {
        "id": "a",
        "tools": [TOOL],
        "messages": [{"role": "user", "content": "two"}],
        "expected": {"kind": "calls", "calls": calls},
    } | changes


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_bare_scalar_is_the_same_as_a_value() -> None:
    alternatives = Case.model_validate(row()).expected.calls[0].args["n"].any_of
    assert [alternative.value for alternative in alternatives] == [2, 3]


@pytest.mark.parametrize(
    "tool",
    [
        TOOL,
        {"type": "function", "function": TOOL},
        {"name": "book", "inputSchema": TOOL["parameters"]},
    ],
)
def test_tools_are_read_in_the_three_usual_forms(tool: dict[str, Any]) -> None:
    case = Case.model_validate(row(tools=[tool]))
    assert case.openai_tools == ({"type": "function", "function": TOOL},)


def test_cases_survive_writing_and_reading(tmp_path: Path) -> None:
    nested = {
        "any_of": [{"list": [{"object": {"k": {"any_of": [1, None], "optional": True}}}]}],
        "match": "exact",
    }
    expected = {"kind": "calls", "order": "strict", "calls": [{"name": "book", "args": {"n": nested}}]}
    case = Case.model_validate(row(expected=expected, tags=["live"], group="g"))
    write_case_file(tmp_path / "c.jsonl", [case])
    assert read_case_file(tmp_path / "c.jsonl") == [case]


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"expected": {"kind": "calls"}}, "needs at least one call"),
    ({"expected": {"kind": "none", "calls": row()["expected"]["calls"]}}, "takes no calls"),
    ({"expected": {"kind": "maybe"}}, "expected.kind"),
    ({"tool_set": "task_api"}, "either tools or tool_set"),
    ({"tools": [], "tool_set": "other"}, "unknown tool_set"),
    ({"tools": [{"parameters": {}}]}, "no name"),
    ({"messages": [{"content": "x"}]}, "no role"),
    ({"colour": 1}, "colour"),
]


@pytest.mark.parametrize(("changes", "reason"), BROKEN)
def test_a_broken_case_is_named_by_line_and_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write(tmp_path, json.dumps(row()), "", json.dumps(row(id="b", **changes)))
    with pytest.raises(InvalidInputError, match=rf"cases\.jsonl:3: .*{reason}"):
        read_case_file(path)


UNMATCHABLE: list[dict[str, Any]] = [
    {"any_of": [{"value": 1, "list": []}]},
    {"any_of": [{}]},
    {"any_of": [1], "match": "fuzzy"},
    {"any_of": [{"object": None}]},
]


@pytest.mark.parametrize("slot", UNMATCHABLE)
def test_an_argument_that_nothing_could_match_is_refused(tmp_path: Path, slot: dict[str, Any]) -> None:
    expected = {"kind": "calls", "calls": [{"name": "book", "args": {"n": slot}}]}
    with pytest.raises(InvalidInputError, match=r":1: expected\.calls\.0\.args\.n"):
        read_case_file(write(tmp_path, json.dumps(row(expected=expected))))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["{"], ":1: not JSON"),
        (["[1]"], ":1: case"),
        ([""], "holds no case"),
        ([json.dumps(row()), json.dumps(row())], ":2: id 'a' occurs twice, first in line 1"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, lines: list[str], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        read_case_file(write(tmp_path, *lines))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_case_file(tmp_path / "none.jsonl")
