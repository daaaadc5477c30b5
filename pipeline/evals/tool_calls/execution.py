"""Run the calls of an answer and compare the state with the goal: end state equal, and no write outside the goal.

Three kinds of tool sets plug in, each named by the caller and never by a case file:

- ``task_api``: the Task API.
- ``python:MODULE:FUNCTION``: a function ``f(initial_state, today)`` that returns an object with ``call(name,
  arguments) -> result`` and ``state()``; if writes outside the goal are to be seen, ``write_log``, (tool, row id) pairs;
  if something has to be released, ``close()``.
- ``mcp:COMMAND`` or ``mcp[STATE]:COMMAND``: an MCP server, started per case; STATE names a tool without arguments or a
  resource that returns the state. ``initial_state`` is then a list of calls to begin with.

A refusal is a result with an ``error``. Cases are executed only when they say where to end: ``expected_state`` or
``oracle_calls``. Right state makes up for other arguments (two updates of one field each for one update of two).
"""

import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Protocol, cast

from pipeline.core.errors import InvalidInputError, OperationFailedError, PipelineError
from pipeline.core.extras import require
from pipeline.core.paths import is_confined
from pipeline.evals.cases import TASK_API, Case
from pipeline.evals.tool_calls.codes import has_layer, layer_of, sort_codes
from pipeline.evals.tool_calls.prediction import PredictedCall, Prediction, read_calls
from pipeline.evals.tool_calls.replies import judge_executed_text
from pipeline.evals.tool_calls.scoring import CaseScore
from pipeline.evals.tool_calls.values import is_equal, is_same
from pipeline.task_api.store import TaskStore

_PYTHON = "python:"
_MCP = re.compile(r"mcp(?:\[(?P<state>[^\]]+)\])?:(?P<command>.+)", re.DOTALL)
_HINT = "Use task_api, python:MODULE:FUNCTION with a function of (initial_state, today), or mcp[STATE_TOOL]:COMMAND."
_STATE_HINT = "With an MCP server initial_state is a list of calls to begin with: [{name, arguments}]."


class ToolSet(Protocol):
    """Tools that can be run."""

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run one call; a refusal is a result with an ``error``."""
        ...

    def state(self) -> Any:
        """Return the state as JSON values."""
        ...


Open = Callable[[Any, str | None], ToolSet]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What calls did."""

    results: list[Any]
    state: Any
    written: frozenset[Any]
    """Rows that were written; empty when the tool set keeps no log."""
    has_written: bool
    """By the log, or without one because the state is another."""


