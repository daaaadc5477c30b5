"""Conversation: one row of any of the three formats, as the messages that all stages share.

What a row may look like is said in ``turns.py``; whether it makes sense, in ``rules.py``.
"""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message, Tool, ToolCall
from pipeline.data.reader import read_lines
from pipeline.data.strict_json import RowError, json_error, parse_row
from pipeline.data.turns import ALPACA_FIELDS, Format, Reading, read_row

__all__ = [
    "ALPACA_FIELDS",
    "OWN_FIELDS",
    "Conversation",
    "Format",
    "RowError",
    "parse_conversation",
    "parse_row",
    "read_conversations",
]

_FORMAT_FIELDS = {"messages", "conversations", "instruction", "tools"}
OWN_FIELDS: dict[Format, set[str]] = {
    "messages": _FORMAT_FIELDS,
    "sharegpt": {*_FORMAT_FIELDS, "system"},
    "alpaca": {*_FORMAT_FIELDS, *ALPACA_FIELDS},
}
"""Top-level fields that the conversation is made of, by format; those of the other formats can only be null."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row whose shape is right."""

    messages: tuple[Message, ...]
    """Turns in order."""
    tools: tuple[Tool, ...]
    """In OpenAI form: declared in the row, or those of its named ``tool_set``."""
    format: Format
    """What it was read from."""
    extra: dict[str, Any]
    """All top-level fields that are not the conversation (id, group, tags, tool_set ...), as they are."""


def parse_conversation(row: dict[str, Any]) -> Conversation:
    """Read a row of any format.

    Raises:
        RowError: If it is of no format, of two, or a field or turn has the wrong shape.
    """
    return to_conversation(row, read_row(row))


def to_conversation(row: dict[str, Any], reading: Reading) -> Conversation:
    """Return what was read as a conversation."""
    messages = tuple(
        Message(
            role=turn.role,
            content=turn.content,
            tool_calls=tuple(ToolCall(name=c.name, arguments=c.arguments, id=c.id) for c in turn.calls),
            tool_call_id=turn.tool_call_id,
        )
        for turn in reading.turns
    )
    own_fields = OWN_FIELDS[reading.format]
    extra = {key: value for key, value in row.items() if key not in own_fields}
    return Conversation(messages, reading.tools, reading.format, extra)


def read_conversations(path: Path) -> Generator[tuple[int, Conversation]]:
    """Yield line number and conversation of every row.

    Raises:
        InvalidInputError: If the file is unusable or a row is not a conversation; it names the line.
    """
    for line in read_lines(path):
        try:
            if line.problem:
                raise json_error(line.problem, "the line is too long")
            yield line.number, parse_conversation(parse_row(line.raw))
        except RowError as error:
            where = f" {error.path}:" if error.path else ""
            raise InvalidInputError(
                f"{path}:{line.number}:{where} {error.message} ({error.code})",
                hint=f"{error.fix} `llmops data validate {path}` lists every such row.",
            ) from error
