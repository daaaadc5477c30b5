"""What makes a well-shaped conversation right: order of turns, text in every turn, calls and their results.

A function per rule set over the same walk; the first problem counts. Shapes are the matter of ``conversation.py``.
"""

import re
from collections.abc import Callable, Generator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.extras import require
from pipeline.core.messages import Message, ToolCall
from pipeline.data.conversation import Conversation, locate_turn, parse_conversation
from pipeline.data.strict_json import RowError, echo

if TYPE_CHECKING:
    from pipeline.data.backends.json_schema import ArgumentSchema

_INVISIBLE = re.compile("[\\s\u00ad\u200b-\u200f\u2060\ufeff]*")
_CONTENT = ".content"
_READ_FIELDS = {"role", "content", "tool_calls", "tool_call_id", "from", "value"}


class _Problem(NamedTuple):
    """A broken rule, located by turn; the names that the format has for it come later."""

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
    conversation = parse_conversation(row)
    schemas = _load_schemas(conversation)
    may_end_open = allow_final_calls or (row.get("tools") is None and row.get("tool_set") is not None)
    problems = find_problems(conversation.messages, schemas, may_end_open=may_end_open)
    for turn, problem in problems:
        path = locate_turn(row, conversation, turn, problem.part)
        raise RowError(problem.code, path, problem.message, fix=problem.fix)
    return conversation


def has_text(text: str) -> bool:
    """Tell whether anything of a text can be seen."""
    return _INVISIBLE.fullmatch(text) is None


def find_problems(
    messages: tuple[Message, ...], schemas: "dict[str, ArgumentSchema]", *, may_end_open: bool
) -> Generator[tuple[int, _Problem]]:
    """Yield the broken rules of a conversation, each with the index of its turn."""
    results = _Results()
    previous = ""
    for index, message in enumerate(messages):
        found = [
            *results.find_unanswered(message),
            *_find_misplaced(message, previous),
            *_find_empty(message),
            *_find_call_problems(message, schemas, results),
            *results.find_problems(message),
        ]
        yield from ((index, problem) for problem in found)
        previous = message.role
    yield from _find_bad_end(messages, results, may_end_open=may_end_open)


def _find_misplaced(message: Message, previous: str) -> Generator[_Problem]:
    role = message.role
    if role == "system":
        if previous:
            yield _Problem(
                "misplaced_system", "", "a system turn after the first turn", "Put the one system turn first."
            )
    elif role != "tool" and (previous in {"user", "tool"}) != (role == "assistant"):
        yield _order_problem(role, previous)


def _order_problem(role: str, previous: str) -> _Problem:
    where = (
        f"follows {'an' if previous == 'assistant' else 'a'} {previous} turn" if previous else "comes first"
    )
    return _Problem(
        "role_order",
        "",
        f"the {role} turn {where}",
        "Alternate user and assistant turns, the user first; join neighbours of one role; answer tool results.",
    )


def _find_empty(message: Message) -> Generator[_Problem]:
    if message.content is not None and not has_text(message.content):
        kind = "white space only" if message.content else "empty"
        hint = " beside calls write null" if message.tool_calls else " or remove the turn"
        yield _Problem(
            "empty_content", _CONTENT, f"the {message.role} turn is {kind}", f"Write its text;{hint}."
        )


def _find_call_problems(
    message: Message, schemas: "dict[str, ArgumentSchema]", results: "_Results"
) -> Generator[_Problem]:
    for position, call in enumerate(message.tool_calls):
        at = f".tool_calls[{position}]"
        yield from results.find_id_problems(call, at)
        schema = schemas.get(call.name)
        if schema is None:
            yield _Problem(
                "undeclared_tool",
                f"{at}.name",
                f"no tool {echo(call.name)} is declared",
                "Declare it in `tools`, or call a tool that is declared.",
            )
        elif problem := schema.find_problem(call.arguments):
            yield _Problem(
                "invalid_schema" if problem.is_schema else "arguments_break_schema",
                f"{at}.arguments{problem.path}",
                problem.message,
                "Correct the arguments, or the tool's schema when the call is right.",
            )


def _find_bad_end(
    messages: tuple[Message, ...], results: "_Results", *, may_end_open: bool
) -> Generator[tuple[int, _Problem]]:
    last = len(messages) - 1
    if not any(message.role == "assistant" for message in messages):
        yield (
            last,
            _Problem(
                "no_assistant", "", "no assistant turn: nothing to train on", "Add the assistant's answer."
            ),
        )
    elif messages[-1].role != "assistant":
        yield (
            last,
            _Problem(
                "last_turn",
                "",
                f"the last turn is the {messages[-1].role}'s",
                "End with the assistant's answer, or remove the turn.",
            ),
        )
    elif results.open_ids and not may_end_open:
        yield last, results.unanswered()


class _Results:
    """Which calls wait for their results."""

    def __init__(self) -> None:
        self.open_ids: dict[str, None] = {}
        self._ids: set[str] = set()

    def find_id_problems(self, call: ToolCall, at: str) -> Generator[_Problem]:
        """Take note of a call; yield what is wrong with its id."""
        if not call.id:
            yield _Problem(
                "missing_call_id", f"{at}.id", "the call has no id", "Give every call an id of its own."
            )
        elif call.id in self._ids:
            yield _Problem(
                "duplicate_call_id",
                f"{at}.id",
                f"two calls have the id {echo(call.id)}",
                "Give each its own.",
            )
        else:
            self._ids.add(call.id)
            self.open_ids[call.id] = None

    def find_unanswered(self, message: Message) -> Generator[_Problem]:
        """Yield a problem when a turn that is no result comes while calls wait."""
        if message.role != "tool" and self.open_ids:
            yield self.unanswered()
            self.open_ids.clear()

    def unanswered(self) -> _Problem:
        """Return the problem of the first call that waits."""
        return _Problem(
            "unanswered_call",
            "",
            f"the call {echo(next(iter(self.open_ids)))} has no result",
            "Add a tool turn with its tool_call_id; --allow-final-calls accepts rows that end with calls.",
        )

    def find_problems(self, message: Message) -> Generator[_Problem]:
        """Yield what is wrong with a tool result, and take it as the answer to its call."""
        if message.role != "tool":
            return
        answered = message.tool_call_id
        if not answered:
            yield _Problem(
                "missing_call_id",
                ".tool_call_id",
                "the tool result does not say which call it answers",
                "Write the id of the call.",
            )
        elif answered in self.open_ids:
            del self.open_ids[answered]
        else:
            reason = "is answered twice" if answered in self._ids else "does not exist"
            yield _Problem(
                "duplicate_result" if answered in self._ids else "unknown_call_id",
                ".tool_call_id",
                f"the call {echo(answered)} {reason}",
                "Put exactly one result after the turn with the call.",
            )


@cache
def _schema_loader() -> "Callable[[dict[str, Any] | None], ArgumentSchema]":
    require("jsonschema", extra="data")
    from pipeline.data.backends.json_schema import load_schema

    return load_schema


def _load_schemas(conversation: Conversation) -> "dict[str, ArgumentSchema]":
    schemas: dict[str, ArgumentSchema] = {}
    if not conversation.tools:
        return schemas
    load_schema = _schema_loader()
    for position, tool in enumerate(conversation.tools):
        function = tool["function"]
        schema = load_schema(function.get("parameters"))
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
        for key, value in turn.items()
        if value is not None and key not in _READ_FIELDS and (key != "name" or turn.get("role") != "tool")
    ]