class TaskApi:
    """The Task API as a tool set."""

    def __init__(self, initial_state: Any, today: str | None) -> None:
        self._store = TaskStore.from_state(initial_state or (), date.fromisoformat(today or "2026-01-01"))
        self.write_log = self._store.write_log
        self.close = self._store.close

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run one call."""
        return self._store.call(name, arguments)

    def state(self) -> Any:
        """Return all tasks."""
        return self._store.snapshot()


def find_tool_set(case: Case, executor: str | None) -> Open | None:
    """Return what opens the tool set of a case; None when the case cannot be executed.

    Raises:
        InvalidInputError: If the executor is unknown, cannot be imported, or cannot tell the state the case asks for.
        MissingDependencyError: If it is an MCP server and the ``mcp`` extra is not installed.
    """
    if case.expected_state is None and case.oracle_calls is None:
        return None
    if executor is None:
        return TaskApi if case.tool_set == TASK_API else None
    if executor == TASK_API:
        return TaskApi
    if (server := _MCP.fullmatch(executor)) is None:
        return load_function(executor)
    if case.expected_state is not None and server["state"] is None:
        raise InvalidInputError(
            f"case {case.id!r} has an expected_state, and the MCP server no tool named to read the state with",
            hint="Name one as mcp[TOOL]:COMMAND, or give the case oracle_calls.",
        )
    return partial(_start_server, split_command(server["command"]), server["state"])


def check_executor(executor: str | None) -> str | None:
    """Refuse code of the caller's choice over MCP; for request fields.

    Raises:
        ValueError: If it is neither allowed nor known.
    """
    if executor in {None, TASK_API}:
        return executor
    server = _MCP.fullmatch(str(executor))
    if server is None and not str(executor).startswith(_PYTHON):
        raise ValueError(_HINT)
    if server is not None:
        split_command(server["command"])
    if is_confined():
        raise ValueError("this tool set runs code and can be named on the command line only")
    return executor


def split_command(command: str) -> list[str]:
    """Return a command as program and arguments; nothing of it reaches a shell.

    Raises:
        InvalidInputError: If there is none, or a quotation mark is not closed.
    """
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise InvalidInputError(f"cannot read the command {command!r}: {error}", hint=_HINT) from error
    if not argv:
        raise InvalidInputError("there is no command after mcp:", hint=_HINT)
    return argv


def load_function(executor: str) -> Open:
    """Import ``python:MODULE:FUNCTION``; the current folder counts.

    Raises:
        InvalidInputError: If there is none.
    """
    module, _, function = executor.removeprefix(_PYTHON).partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # sys.path holds texts
    try:
        return cast("Open", getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInputError(f"cannot import {executor!r}: {error}", hint=_HINT) from error
    finally:
        sys.path.pop(0)


def execute(case: Case, calls: Iterable[PredictedCall], opened: Open, *, must_run: bool = False) -> Outcome:
    """Run the conversation's own calls and then these on a fresh tool set.

    Args:
        case: Where to begin.
        calls: What to run.
        opened: What opens the tool set.
        must_run: A call that raises is no refusal but a defect, because these calls are the right ones.

    Raises:
        InvalidInputError: If the tool set cannot be opened with the case's initial state.
        OperationFailedError: If the tool set breaks down, or a call that must run raises.
    """
    with _open(case, opened) as tools:
        for message in case.messages:
            for call in read_calls(message.get("tool_calls") or ()).calls:
                _run(tools, call)
        log: list[Any] | None = getattr(tools, "write_log", None)
        before = len(log) if log is not None else deepcopy(tools.state())
        results = [_run(tools, call, case.id if must_run else None) for call in calls]
        after = tools.state()
        if log is None:
            return Outcome(results, after, frozenset(), has_written=not is_equal(before, after))
        written = frozenset(row for _, row in log[before:])
        return Outcome(results, after, written, has_written=bool(written))


def judge_state(case: Case, prediction: Prediction, score: CaseScore, opened: Open) -> CaseScore:
    """Return the score with what execution shows; a right state stands in for other selection and arguments."""
    if has_layer(score.errors, "parse"):
        return score
    oracle = [PredictedCall(call.name, call.arguments) for call in case.oracle_calls or ()]
    wanted, got = execute(case, oracle, opened, must_run=True), execute(case, prediction.calls, opened)
    goal = case.expected_state if case.expected_state is not None else wanted.state
    codes: set[str] = set()
    if not is_same(goal, got.state, {}) or not _returns_what_is_read(case, wanted, got):
        codes.add("state_mismatch")
    if case.oracle_calls is not None and got.written - wanted.written:
        codes.add("side_effect")
    failed = [
        json.dumps(_name_call(call))
        for call, r in zip(prediction.calls, got.results, strict=True)
        if _error(r)
    ]
    refused = {_error(result) for result in wanted.results}
    noted = {"call_error"} if any(_error(r) not in {None, *refused} for r in got.results) else set[str]()
    if len(failed) > len(set(failed)):
        codes.add("repeated_failure")
    forgiven = {"selection", "arguments"} if not codes and case.expected.kind == "calls" else set[str]()
    kept = [code for code in score.errors if layer_of(code) not in forgiven]
    checks = {**score.checks, "state_accuracy": not codes}
    flags = (*score.flags, *noted) if not codes and not kept else score.flags
    reply = judge_executed_text(case, prediction, got.results)
    errors = sort_codes([*kept, *codes, *reply, *(noted if kept or codes else ())])
    checks["end_to_end"] = not errors
    return CaseScore(errors, checks, flags, score.arguments)


@contextmanager
def _open(case: Case, opened: Open) -> Generator[ToolSet]:
    """Open the tool set of one case, and close it whatever happens."""
    try:
        tools = opened(case.initial_state, case.today)
    except PipelineError:
        raise
    except Exception as error:  # the user's own code
        raise InvalidInputError(
            f"the tool set cannot be opened for case {case.id!r}: {type(error).__name__}: {error}",
            hint="Check initial_state and today of the case against what the tool set's function takes.",
        ) from error
    missing = [name for name in ("call", "state") if not callable(getattr(tools, name, None))]
    if missing:
        raise InvalidInputError(f"the tool set has no {'() and no '.join(missing)}()", hint=_HINT)
    try:
        yield tools
    finally:
        getattr(tools, "close", lambda: None)()


def _start_server(argv: list[str], state: str | None, initial_state: Any, _today: str | None) -> ToolSet:
    require("mcp", extra="mcp")
    from pipeline.evals.backends.mcp_tools import McpTools

    try:
        first = read_calls(initial_state or ())
    except TypeError as error:
        raise InvalidInputError(f"initial_state is no list: {error}", hint=_STATE_HINT) from error
    if first.errors:
        raise InvalidInputError(f"initial_state has a call with {first.errors[0]}", hint=_STATE_HINT)
    tools = McpTools(argv, state)
    try:
        for call in first.calls:
            if (reason := _error(tools.call(call.name, call.arguments))) is not None:
                raise OperationFailedError(
                    f"{call.name} of initial_state is refused: {reason}", hint=_STATE_HINT
                )
    except BaseException:
        tools.close()
        raise
    return tools


def _run(tools: ToolSet, call: PredictedCall, right_in: str | None = None) -> Any:
    """Run a call; one that is ``right_in`` a case must not raise."""
    try:
        return tools.call(call.name, call.arguments)
    except PipelineError:
        raise
    except Exception as error:  # the user's own code: whatever it raises is a refused call
        if right_in is not None:
            raise OperationFailedError(
                f"the right call {call.name} of case {right_in!r} raises {type(error).__name__}: {error}",
                hint="Mend the case or the tool set: a refusal that is meant is a result with an `error`.",
            ) from error
        return {"error": type(error).__name__, "message": str(error)}


def _returns_what_is_read(case: Case, wanted: Outcome, got: Outcome) -> bool:
    """True when what reading calls returned was returned, because the reply relies on it."""
    if wanted.has_written or case.oracle_calls is None:
        return True
    return all(any(is_same(result, other, {}) for other in got.results) for result in wanted.results)


def _error(result: Any) -> str | None:
    return (
        str(cast("dict[str, Any]", result)["error"])
        if isinstance(result, dict) and "error" in result
        else None
    )


def _name_call(call: PredictedCall) -> list[Any]:
    return [call.name, sorted(call.arguments.items(), key=lambda item: item[0])]
