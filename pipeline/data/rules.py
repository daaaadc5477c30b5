"""What makes a well-shaped row right: order of turns, text in every turn, calls and their results.

One walk over the turns; the first problem counts. Shapes are the matter of ``turns.py``.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.extras import require
from pipeline.core.messages import Tool
from pipeline.data.conversation import Conversation, to_conversation
from pipeline.data.strict_json import RowError, echo
from pipeline.data.tool_fields import Call
from pipeline.data.turns import Reading, Turn, locate_turn, read_row

if TYPE_CHECKING:
    from pipeline.data.backends.json_schema import ArgumentSchema

    Schemas = dict[str, ArgumentSchema]

_INVISIBLE = re.compile("[\\s\u00ad\u200b-\u200f\u2060\ufeff]*")
_READ_FIELDS = {"role", "content", "tool_calls", "tool_call_id", "from", "value"}


class Problem(NamedTuple):
    """A broken rule; where in the turn is named as in OpenAI's format."""

    code: str
    part: str
    message: str
    fix: str


def check_row(row: dict[str, Any], *, allow_final_calls: bool) -> Conversation:
    """Read a row and check every rule.

    Args:
        row: As parsed.
        allow_final_calls: The last turn may be calls without results. Rows of a named tool set always may: their
            calls can be executed.

    Raises:
        RowError: With the first problem.
    """
    return to_conversation(row, read_right_row(row, allow_final_calls=allow_final_calls))


def read_right_row(row: dict[str, Any], *, allow_final_calls: bool) -> Reading:
    """Do as :func:`check_row` does, without making messages.

    Raises:
        RowError: With the first problem.
    """
    reading = read_row(row)
    check_reading(row, reading, allow_final_calls=allow_final_calls)
    return reading


def check_reading(row: dict[str, Any], reading: Reading, *, allow_final_calls: bool) -> None:
    """Check the rules of a row that has been read.

    Raises:
        RowError: With the first problem.
    """
    schemas = _load_schemas(reading.tools)
    is_executable = row.get("tools") is None and row.get("tool_set") is not None
    found = find_problem(reading.turns, schemas, may_end_open=allow_final_calls or is_executable)
    if found:
        index, problem = found
        path = locate_turn(row, reading, index, problem.part)
        raise RowError(problem.code, path, problem.message, fix=problem.fix)


def has_text(text: str) -> bool:
    """Tell whether anything of a text can be seen."""
    return _INVISIBLE.fullmatch(text) is None


def find_problem(
    turns: Sequence[Turn], schemas: "Schemas", *, may_end_open: bool
) -> tuple[int, Problem] | None:
    """Return the first broken rule of a conversation and the index of its turn, or None."""
    calls = _Calls(schemas)
    previous = ""
    for index, turn in enumerate(turns):
        role = turn.role
        problem = (
            calls.check_result(turn)
            if role == "tool"
            else (calls.find_unanswered() or _check_place(role, previous))
        ) or _check_text(turn)
        if problem is None and turn.calls:
            problem = calls.check(turn.calls)
        if problem:
            return index, problem
        previous = role
    problem = _check_end(turns, None if may_end_open else calls.find_unanswered())
    return (max(0, len(turns) - 1), problem) if problem else None


def _check_place(role: str, previous: str) -> Problem | None:
    if role == "system":
        if not previous:
            return None
        return Problem(
            "misplaced_system", "", "a system turn after the first turn", "Put the one system turn first."
        )
    if (role == "assistant") == (previous in {"user", "tool"}):
        return None
    where = (
        f"follows {'an' if previous == 'assistant' else 'a'} {previous} turn" if previous else "comes first"
    )
    return Problem(
        "role_order",
        "",
        f"the {role} turn {where}",
        "Alternate user and assistant turns, the user first; join neighbours of one role; answer tool results.",
    )


def _check_text(turn: Turn) -> Problem | None:
    if turn.content is None or has_text(turn.content):
        return None
    kind = "white space only" if turn.content else "empty"
    fix = "Write null beside calls." if turn.calls else "Write its text, or remove the turn."
    return Problem("empty_content", ".content", f"the {turn.role} turn is {kind}", fix)


