"""`llmops evals score` as a user runs it: bad input, gates and exit statuses. Wilson's bounds are worked out by hand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.core.files import read_jsonl
from pipeline.evals.intervals import Rate
from pipeline.evals.score_summary import judge_gates

TOOL: dict[str, Any] = {
    "name": "book",
    "parameters": {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "size": {"enum": ["s", "l"]}},
        "required": ["n"],
    },
}


def case(identity: str, *, kind: str = "calls", n: Any = 2, **fields: Any) -> dict[str, Any]:
    calls = [{"name": "book", "args": {"n": {"any_of": [n]}}}] if kind == "calls" else []
    return {
        "id": identity,
        "tools": [TOOL],
        "messages": [{"role": "user", "content": f"{identity}: book two"}],
        "expected": {"kind": kind, "calls": calls},
    } | fields


def made(identity: str, n: Any = 2) -> dict[str, Any]:
    return {"id": identity, "calls": [{"name": "book", "arguments": {"n": n}}]}


class Scored:
    """What the command said."""

    def __init__(self, status: int, out: str, error: str, details: Path) -> None:
        self.status, self.error = status, error
        self.result: dict[str, Any] = json.loads(out) if out else {}
        self.details: dict[str, dict[str, Any]] = (
            {row["id"]: row for row in read_jsonl(details)} if details.exists() else {}
        )


@pytest.fixture
def score(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(cases: list[Any] | str, predictions: list[Any] | str, *flags: str) -> Scored:
        for name, rows in (("cases", cases), ("made", predictions)):
            text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
            (workspace / f"{name}.jsonl").write_text(text, encoding="utf-8")
        paths = ["--cases", "cases.jsonl", "--predictions", "made.jsonl", "--details", "details.jsonl"]
        status = main(["evals", "score", *paths, "--json", *flags])
        out, error = capsys.readouterr()
        return Scored(status, out, error, workspace / "details.jsonl")

    return run


def test_right_and_wrong_answers_are_told_apart_row_by_row(score: Any) -> None:
    found = score([case("a"), case("b")], [made("a"), made("b", 3)])
    assert found.status == 0
    assert {name: (row["correct"], row["errors"]) for name, row in found.details.items()} == {
        "a": (True, []),
        "b": (False, ["wrong_value", "ungrounded_value"]),
    }


UNSCORABLE: list[tuple[list[Any] | str, list[Any] | str, str]] = [
    ("", [made("a")], "holds no case"),
    ("\n\n", [made("a")], "holds no case"),
    ("{", [made("a")], "cases.jsonl:1: not JSON"),
    ([case("a")], "", "holds no prediction"),
    ([case("a")], "{", "made.jsonl:1: not JSON"),
    ([case("a")], [{"id": "a"}], "none of calls, text and message is given"),
    ([case("a")], [{"id": 7, "calls": []}], "id is missing or no text"),
    ([case("a")], [{"id": "a", "calls": "book"}], "calls is no list"),
    ([case("a")], [made("z")], "no prediction in made.jsonl has the id of a case"),
    ([case("a", tools=[])], [made("a")], r"no case is sound: a \(no_tools\)"),
    ([case("a", n="two")], [made("a")], r"no case is sound: a \(reference_type_error\)"),
]


@pytest.mark.parametrize(("cases", "predictions", "reason"), UNSCORABLE)
def test_files_that_cannot_be_scored_end_with_status_2_and_a_reason(
    score: Any, cases: list[Any] | str, predictions: list[Any] | str, reason: str
) -> None:
    found = score(cases, predictions)
    assert found.status == 2
    error = json.loads(found.error.strip().splitlines()[-1])
    assert error["hint"]
    assert re.search(reason, error["message"])


def test_cases_whose_reference_breaks_its_own_schema_are_reported_and_not_scored(score: Any) -> None:
    unknown = {"kind": "calls", "calls": [{"name": "hire", "args": {"n": {"any_of": [2]}}}]}
    lacking = {"kind": "calls", "calls": [{"name": "book", "args": {"size": {"any_of": ["s"]}}}]}
    enum = {
        "kind": "calls",
        "calls": [{"name": "book", "args": {"n": {"any_of": [2]}, "size": {"any_of": ["xl"]}}}],
    }
    cases = [
        case("sound"),
        case("type", n="two"),
        case("unknown", expected=unknown),
        case("lacking", expected=lacking),
        case("enum", expected=enum),
        case("toolless", tools=[]),
    ]
    found = score(cases, [made(row["id"]) for row in cases])
    assert found.status == 0
    assert (found.result["num_scored"], found.result["num_defective"]) == (1, 5)
    assert (found.result["correct"]["right"], found.result["correct"]["total"]) == (1, 1)
    codes = {defect["id"]: defect["code"] for defect in found.result["defects"]}
    assert codes == {
        "type": "reference_type_error",
        "unknown": "reference_unknown_tool",
        "lacking": "reference_missing_required",
        "enum": "reference_enum_violation",
        "toolless": "no_tools",
    }
    assert (found.details["type"]["correct"], found.details["type"]["errors"]) == (None, ["reference_defect"])
    assert "5 cases were not scored" in found.result["warnings"][0]


def test_one_sound_alternative_keeps_a_case(score: Any) -> None:
    expected = {"kind": "calls", "calls": [{"name": "book", "args": {"n": {"any_of": ["two", 2]}}}]}
    found = score([case("a", expected=expected)], [made("a")])
    assert (found.result["num_scored"], found.result["defects"][0]["scored"]) == (1, True)


def test_missing_answers_count_as_wrong_and_unknown_ids_are_counted_and_ignored(score: Any) -> None:
    found = score([case("a"), case("b")], [made("a"), made("z"), made("y")])
    assert (found.result["num_missing"], found.result["num_unknown"]) == (1, 2)
    assert (found.result["correct"]["right"], found.result["correct"]["total"]) == (1, 2)
    assert found.details["b"]["errors"] == ["no_output"]
    assert set(found.details) == {"a", "b"}
    assert len(found.result["warnings"]) == 2


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "book", "arguments": {"n": }}</tool_call>',
        '{"name": "book", "arguments": {"n": ',
        "<tool_call>oops</tool_call>",
        '```json\n{"name": "book", "arguments": [}\n```',
    ],
)
@pytest.mark.parametrize("kind", ["none", "ask"])
def test_a_broken_call_where_none_is_due_is_a_parse_error_and_no_restraint(
    score: Any, text: str, kind: str
) -> None:
    found = score([case("a", kind=kind), case("b", kind=kind)], [{"id": "a", "text": text}])
    assert found.result["correct"]["right"] == 0
    assert found.result["layers"] == {"parse": 2}  # silence is no output
    assert found.result["metrics"]["no_call_accuracy"]["right"] == 0
    assert set(found.details["a"]["errors"]) & {"not_json", "truncated", "wrong_wrapper"}


def test_arguments_of_a_message_that_are_no_json_are_a_parse_error_too(score: Any) -> None:
    call = {"type": "function", "function": {"name": "book", "arguments": '{"n": '}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = score([case("a", kind="none")], [{"id": "a", "message": message}])
    assert found.details["a"]["errors"] == ["not_json"]


def test_nothing_is_divided_by_zero_when_no_metric_applies(score: Any) -> None:
    found = score([case("a", kind="none")], [{"id": "a", "text": "Hello."}])
    recall = found.result["metrics"]["argument_recall"]
    assert (recall["rate"], recall["low"], recall["high"], recall["total"]) == (None, None, None, 0)
    assert found.result["correct"]["right"] == 1


def test_a_tag_that_names_rows_makes_no_slices(score: Any) -> None:
    cases = [case(f"c{i}", tags={"wording": f"w{i}", "half": str(i % 2)}) for i in range(22)]
    found = score(cases, [made("c0")])
    assert set(found.result["slices"]) == {"kind:calls", "half:0", "half:1"}
    assert found.result["slices"]["half:0"]["total"] == 11


def gates(score: Any, num_right: int, num_rows: int, bound: float) -> tuple[int, str]:
    ids = [f"c{i}" for i in range(num_rows)]
    rows = [made(name, 2 if i < num_right else 3) for i, name in enumerate(ids)]
    found = score([case(name) for name in ids], rows, "--gates", json.dumps({"correct": bound}))
    return found.status, found.result["gates"][0]["verdict"]


@pytest.mark.parametrize(
    ("num_right", "num_rows", "bound", "status", "verdict"),
    [
        # n right of n: the lower end is n / (n + 1.96^2); 73 / 76.84 = 0.950, 72 / 75.84 = 0.949.
        (73, 73, 0.95, 0, "passed"),
        (72, 72, 0.95, 1, "not proven"),
        (50, 50, 0.95, 1, "not proven"),
        # 10 of 20: 0.5 +- 0.201, so that 0.75 is out of reach and 0.6 is not.
        (10, 20, 0.6, 1, "not proven"),
        (10, 20, 0.75, 1, "failed"),
        (0, 5, 0.0, 0, "passed"),
    ],
)
def test_a_gate_holds_the_lower_bound_and_the_exit_status_says_so(
    score: Any, num_right: int, num_rows: int, bound: float, status: int, verdict: str
) -> None:
    assert gates(score, num_right, num_rows, bound) == (status, verdict)


def test_a_gate_on_what_was_not_measured_proves_nothing(score: Any) -> None:
    found = score([case("a")], [made("a")], "--gates", '{"ask_accuracy": 0.5, "no_such_rate": 0.1}')
    assert [gate["verdict"] for gate in found.result["gates"]] == ["not proven", "not proven"]
    assert found.status == 1


@given(st.lists(st.booleans(), max_size=60), st.floats(0, 1))
def test_a_gate_passes_only_when_the_rate_itself_is_above_the_bound(
    outcomes: list[bool], bound: float
) -> None:
    (gate,) = judge_gates({"x": Rate.of(outcomes)}, {"x": bound})
    share = sum(outcomes) / len(outcomes) if outcomes else 0.0
    if gate.verdict == "passed":
        assert outcomes
        assert share >= bound
    if gate.verdict == "failed":
        assert share < bound
