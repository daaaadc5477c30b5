"""Execution of answers on tool sets that are not the Task API: Python functions and MCP servers."""

import shlex
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.evals.cases import Case
from pipeline.evals.tool_calls import CaseScore, CaseScorer, read_calls
from pipeline.evals.tool_calls.execution import check_executor, execute, find_tool_set, judge_state

SERVER = Path(__file__).resolve().parents[2] / "assets" / "notes_server.py"
COMMAND = shlex.join([sys.executable, str(SERVER)])
LISTED, RECORDED = f"mcp[list_notes]:{COMMAND}", f"mcp:{COMMAND}"
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NUMBER = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
TOOLS = [
    {"name": "add_note", "parameters": TEXT},
    {"name": "delete_note", "parameters": NUMBER},
    {"name": "list_notes"},
    {"name": "crash", "parameters": TEXT},
    {"name": "hang"},
    {"name": "archive"},
]


def add(text: str) -> dict[str, Any]:
    return {"name": "add_note", "arguments": {"text": text}}


def delete(number: int) -> dict[str, Any]:
    return {"name": "delete_note", "arguments": {"number": number}}


LIST: dict[str, Any] = {"name": "list_notes", "arguments": {}}


def make_case(*oracle: dict[str, Any], **fields: Any) -> Case:
    calls = [
        {"name": call["name"], "args": {k: {"any_of": [v]} for k, v in call["arguments"].items()}}
        for call in oracle
    ]
    return Case.model_validate(
        {
            "id": "a",
            "tools": TOOLS,
            "messages": [{"role": "user", "content": "Note milk and eggs, delete note 1."}],
            "expected": {"kind": "calls", "calls": calls or [{"name": "list_notes"}]},
            "oracle_calls": list(oracle),
            **fields,
        }
    )


def judge(case: Case, executor: str, *calls: dict[str, Any]) -> CaseScore:
    tool_set = find_tool_set(case, executor)
    assert tool_set is not None
    prediction = read_calls(calls)
    return judge_state(case, prediction, CaseScorer(case).score(prediction), tool_set)


