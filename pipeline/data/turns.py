"""Turns: a row of any of the three formats, read into role, text and calls.

    messages   {"messages": [{"role", "content", "tool_calls", "tool_call_id"}], "tools"}       OpenAI
    sharegpt   {"conversations": [{"from", "value"} or {"role", "content"}], "tools", "system"}
    alpaca     {"instruction", "input", "output", "system", "history"}

Checks shapes and types, with the path of what is wrong. Turns are plain tuples because the validator makes millions of
them; ``conversation.py`` makes messages of them. Order of turns, calls and results are the matter of ``rules.py``;
bytes and JSON that of ``strict_json.py``.
"""

import re
from typing import Any, Literal, NamedTuple

from pipeline.core.messages import Role, Tool
from pipeline.data.strict_json import RowError, echo, is_array, is_object, require_text, wrong_type
from pipeline.data.tool_fields import Call, parse_call_text, parse_calls, parse_tools

Format = Literal["messages", "sharegpt", "alpaca"]
ALPACA_FIELDS = ("instruction", "input", "output", "system", "history")

_OPENAI_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_SHAREGPT_ROLES: dict[str, Role] = {
    **_OPENAI_ROLES,
    "human": "user",
    "gpt": "assistant",
    "observation": "tool",
    "function_call": "assistant",
}
"""Every accepted name of a speaker. There is no other mapping: an unknown name is an error."""
_CALL_PART = re.compile(r"(\.tool_calls\[(\d+)\])(\.(?:name|arguments).*)", re.DOTALL)


class Turn(NamedTuple):
    """Who says what."""

    role: Role
    content: str | None
    calls: tuple[Call, ...] = ()
    tool_call_id: str | None = None


class Reading(NamedTuple):
    """What a row says."""

    format: Format
    turns: list[Turn]
    tools: tuple[Tool, ...]


class _Keys(NamedTuple):
    """Where the turns of a row are and what their keys are called."""

    field: str
    role: str
    content: str
    roles: dict[str, Role]
    is_openai: bool


_OPENAI = _Keys("messages", "role", "content", _OPENAI_ROLES, is_openai=True)
_FROM_VALUE = _Keys("conversations", "from", "value", _SHAREGPT_ROLES, is_openai=False)
_ROLE_CONTENT = _Keys("conversations", "role", "content", _SHAREGPT_ROLES, is_openai=False)


def read_row(row: dict[str, Any]) -> Reading:
    """Read a row of any format.

    Raises:
        RowError: If it is of no format, of two, or a field or turn has the wrong shape.
    """
    format_ = detect_format(row)
    if format_ == "alpaca":
        turns = _read_alpaca(row)
    elif format_ == "sharegpt":
        turns = _read_sharegpt(row)
    else:
        turns = _read_turns(row, _OPENAI)
    return Reading(format_, turns, parse_tools(row, may_be_flat=format_ != "messages"))


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


def locate_turn(row: dict[str, Any], reading: Reading, turn: int, part: str) -> str:
    """Return where a part of a turn stands in the row it was read from.

    Args:
        row: As parsed.
        reading: What was read from it.
        turn: Index of the turn.
        part: Path below the turn, as in ``.tool_calls[0].arguments``; empty for all of it.
    """
    num_turns = len(reading.turns)
    if reading.format == "alpaca":
        has_system = reading.turns[0].role == "system"
        names = {
            num_turns - 1: "output",
            num_turns - 2: "instruction",
            **({0: "system"} if has_system else {}),
        }
        pair, side = divmod(turn - has_system, 2)
        return names.get(turn, f"history[{pair}][{side}]")
    field = "messages" if reading.format == "messages" else "conversations"
    turns: list[dict[str, Any]] = row[field]
    index = turn - (num_turns - len(turns))
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


def _read_sharegpt(row: dict[str, Any]) -> list[Turn]:
    written = row["conversations"]
    first: Any = written[0] if is_array(written) and written else None
    is_from = not is_object(first) or "from" in first or "role" not in first
    turns = _number_calls(_read_turns(row, _FROM_VALUE if is_from else _ROLE_CONTENT))
    system = row.get("system")
    return (
        turns if system is None or system == "" else [Turn("system", require_text(system, "system")), *turns]
    )


