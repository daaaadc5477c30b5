"""Conversation: one row of any of the three formats, read into the messages that all stages share.

    messages   {"messages": [{"role", "content", "tool_calls", "tool_call_id"}], "tools"}       OpenAI
    sharegpt   {"conversations": [{"from", "value"} or {"role", "content"}], "tools", "system"}
    alpaca     {"instruction", "input", "output", "system", "history"}

Checks shapes and types, with the path of what is wrong. Order of turns, calls and their results are the matter of
``rules.py``; bytes and JSON that of ``strict_json.py``.
"""

import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message, Role, Tool
from pipeline.data.reader import read_lines
from pipeline.data.strict_json import (
    RowError,
    echo,
    is_array,
    is_object,
    json_error,
    parse_row,
    require_text,
    wrong_type,
)
from pipeline.data.tool_fields import parse_call_text, parse_calls, parse_tools

__all__ = ["Conversation", "Format", "RowError", "parse_conversation", "parse_row", "read_conversations"]

Format = Literal["messages", "sharegpt", "alpaca"]
_FORMAT_FIELDS = {"messages", "conversations", "instruction", "tools"}
ALPACA_FIELDS = ("instruction", "input", "output", "system", "history")

_CALL_PART = re.compile(r"(\.tool_calls\[(\d+)\])(\.(?:name|arguments).*)", re.DOTALL)
_OPENAI_ROLES: dict[str, Role] = {role: role for role in ("system", "user", "assistant", "tool")}
_SHAREGPT_ROLES: dict[str, Role] = {
    **_OPENAI_ROLES,
    "human": "user",
    "gpt": "assistant",
    "observation": "tool",
    "function_call": "assistant",
}
"""Every accepted name of a speaker. There is no other mapping: an unknown name is an error."""


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


@dataclass(frozen=True, slots=True)
class _Turns:
    """Where the turns of a row are and what their keys are called."""

    field: str
    role_key: str
    content_key: str
    roles: dict[str, Role]
    is_openai: bool


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


def parse_conversation(row: dict[str, Any]) -> Conversation:
    """Read a row of any format.

    Raises:
        RowError: If it is of no format, of two, or a field or turn has the wrong shape.
    """
    format_ = detect_format(row)
    if format_ == "alpaca":
        messages = _parse_alpaca(row)
        own_fields = set(ALPACA_FIELDS)
    elif format_ == "sharegpt":
        messages = _parse_sharegpt(row)
        own_fields = {"system"}
    else:
        messages = _parse_turns(row, _Turns("messages", "role", "content", _OPENAI_ROLES, is_openai=True))
        own_fields = set[str]()
    extra = {key: value for key, value in row.items() if key not in own_fields | _FORMAT_FIELDS}
    return Conversation(messages, parse_tools(row, may_be_flat=format_ != "messages"), format_, extra)


def locate_turn(row: dict[str, Any], conversation: Conversation, turn: int, part: str) -> str:
    """Return where a part of a message stands in the row it was read from.

    Args:
        row: As parsed.
        conversation: What was read from it.
        turn: Index of the message.
        part: Path below the message, as in ``.tool_calls[0].arguments``; empty for all of it.
    """
    num_messages = len(conversation.messages)
    if conversation.format == "alpaca":
        has_system = conversation.messages[0].role == "system"
        names = {
            num_messages - 1: "output",
            num_messages - 2: "instruction",
            **({0: "system"} if has_system else {}),
        }
        pair, side = divmod(turn - has_system, 2)
        return names.get(turn, f"history[{pair}][{side}]")
    field = "messages" if conversation.format == "messages" else "conversations"
    turns: list[dict[str, Any]] = row[field]
    index = turn - (num_messages - len(turns))
    if not turns:
        return field
    if index < 0:
        return "system"
    written = turns[index]
    if part == ".content" or (part and "tool_calls" not in written and "tool_call_id" not in written):
        part = part if "role" in written else ".value"
    if found := _CALL_PART.match(part):
        has_function = "function" in written["tool_calls"][int(found[2])]
        part = f"{found[1]}{'.function' if has_function else ''}{found[3]}"
    return f"{field}[{index}]{part}"


def detect_format(row: dict[str, Any]) -> Format:
    """Return the format of a row; a field that is null counts as absent, as in files that Arrow wrote.

    Raises:
        RowError: If it has the fields of none or of several.
    """
    found: list[Format] = []
    if row.get("messages") is not None:
        found.append("messages")
    if row.get("conversations") is not None:
        found.append("sharegpt")
    if row.get("instruction") is not None or (not found and row.get("output") is not None):
        found.append("alpaca")
    if len(found) == 1:
        return found[0]
    if found:
        raise RowError(
            "ambiguous_format",
            "",
            f"the row has the fields of {' and '.join(found)}",
            fix="Keep the fields of one format.",
        )
    raise RowError(
        "unknown_format",
        "",
        f"no messages, conversations or instruction among the fields {echo(', '.join(map(str, row)))}",
        fix="Name the turns `messages` (role, content), `conversations` (from, value), or use Alpaca's fields.",
    )


