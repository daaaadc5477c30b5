"""Run the calls of an answer and compare the state with the goal: end state equal, and no write outside the goal.

A tool set plugs in as a Python function ``f(initial_state, today)`` that returns an object with ``call(name,
arguments) -> result`` and ``state()``, and, if writes outside the goal are to be seen, ``write_log``: (tool, row id)
pairs. The Task API is one of them. Cases are executed only when they say where to end: ``expected_state`` or
``oracle_calls``. Right state makes up for other arguments (two updates of one field each for one update of two).
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol, cast

from pipeline.core.errors import InvalidInputError
from pipeline.core.paths import is_confined
from pipeline.evals.cases import TASK_API, Case
from pipeline.evals.tool_calls.codes import has_layer, layer_of, sort_codes
from pipeline.evals.tool_calls.prediction import PredictedCall, Prediction, read_calls
from pipeline.evals.tool_calls.scoring import CaseScore
from pipeline.evals.tool_calls.values import is_same
from pipeline.task_api.store import TaskStore

_PYTHON = "python:"
_HINT = "Use task_api, or python:MODULE:FUNCTION with a function of (initial_state, today)."


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


class TaskApi:
    """The Task API as a tool set."""

    def __init__(self, initial_state: Any, today: str | None) -> None:
        self._store = TaskStore.from_state(initial_state or (), date.fromisoformat(today or "2026-01-01"))
        self.write_log = self._store.write_log

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run one call."""
        return self._store.call(name, arguments)

    def state(self) -> Any:
        """Return all tasks."""
        return self._store.snapshot()


def find_tool_set(case: Case, executor: str | None) -> Open | None:
    """Return what opens the tool set of a case; None when the case cannot be executed.

    Raises:
        InvalidInputError: If the executor is unknown or cannot be imported.
    """
    if case.expected_state is None and case.oracle_calls is None:
        return None
    if executor is None:
        return TaskApi if case.tool_set == TASK_API else None
    return TaskApi if executor == TASK_API else load_function(executor)


def check_executor(executor: str | None) -> str | None:
    """Refuse code of the caller's choice over MCP; for request fields.

    Raises:
        ValueError: If it is neither allowed nor known.
    """
    if executor not in {None, TASK_API} and not str(executor).startswith(_PYTHON):
        raise ValueError(_HINT)
    if executor not in {None, TASK_API} and is_confined():
        raise ValueError("a Python tool set runs code and can be named on the command line only")
    return executor


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


def execute(case: Case, calls: Iterable[PredictedCall], opened: Open) -> Outcome:
    """Run the conversation's own calls and then these on a fresh tool set."""
    tools = opened(case.initial_state, case.today)
    for message in case.messages:
        for call in read_calls(message.get("tool_calls") or ()).calls:
            tools.call(call.name, call.arguments)
    log: list[Any] = getattr(tools, "write_log", [])
    num_before = len(log)
    results = [_run(tools, call) for call in calls]
    return Outcome(results, tools.state(), frozenset(row for _, row in log[num_before:]))


def judge_state(case: Case, prediction: Prediction, score: CaseScore, opened: Open) -> CaseScore:
    """Return the score with what execution shows; a right state stands in for other selection and arguments."""
    if has_layer(score.errors, "parse"):
        return score
    oracle = [PredictedCall(call.name, call.arguments) for call in case.oracle_calls or ()]
    wanted, got = execute(case, oracle, opened), execute(case, prediction.calls, opened)
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
    errors = sort_codes([*kept, *codes, *(noted if kept or codes else ())])
    checks["end_to_end"] = not errors
    return CaseScore(errors, checks, flags, score.arguments)


def _run(tools: ToolSet, call: PredictedCall) -> Any:
    try:
        return tools.call(call.name, call.arguments)
    except Exception as error:  # noqa: BLE001  # the user's own code: whatever it raises is a refused call
        return {"error": type(error).__name__, "message": str(error)}


def _returns_what_is_read(case: Case, wanted: Outcome, got: Outcome) -> bool:
    """True when what reading calls returned was returned, because the reply relies on it."""
    if wanted.written or case.oracle_calls is None:
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
