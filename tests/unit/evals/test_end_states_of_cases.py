"""Neutral cases are executed: another route to the same state is right, a write outside the goal is not.

`evals score`, `evals run` and `evals robustness` must say the same of the same answers. The cases and answers are
those of a table worked out by hand: task 1 shall be due on 2026-12-01 with low priority, and task 2 is nobody's business.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import read_jsonl
from pipeline.core.operation import Operation
from pipeline.core.paths import confined_to
from pipeline.core.runs import Run
from pipeline.evals.records import TurnRecord, read_details
from pipeline.evals.renaming import Renaming, turn_round
from pipeline.evals.robustness import EVALS_ROBUSTNESS, RobustnessResult
from pipeline.evals.run import EVALS_RUN
from pipeline.evals.score import EVALS_SCORE
from pipeline.evals.tool_calls.prediction import PredictedCall
from pipeline.inference.scripted_server import ReceivedRequest, ScriptedServer, completion

Call = tuple[str, dict[str, Any]]
GOAL: Call = ("update_task", {"task_id": 1, "due_date": "2026-12-01", "priority": "low"})
TWO_STEPS: list[Call] = [
    ("update_task", {"task_id": 1, "due_date": "2026-12-01"}),
    ("update_task", {"task_id": 1, "priority": "low"}),
]
OUTSIDE: list[Call] = [GOAL, ("complete_task", {"task_id": 2})]
THERE_AND_BACK: list[Call] = [
    GOAL,
    ("update_task", {"task_id": 2, "priority": "low"}),
    ("update_task", {"task_id": 2, "priority": "medium"}),
]
ANSWERS: dict[str, tuple[list[Call], bool, list[str]]] = {
    "reference": ([GOAL], True, []),
    "two-steps": (TWO_STEPS, True, []),
    "half": (TWO_STEPS[:1], False, ["lost_constraint", "state_mismatch"]),
    "outside": (OUTSIDE, False, ["extra_call", "state_mismatch", "side_effect"]),
    "there-and-back": (THERE_AND_BACK, False, ["extra_call", "side_effect"]),
}
TASKS = [
    {"id": 1, "title": "call Ann", "priority": "high", "status": "open"},
    {"id": 2, "title": "buy milk", "priority": "medium", "status": "open"},
]


def expect(call: Call) -> dict[str, Any]:
    return {
        "name": call[0],
        "args": {name: {"any_of": [{"value": value}]} for name, value in call[1].items()},
    }


def make_case(identity: str, call: Call = GOAL, **fields: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": "Task 1 to 2026-12-01 and low priority please"}
    return {
        "id": identity,
        "tool_set": "task_api",
        "messages": [asked],
        "expected": {"kind": "calls", "calls": [expect(call)]},
        "initial_state": TASKS,
        "oracle_calls": [{"name": call[0], "arguments": call[1]}],
        "today": "2026-11-23",
    } | fields


def answer(identity: str, calls: list[Call]) -> dict[str, Any]:
    return {"id": identity, "calls": [{"name": name, "arguments": arguments} for name, arguments in calls]}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def replay(tmp_path: Path, cases: list[dict[str, Any]], answers: list[dict[str, Any]]) -> list[TurnRecord]:
    """Judge by `evals run`, and check that `evals score` judges the same."""
    paths = {
        "cases": write_rows(tmp_path / "cases.jsonl", cases),
        "predictions": write_rows(tmp_path / "made.jsonl", answers),
    }
    result = EVALS_RUN.call({"cases": paths["cases"], "replay": paths["predictions"]})
    records = read_details(Run.open(result.run_id).artifacts / "details.jsonl")
    EVALS_SCORE.call({**paths, "details": str(tmp_path / "d.jsonl")})
    scored = [(row["id"], row["correct"], row["errors"]) for row in read_jsonl(tmp_path / "d.jsonl")]
    assert scored == [(record.id, record.correct, list(record.errors)) for record in records]
    return records


def test_runs_and_scores_judge_by_the_end_state_and_by_what_else_was_written(
    workspace: Path, tmp_path: Path
) -> None:
    cases = [make_case(name) for name in ANSWERS]
    answers = [answer(name, calls) for name, (calls, _, _) in ANSWERS.items()]
    records = {record.id: record for record in replay(tmp_path, cases, answers)}
    for name, (_, correct, errors) in ANSWERS.items():
        assert (records[name].correct, list(records[name].errors)) == (correct, errors), name
        assert records[name].checks["right_state"] is correct, name
    assert not records["two-steps"].checks["right_arguments"]  # another question, also answered


def test_a_call_that_cannot_be_read_leaves_the_state_wrong(workspace: Path, tmp_path: Path) -> None:
    broken = {"id": "a", "text": '<tool_call>{"name": "update_task", "arguments": {"task_id": }}</tool_call>'}
    (record,) = replay(tmp_path, [make_case("a")], [broken])
    assert record.checks["right_state"] is False
    assert record.errors[0] == "not_json"


def test_a_write_where_none_is_due_is_seen_in_the_state_too(workspace: Path, tmp_path: Path) -> None:
    case = make_case("a", expected={"kind": "none"}, oracle_calls=[])
    (record,) = replay(tmp_path, [case], [answer("a", [("complete_task", {"task_id": 2})])])
    assert record.errors == ("called_when_none", "state_mismatch", "side_effect")
    assert "right_state" not in record.checks  # that rate counts turns that need calls


def test_an_expected_state_needs_no_oracle(workspace: Path, tmp_path: Path) -> None:
    moved = {**TASKS[0], "due_date": "2026-12-01", "priority": "low"}
    cases = [make_case(name, oracle_calls=None, expected_state=[moved, TASKS[1]]) for name in ("a", "b")]
    records = replay(tmp_path, cases, [answer("a", TWO_STEPS), answer("b", OUTSIDE)])
    assert [record.correct for record in records] == [True, False]


def test_a_tool_set_of_ones_own_is_executed_in_runs(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lamps.py").write_text(
        "class Lamps:\n"
        "    def __init__(self, state, today):\n"
        "        self.lamps = dict(state)\n"
        "    def call(self, name, arguments):\n"
        "        self.lamps[arguments['lamp']] = name == 'switch_on'\n"
        "        return {'ok': True}\n"
        "    def state(self):\n"
        "        return self.lamps\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    lamp = {"type": "object", "properties": {"lamp": {"type": "string"}}, "required": ["lamp"]}
    on: Call = ("switch_on", {"lamp": "desk"})
    case = make_case("a", on, tool_set=None, initial_state={"desk": False, "door": False})
    del case["tool_set"]
    case |= {
        "tools": [{"name": name, "parameters": lamp} for name in ("switch_on", "switch_off")],
        "messages": [{"role": "user", "content": "desk lamp on, leave the door lamp as it is"}],
    }
    cases = write_rows(tmp_path / "cases.jsonl", [case, {**case, "id": "b"}])
    made = write_rows(
        tmp_path / "made.jsonl", [answer("a", [("switch_off", {"lamp": "desk"}), on]), answer("b", [])]
    )
    result = EVALS_RUN.call({"cases": cases, "replay": made, "executor": "python:lamps:Lamps"})
    assert (result.right_state.right, result.right_state.total) == (1, 2)
    assert result.whole_turn.right == 1  # off and on again is another route


REQUESTS: list[tuple[Operation[Any, Any], dict[str, str]]] = [
    (EVALS_SCORE, {"cases": "c.jsonl", "predictions": "p.jsonl"}),
    (EVALS_RUN, {"cases": "c.jsonl", "replay": "p.jsonl"}),
    (EVALS_ROBUSTNESS, {"cases": "c.jsonl", "base_url": "http://127.0.0.1:9/v1"}),
]


@pytest.mark.parametrize(("operation", "request_fields"), REQUESTS)
def test_no_caller_over_mcp_can_name_code_to_run(
    workspace: Path, operation: Operation[Any, Any], request_fields: dict[str, str]
) -> None:
    with confined_to(workspace):
        operation.parse(request_fields | {"executor": "task_api"})
        with pytest.raises(InvalidInputError, match="command line only"):
            operation.parse(request_fields | {"executor": "python:os:system"})
    operation.parse(request_fields | {"executor": "python:lamps:Lamps"})
    with pytest.raises(InvalidInputError, match="python:MODULE:FUNCTION"):
        operation.parse(request_fields | {"executor": "shell"})


def rename_like_the_tools(body: Any, calls: list[Call]) -> list[tuple[str, str]]:
    """Return calls as a model would make them that reads the names it is offered."""
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body["tools"]}
    named: list[tuple[str, str]] = []
    for name, arguments in calls:
        first, second = name.split("_")
        found = name if name in offered else f"{second}_{first}"
        keys = {
            key: key if key in offered[found]["properties"] else turn_round([key])[key] for key in arguments
        }
        named.append((found, json.dumps({keys[key]: value for key, value in arguments.items()})))
    return named


def measure(
    tmp_path: Path, case: dict[str, Any], calls: list[Call], *, adapts: bool = True
) -> RobustnessResult:
    def respond(request: ReceivedRequest) -> tuple[int, Any]:
        if request.method == "GET":
            return 200, {"object": "list", "data": [{"id": "m"}]}
        fixed = [(name, json.dumps(arguments)) for name, arguments in calls]
        return 200, completion(None, *(rename_like_the_tools(request.body, calls) if adapts else fixed))

    cases = write_rows(tmp_path / "cases.jsonl", [case])
    slices = ["renamed_tools", "renamed_parameters", "shuffled_tools", "other_dates", "other_system_prompt"]
    with ScriptedServer(respond=respond) as server:
        return EVALS_ROBUSTNESS.call({"cases": cases, "base_url": server.base_url, "slices": slices})


def right_by_slice(result: RobustnessResult) -> dict[str, int]:
    return {"original": result.original.right, **{name: s.rate.right for name, s in result.slices.items()}}


def test_another_route_is_right_in_every_slice_renamed_ones_too(workspace: Path, tmp_path: Path) -> None:
    found = right_by_slice(measure(tmp_path, make_case("a"), TWO_STEPS))
    assert set(found.values()) == {1}
    assert {"renamed_tools", "renamed_parameters"} <= found.keys()


def test_a_write_outside_the_goal_is_wrong_in_every_slice(workspace: Path, tmp_path: Path) -> None:
    assert set(right_by_slice(measure(tmp_path, make_case("a"), THERE_AND_BACK)).values()) == {0}


def test_old_names_mean_nothing_where_tools_were_renamed(workspace: Path, tmp_path: Path) -> None:
    result = measure(tmp_path, make_case("a"), TWO_STEPS, adapts=False)
    assert {name for name, right in right_by_slice(result).items() if not right} == {
        "renamed_tools",
        "renamed_parameters",
    }
    assert result.max_drop == 1.0
    (record,) = read_details(Run.open(result.run_id).artifacts / "details-renamed_tools.jsonl")
    assert (record.errors[0], record.checks["right_state"]) == ("unknown_tool", False)


def test_calls_of_the_conversation_are_executed_before_the_answer(workspace: Path, tmp_path: Path) -> None:
    """Task 3 exists only because of a call in the conversation, which the renamed slices rename as well."""
    made = {"name": "create_task", "arguments": '{"title": "water the fern"}'}
    history = [
        {"role": "user", "content": "add water the fern"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": made}],
        },
        {"role": "tool", "tool_call_id": "1", "content": '{"task": {"id": 3, "title": "water the fern"}}'},
        {"role": "assistant", "content": "Created task 3."},
        {"role": "user", "content": "on second thought, drop task 3 again"},
    ]
    delete: Call = ("delete_task", {"task_id": 3})
    found = right_by_slice(measure(tmp_path, make_case("a", delete, messages=history), [delete, delete]))
    # The second deletion is refused, and changes nothing: flagged, not wrong.
    assert set(found.values()) == {1}


def test_no_two_names_become_one() -> None:
    assert turn_round(["task.get", "task_get", "get"]) == {
        "task.get": "get_task",
        "task_get": "get_task_2",
        "get": "get_field",
    }


def test_names_that_change_places_are_restored_each_to_its_own() -> None:
    renaming = Renaming(tools=turn_round(["a_b", "b_a"]), parameters={"a_b": {"x": "y", "y": "x"}})
    assert renaming.restore(PredictedCall("b_a", {"x": 1, "y": 2, "z": 3})) == PredictedCall(
        "a_b", {"y": 1, "x": 2, "z": 3}
    )


def test_an_interrupted_run_resumes_to_the_records_of_an_uninterrupted_one(
    workspace: Path, tmp_path: Path
) -> None:
    """The server fails at the fourth question; the resumed run asks the rest and judges all by their end state."""
    cases = write_rows(tmp_path / "cases.jsonl", [make_case(name) for name in ANSWERS])
    models = (200, {"object": "list", "data": [{"id": "m"}]})
    ready = [
        (200, completion(None, *((name, json.dumps(arguments)) for name, arguments in calls)))
        for calls, _, _ in ANSWERS.values()
    ]

    def evaluate(server: ScriptedServer, run: Run | None = None) -> list[TurnRecord]:
        request = {"cases": cases, "base_url": server.base_url, "concurrency": 1}
        result = EVALS_RUN.execute(EVALS_RUN.parse(request), run)
        return [
            record.model_copy(update={"predicted": record.predicted.model_copy(update={"latency_ms": 0})})
            for record in read_details(Run.open(result.run_id).artifacts / "details.jsonl")
        ]

    with ScriptedServer(models, *ready) as server:
        whole = evaluate(server)
    run = Run.create("evals.run", {})
    with (
        ScriptedServer(models, *ready[:3], (500, {"error": {"message": "out of memory"}})) as server,
        pytest.raises(OperationFailedError, match="out of memory"),
    ):
        evaluate(server, run)
    with ScriptedServer(models, *ready[3:]) as server:
        resumed = evaluate(server, run)
        assert len(server.requests) == 3  # the list of models, and the two open questions
    assert resumed == whole
    assert [record.correct for record in whole] == [correct for _, correct, _ in ANSWERS.values()]