def _parse_sharegpt(row: dict[str, Any]) -> tuple[Message, ...]:
    turns = row["conversations"]
    first: Any = turns[0] if is_array(turns) and turns else None
    is_from = not is_object(first) or "from" in first or "role" not in first
    keys = ("from", "value") if is_from else ("role", "content")
    messages = _parse_turns(row, _Turns("conversations", *keys, _SHAREGPT_ROLES, is_openai=False))
    system = row.get("system")
    if system is None or system == "":
        return messages
    return (Message(role="system", content=require_text(system, "system")), *messages)


def _parse_alpaca(row: dict[str, Any]) -> tuple[Message, ...]:
    messages: list[Message] = []
    if row.get("system") not in (None, ""):
        messages.append(Message(role="system", content=require_text(row["system"], "system")))
    history = row.get("history")
    if history is not None:
        messages += _parse_history(history)
    instruction = require_text(row.get("instruction"), "instruction")
    added = row.get("input")
    text = "" if added is None else require_text(added, "input")
    question = f"{instruction}\n{text}" if text else instruction
    answer = require_text(row.get("output"), "output")
    return (*messages, Message(role="user", content=question), Message(role="assistant", content=answer))


def _parse_history(history: Any) -> list[Message]:
    if not is_array(history):
        raise wrong_type("history", "an array of [question, answer] pairs", history)
    messages: list[Message] = []
    for i, pair in enumerate(history):
        if not is_array(pair) or len(pair) != 2:
            raise wrong_type(f"history[{i}]", "a [question, answer] pair", pair)
        messages.append(Message(role="user", content=require_text(pair[0], f"history[{i}][0]")))
        messages.append(Message(role="assistant", content=require_text(pair[1], f"history[{i}][1]")))
    return messages


def _parse_turns(row: dict[str, Any], keys: _Turns) -> tuple[Message, ...]:
    turns = row[keys.field]
    if not is_array(turns):
        raise wrong_type(keys.field, "an array of turns", turns)
    messages = [_parse_turn(turn, f"{keys.field}[{i}]", keys) for i, turn in enumerate(turns)]
    return tuple(messages if keys.is_openai else _number_calls(messages))


def _parse_turn(turn: Any, path: str, keys: _Turns) -> Message:
    if not is_object(turn):
        raise wrong_type(path, "an object", turn)
    speaker = turn.get(keys.role_key)
    if not isinstance(speaker, str) or speaker not in keys.roles:
        raise RowError(
            "unknown_role",
            f"{path}.{keys.role_key}",
            f"the role is {echo(speaker)}" if keys.role_key in turn else f"the turn has no {keys.role_key!r}",
            fix=f"Use one of: {', '.join(keys.roles)}.",
        )
    role = keys.roles[speaker]
    content = turn.get(keys.content_key)
    content_path = f"{path}.{keys.content_key}"
    if speaker == "function_call":
        return Message(role=role, tool_calls=parse_call_text(content, content_path))
    calls = parse_calls(turn.get("tool_calls"), f"{path}.tool_calls", role, may_be_flat=not keys.is_openai)
    if content is None and not calls:
        raise RowError(
            "empty_content",
            content_path,
            f"the {role} turn has no {keys.content_key}",
            fix="Write its text, or remove the turn; null is for assistant turns with tool calls.",
        )
    answers = turn.get("tool_call_id") if role == "tool" else None
    return Message(
        role=role,
        content=None if content is None else require_text(content, content_path),
        tool_calls=calls,
        tool_call_id=None if answers is None else require_text(answers, f"{path}.tool_call_id"),
    )


def _number_calls(messages: list[Message]) -> list[Message]:
    """Give calls and results without ids the ids that their order says: ShareGPT has none of its own."""
    named = [m.tool_call_id for m in messages] + [c.id for m in messages for c in m.tool_calls]
    if any(name is not None for name in named) or not any(m.tool_calls for m in messages):
        return messages
    numbered: list[Message] = []
    count, open_ids = 0, list[str]()
    for message in messages:
        if message.tool_calls:
            calls = tuple(
                call.model_copy(update={"id": f"call_{count + i}"})
                for i, call in enumerate(message.tool_calls, start=1)
            )
            count += len(calls)
            open_ids = [str(call.id) for call in calls]
            numbered.append(message.model_copy(update={"tool_calls": calls}))
        elif message.role == "tool" and open_ids:
            numbered.append(message.model_copy(update={"tool_call_id": open_ids.pop(0)}))
        else:
            numbered.append(message)
    return numbered