@pytest.fixture(autouse=True)
def no_server_left() -> Generator[None]:
    yield
    alive = [child for child in psutil.Process().children(recursive=True) if child.is_running()]
    named = [child.pid for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    assert not [pid for pid in named if SERVER.name in " ".join(psutil.Process(pid).cmdline())]


def test_an_mcp_server_executes_the_calls_and_tells_its_state() -> None:
    case = make_case(add("milk"), expected_state={"notes": {"1": "milk"}})
    assert judge(case, LISTED, add("milk")).errors == ()
    assert "state_mismatch" in judge(case, LISTED, add("eggs")).errors


def test_another_way_to_the_same_state_is_right() -> None:
    case = make_case(add("milk"))
    score = judge(case, LISTED, LIST, add("milk"))
    assert score.errors == ()
    assert score.checks["state_accuracy"]


def test_every_execution_begins_with_a_fresh_server_and_the_initial_calls() -> None:
    case = make_case(delete(1), initial_state=[add("milk"), add("eggs")])
    for _ in range(2):
        assert judge(case, LISTED, delete(1)).errors == ()
        assert "state_mismatch" in judge(case, LISTED, delete(2)).errors


def test_calls_of_the_conversation_are_executed_before_the_answer() -> None:
    call = {"type": "function", "id": "c", "function": {"name": "add_note", "arguments": '{"text": "tea"}'}}
    said = [
        {"role": "user", "content": "Note tea."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": '{"number": 1}'},
        {"role": "user", "content": "Delete note 1."},
    ]
    case = make_case(delete(1), messages=said, expected_state={"notes": {}})
    assert judge(case, LISTED, delete(1)).errors == ()


def test_a_resource_can_be_the_state() -> None:
    case = make_case(add("milk"), expected_state={"notes": {"1": "milk"}})
    assert judge(case, f"mcp[notes://all]:{COMMAND}", add("milk")).errors == ()


def test_a_server_that_keeps_files_gets_a_new_folder_each_time() -> None:
    case = make_case(add("milk"), expected_state={"notes": {"1": "milk"}})
    for _ in range(2):
        assert judge(case, f"{LISTED} {{folder}}", add("milk")).errors == ()


def test_without_a_state_tool_what_was_called_and_returned_counts_and_reading_does_not() -> None:
    case = make_case(add("milk"), add("eggs"))
    assert judge(case, RECORDED, LIST, add("milk"), add("eggs")).errors == ()
    assert "state_mismatch" in judge(case, RECORDED, add("milk")).errors
    assert "state_mismatch" in judge(case, RECORDED, add("milk"), add("eggs"), add("tea")).errors


def test_an_expected_state_needs_a_way_to_read_the_state() -> None:
    case = make_case(add("milk"), expected_state={"notes": {"1": "milk"}})
    with pytest.raises(InvalidInputError, match="has an expected_state") as error:
        judge(case, RECORDED, add("milk"))
    assert "mcp[TOOL]:COMMAND" in error.value.hint


def test_a_refusal_is_noted_beside_a_right_state_and_named_beside_a_wrong_one() -> None:
    case = make_case(add("milk"))
    right = judge(case, LISTED, delete(9), add("milk"))
    assert right.errors == ()
    assert "call_error" in right.flags
    assert {"call_error", "state_mismatch"} <= set(judge(case, LISTED, delete(9)).errors)


def test_a_refused_call_that_is_repeated_is_named() -> None:
    assert "repeated_failure" in judge(make_case(add("milk")), LISTED, delete(9), delete(9)).errors


@pytest.mark.parametrize("executor", [LISTED, "task_api"])
def test_a_tool_that_does_not_exist_is_a_refused_call(executor: str) -> None:
    case = make_case(LIST) if executor == LISTED else make_case({"name": "list_tasks", "arguments": {}})
    score = judge(case, executor, {"name": "archive_all", "arguments": {}})
    assert {"unknown_tool", "call_error"} <= set(score.errors)


def test_arguments_that_break_the_schema_are_a_refused_call() -> None:
    score = judge(make_case(add("milk")), LISTED, {"name": "add_note", "arguments": {"txt": "milk"}})
    assert {"missing_required", "undeclared_argument", "call_error", "state_mismatch"} <= set(score.errors)


def test_a_right_call_to_a_tool_that_the_server_lacks_is_a_defect_and_no_agreement() -> None:
    missing: dict[str, Any] = {"name": "archive", "arguments": {}}
    with pytest.raises(OperationFailedError, match="has no tool 'archive'"):
        judge(make_case(missing), LISTED, missing)


def test_a_server_that_dies_is_an_error_with_its_last_words() -> None:
    crash = {"name": "crash", "arguments": {"text": "disk full"}}
    with pytest.raises(OperationFailedError, match=r"died at crash.*disk full"):
        judge(make_case(add("milk")), LISTED, crash)


def test_a_server_that_hangs_is_an_error_and_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evals.backends.mcp_tools.ANSWER_SECONDS", 1.0)
    with pytest.raises(OperationFailedError, match=r"did not answer hang\(\{\}\) in 1 s"):
        judge(make_case(add("milk")), LISTED, {"name": "hang", "arguments": {}})


@pytest.mark.parametrize(
    ("executor", "kind", "words"),
    [
        (f"{RECORDED} --die", OperationFailedError, "no database"),
        ("mcp:no-such-program-anywhere x", InvalidInputError, "cannot start"),
        ("mcp:echo hello", OperationFailedError, "does not answer as an MCP server"),
        (f"mcp[count]:{COMMAND}", InvalidInputError, "no tool 'count'"),
    ],
)
def test_a_server_that_cannot_be_used_is_an_error_with_the_reason(
    executor: str, kind: type[InvalidInputError | OperationFailedError], words: str
) -> None:
    with pytest.raises(kind, match=words) as error:
        judge(make_case(add("milk")), executor, add("milk"))
    assert error.value.hint


@pytest.mark.parametrize("state", [3, ["milk"], [{"arguments": {}}], [delete(4)]])
def test_an_initial_state_that_is_no_list_of_calls_is_refused(state: Any) -> None:
    with pytest.raises((InvalidInputError, OperationFailedError), match="initial_state"):
        judge(make_case(add("milk"), initial_state=state), LISTED, add("milk"))


@pytest.mark.slow
def test_a_server_made_with_the_sdk_is_executed_too() -> None:
    tool_set = find_tool_set(make_case(LIST), f"mcp:{shlex.quote(sys.executable)} -m mcp_server")
    assert tool_set is not None
    call = read_calls([{"name": "data_validate", "arguments": {}}]).calls
    (result,) = execute(make_case(LIST), call, tool_set).results
    assert "invalid_input" in result["error"]


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    with pytest.raises(OperationFailedError):
        judge(make_case(add("milk")), f"mcp:echo hello; touch {marker}", add("milk"))
    assert not marker.exists()


def test_a_command_in_a_case_file_is_never_started(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown tool_set"):
        make_case(add("milk"), tools=[], tool_set=f"mcp:touch {tmp_path / 'made'}")
    case = make_case(add("milk"), tags={"executor": f"mcp:touch {tmp_path / 'made'}"})
    assert find_tool_set(case, None) is None
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("executor", ["sh -c x", "mcp:", "mcp[]:x", "mcp:'open", "http://somewhere"])
def test_an_executor_that_is_none_is_refused(executor: str) -> None:
    with pytest.raises((ValueError, InvalidInputError)):
        check_executor(executor)


class Counter:
    """A tool set in Python that writes a log and can fail in several ways."""

    closed = 0

    def __init__(self, initial_state: Any, today: str | None) -> None:
        self.counts: dict[str, int] = dict(initial_state)
        self.write_log: list[tuple[str, str]] = []
        self.today = today

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "read":
            return {"count": self.counts[arguments["row"]]}
        self.counts[arguments["row"]] += int(arguments["by"])
        self.write_log.append((name, arguments["row"]))
        return {"ok": True}

    def state(self) -> Any:
        return self.counts

    def close(self) -> None:
        type(self).closed += 1


def count(row: str, by: Any) -> dict[str, Any]:
    return {"name": "count", "arguments": {"row": row, "by": by}}


READ = {"name": "read", "arguments": {"row": "a"}}
COUNT = f"python:{__name__}:Counter"
COUNT_TOOLS = [
    {
        "name": name,
        "parameters": {
            "type": "object",
            "properties": {"row": {"type": "string"}, "by": {"type": "integer"}},
        },
    }
    for name in ("count", "read")
]


def make_count(*oracle: dict[str, Any], **fields: Any) -> Case:
    return make_case(*oracle, **{"tools": COUNT_TOOLS, "initial_state": {"a": 1, "b": 1}, **fields})


def test_a_python_tool_set_is_executed_logged_and_closed() -> None:
    closed = Counter.closed
    assert judge(make_count(count("a", 2)), COUNT, count("a", 1), count("a", 1)).errors == ()
    assert Counter.closed == closed + 2


class Unlogged(Counter):
    """The same without a log."""

    def __init__(self, initial_state: Any, today: str | None) -> None:
        super().__init__(initial_state, today)
        del self.write_log

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "read":
            return super().call(name, arguments)
        self.counts[arguments["row"]] += arguments["by"]
        return {"count": self.counts[arguments["row"]]}


def test_a_tool_set_without_a_log_is_judged_by_its_state_when_the_right_calls_change_it() -> None:
    executor = f"python:{__name__}:Unlogged"
    assert judge(make_count(count("a", 3)), executor, count("a", 1), count("a", 2)).errors == ()
    assert "state_mismatch" in judge(make_count(READ), executor, {**READ, "arguments": {"row": "x"}}).errors


def test_damage_that_was_undone_is_a_side_effect() -> None:
    score = judge(make_count(count("a", 2)), COUNT, count("b", 5), count("b", -5), count("a", 2))
    assert "side_effect" in score.errors
    assert "state_mismatch" not in score.errors


def test_a_right_state_without_reading_what_is_asked_is_wrong() -> None:
    case = make_count(READ)
    assert judge(case, COUNT, READ).errors == ()
    assert "state_mismatch" in judge(case, COUNT, {"name": "read", "arguments": {"row": "b2"}}).errors


def test_a_tool_that_raises_is_a_refused_call() -> None:
    score = judge(make_count(count("a", 2)), COUNT, count("a", "two"))
    assert {"call_error", "state_mismatch"} <= set(score.errors)


def test_a_right_call_that_raises_is_a_defect() -> None:
    case = make_count(count("c", 2))
    with pytest.raises(OperationFailedError, match=r"right call count of case 'a' raises KeyError"):
        judge(case, COUNT, count("c", 2))


def test_a_tool_set_that_cannot_be_opened_names_the_case() -> None:
    with pytest.raises(InvalidInputError, match="cannot be opened for case 'a'"):
        judge(make_count(count("a", 2), initial_state=7), COUNT, count("a", 2))


@pytest.mark.parametrize("name", ["python:json:loads", "python:no_such_module:f", "python:json", "python::"])
def test_a_function_that_is_no_tool_set_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        judge(make_count(count("a", 2)), name, count("a", 2))


def test_an_object_without_state_is_refused() -> None:
    case = make_case(add("milk"))
    with pytest.raises(InvalidInputError, match=r"no call\(\) and no state\(\)"):
        execute(case, [], lambda _state, _today: time)  # pyright: ignore[reportArgumentType] - that is the test