def _check_end(turns: Sequence[Turn], unanswered: Problem | None) -> Problem | None:
    if turns and turns[-1].role == "assistant":
        return unanswered
    if any(turn.role == "assistant" for turn in turns):
        return Problem(
            "last_turn",
            "",
            f"the last turn is the {turns[-1].role}'s",
            "End with the assistant's answer, or remove the turn.",
        )
    return Problem(
        "no_assistant", "", "no assistant turn: nothing to train on", "Add the assistant's answer."
    )


class _Calls:
    """The calls of a conversation, and which of them wait for their results."""

    def __init__(self, schemas: "Schemas") -> None:
        self._schemas = schemas
        self._ids: set[str] = set()
        self._open_ids: list[str] = []

    def check(self, calls: Sequence[Call]) -> Problem | None:
        """Return what is wrong with the calls of a turn."""
        for position, call in enumerate(calls):
            at = f".tool_calls[{position}]"
            if problem := self._check_id(call, at) or self._check_arguments(call, at):
                return problem
        return None

    def _check_id(self, call: Call, at: str) -> Problem | None:
        if not call.id:
            return Problem(
                "missing_call_id", f"{at}.id", "the call has no id", "Give every call an id of its own."
            )
        if call.id in self._ids:
            return Problem(
                "duplicate_call_id",
                f"{at}.id",
                f"two calls have the id {echo(call.id)}",
                "Give every call an id of its own.",
            )
        self._ids.add(call.id)
        self._open_ids.append(call.id)
        return None

    def _check_arguments(self, call: Call, at: str) -> Problem | None:
        schema = self._schemas.get(call.name)
        if schema is None:
            return Problem(
                "undeclared_tool",
                f"{at}.name",
                f"no tool {echo(call.name)} is declared",
                "Declare it in `tools`, or call a tool that is declared.",
            )
        problem = schema.find_problem(call.arguments)
        return problem and Problem(
            "invalid_schema" if problem.is_schema else "arguments_break_schema",
            f"{at}.arguments{problem.path}",
            problem.message,
            "Correct the arguments, or the tool's schema when the call is right.",
        )

    def find_unanswered(self) -> Problem | None:
        """Return a problem when a call waits for its result."""
        if not self._open_ids:
            return None
        return Problem(
            "unanswered_call",
            "",
            f"the call {echo(self._open_ids[0])} has no result",
            "Add a tool turn with its tool_call_id; --allow-final-calls accepts rows that end with calls.",
        )

    def check_result(self, turn: Turn) -> Problem | None:
        """Return what is wrong with a result, or take it as the answer to its call."""
        answered = turn.tool_call_id
        if not answered:
            return Problem(
                "missing_call_id",
                ".tool_call_id",
                "the tool result does not say which call it answers",
                "Write the id of the call.",
            )
        if answered in self._open_ids:
            self._open_ids.remove(answered)
            return None
        is_known = answered in self._ids
        return Problem(
            "duplicate_result" if is_known else "unknown_call_id",
            ".tool_call_id",
            f"the call {echo(answered)} {'is answered twice' if is_known else 'does not exist'}",
            "Put exactly one result after the turn with the call.",
        )


@cache
def _schema_loader() -> "Callable[[dict[str, Any] | None], ArgumentSchema]":
    require("jsonschema", "google-re2", "msgspec", extra="data")
    from pipeline.data.backends.json_schema import load_schema

    return load_schema


def _load_schemas(tools: Sequence[Tool]) -> "Schemas":
    schemas: Schemas = {}
    for position, tool in enumerate(tools):
        function = tool["function"]
        schema = _schema_loader()(function.get("parameters"))
        if schema.schema_problem:
            raise RowError(
                "invalid_schema",
                f"tools[{position}].function.parameters{schema.schema_problem.path}",
                schema.schema_problem.message,
                fix="Write the parameters as JSON Schema (Draft 2020-12).",
            )
        schemas[function["name"]] = schema
    return schemas


def find_ignored_fields(row: dict[str, Any]) -> list[str]:
    """Return the fields of turns that hold something and that no later stage reads."""
    turns: list[dict[str, Any]] = row.get("messages") or row.get("conversations") or []
    return [
        key
        for turn in turns
        for key in turn.keys() - _READ_FIELDS
        if turn[key] is not None and (key != "name" or turn.get("role") != "tool")
    ]