def _read_alpaca(row: dict[str, Any]) -> list[Turn]:
    turns: list[Turn] = []
    if row.get("system") not in (None, ""):
        turns.append(Turn("system", require_text(row["system"], "system")))
    if row.get("history") is not None:
        turns += _read_history(row["history"])
    instruction = require_text(row.get("instruction"), "instruction")
    added = row.get("input")
    text = "" if added is None else require_text(added, "input")
    turns.append(Turn("user", f"{instruction}\n{text}" if text else instruction))
    turns.append(Turn("assistant", require_text(row.get("output"), "output")))
    return turns


def _read_history(history: Any) -> list[Turn]:
    if not is_array(history):
        raise wrong_type("history", "an array of [question, answer] pairs", history)
    turns: list[Turn] = []
    for i, pair in enumerate(history):
        if not is_array(pair) or len(pair) != 2:
            raise wrong_type(f"history[{i}]", "a [question, answer] pair", pair)
        turns.append(Turn("user", require_text(pair[0], f"history[{i}][0]")))
        turns.append(Turn("assistant", require_text(pair[1], f"history[{i}][1]")))
    return turns


def _read_turns(row: dict[str, Any], keys: _Keys) -> list[Turn]:
    written = row[keys.field]
    if not is_array(written):
        raise wrong_type(keys.field, "an array of turns", written)
    turns: list[Turn] = []
    try:
        for turn in written:
            turns.append(_read_turn(turn, keys))
    except RowError as error:
        error.path = f"{keys.field}[{len(turns)}]{error.path}"
        raise
    return turns


def _read_turn(turn: Any, keys: _Keys) -> Turn:
    if not is_object(turn):
        raise wrong_type("", "an object", turn)
    speaker = turn.get(keys.role)
    if not isinstance(speaker, str) or speaker not in keys.roles:
        raise RowError(
            "unknown_role",
            f".{keys.role}",
            f"the role is {echo(speaker)}" if keys.role in turn else f"the turn has no {keys.role!r}",
            fix=f"Use one of: {', '.join(keys.roles)}.",
        )
    role = keys.roles[speaker]
    content = turn.get(keys.content)
    if speaker == "function_call":
        return Turn(role, None, parse_call_text(content, f".{keys.content}"))
    calls = turn.get("tool_calls")
    if calls is not None and calls != []:
        calls = parse_calls(calls, ".tool_calls", role, may_be_flat=not keys.is_openai)
    if content is None:
        if not calls:
            raise RowError(
                "empty_content",
                f".{keys.content}",
                f"the {role} turn has no {keys.content}",
                fix="Write its text, or remove the turn; null is for assistant turns with tool calls.",
            )
    elif not isinstance(content, str):
        raise wrong_type(f".{keys.content}", "text", content)
    answered = turn.get("tool_call_id") if role == "tool" else None
    if answered is not None:
        require_text(answered, ".tool_call_id")
    return Turn(role, content, calls or (), answered)


def _number_calls(turns: list[Turn]) -> list[Turn]:
    """Give calls and results without ids the ids that their order says: ShareGPT has none of its own."""
    calls = [call for turn in turns for call in turn.calls]
    if not calls or any(call.id is not None for call in calls) or any(turn.tool_call_id for turn in turns):
        return turns
    numbered: list[Turn] = []
    count, open_ids = 0, list[str]()
    for turn in turns:
        if turn.calls:
            open_ids = [f"call_{count + i}" for i in range(1, len(turn.calls) + 1)]
            count += len(open_ids)
            named = (call._replace(id=name) for call, name in zip(turn.calls, open_ids, strict=True))
            numbered.append(turn._replace(calls=tuple(named)))
        elif turn.role == "tool" and open_ids:
            numbered.append(turn._replace(tool_call_id=open_ids.pop(0)))
        else:
            numbered.append(turn)
    return numbered
