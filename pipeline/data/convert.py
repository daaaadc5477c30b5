"""``data.convert``: rows between OpenAI messages, ShareGPT and Alpaca, with nothing lost.

Tool calls, their ids, system turns, tools, fields of single turns (``name``, ``weight``) and all other fields of a row go
along. What the target cannot say is an error that names the row, and then nothing is written (docs/decisions/0017).
Changes no text and mends nothing.
"""

import json
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import open_atomic, sha256_file
from pipeline.core.messages import Message
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef
from pipeline.core.paths import resolve_path as resolve_output
from pipeline.core.progress import Progress
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.data.conversation import (
    ALPACA_FIELDS,
    Conversation,
    Format,
    RowError,
    parse_conversation,
    parse_row,
)
from pipeline.data.reader import read_lines
from pipeline.data.sources import Sources, no_rows_error
from pipeline.data.strict_json import echo, is_array, json_error, parse_embedded

MAX_LISTED_ERRORS = 20
INPUT_FIELD = "alpaca_input"
"""Keeps, in other formats, which part of the question was Alpaca's `input`."""
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}
_OWN_FIELDS: dict[Format, set[str]] = {
    "messages": {"messages"},
    "sharegpt": {"conversations", "system"},
    "alpaca": set(ALPACA_FIELDS),
}
_CALL_FIELDS = {"id", "type", "function"}
_FUNCTION_FIELDS = {"name", "arguments"}
_FIX = "Choose another target format, or remove what it cannot hold."


class DataConvertRequest(Request):
    """What to convert, into what."""

    data: WorkspaceRef = Field(min_length=1)
    """JSON Lines file of messages, ShareGPT or Alpaca rows, also mixed."""
    to: Format
    """`messages` (OpenAI; what training reads), `sharegpt` or `alpaca`."""
    out: WorkspacePath = Field(min_length=1)
    """File to write; one of this name is replaced."""


class DataConvertResult(Result):
    """What was written."""

    out: str
    """The file."""
    num_rows: int
    """Rows in it, one for each row read."""
    formats_read: dict[str, int]
    """Rows by the format they came in."""
    sha256: str
    """Digest of the file."""


def convert_data(request: DataConvertRequest, run: Run | None = None) -> DataConvertResult:
    """Convert rows between OpenAI messages, ShareGPT and Alpaca without loss.

    Raises:
        InvalidInputError: If a row is broken or says something that the target cannot; nothing is written then.
    """
    source, out = resolve_path(request.data), resolve_output(request.out)
    Sources(source).check_outputs(out)
    formats: Counter[str] = Counter()
    with (
        open_atomic(out) as handle,
        Progress("convert", source.stat().st_size, unit="bytes", run=run) as progress,
    ):
        problems = _write_rows(source, handle, request.to, formats, progress)
        if problems:
            raise InvalidInputError(
                f"{len(problems)}{' or more' if len(problems) == MAX_LISTED_ERRORS else ''} rows of {source.name} cannot "
                f"be converted to {request.to}; nothing was written. First: {problems[0]}",
                hint=_FIX,
                problems=problems,
            )
        if not formats:
            raise no_rows_error(source)
    return DataConvertResult(
        out=request.out,
        num_rows=formats.total(),
        formats_read=dict(formats),
        sha256=sha256_file(out),
        next_step=f"llmops data validate {request.out}",
    )


def convert_row(row: dict[str, Any], target: Format) -> dict[str, Any]:
    """Return the row in another format, or in the usual spelling of its own.

    Raises:
        RowError: If it is broken, or says something that the target cannot.
    """
    conversation = parse_conversation(row)
    turn_fields = list(_turn_fields(row, conversation))
    extra = _kept_fields(row, conversation, target)
    tools = {"tools": list(conversation.tools)} if row.get("tools") is not None else {}
    if target == "alpaca":
        turns = _to_alpaca(conversation, turn_fields, extra)
    elif target == "sharegpt":
        pairs = zip(conversation.messages, turn_fields, strict=True)
        turns = {
            "conversations": [_to_sharegpt(message, fields, i) for i, (message, fields) in enumerate(pairs)]
        }
    else:
        pairs = zip(conversation.messages, turn_fields, strict=True)
        turns = {"messages": [_to_openai(message, fields, i) for i, (message, fields) in enumerate(pairs)]}
    first = {"id": extra.pop("id")} if "id" in extra else {}
    return {**first, **turns, **tools, **extra}


def _write_rows(
    source: Path, handle: BinaryIO, target: Format, formats: Counter[str], progress: Progress
) -> list[str]:
    problems: list[str] = []
    for line in read_lines(source):
        progress.advance(len(line.raw) + 1)
        try:
            if line.problem:
                raise json_error(line.problem, "the line is too long")
            row = parse_row(line.raw)
            converted = convert_row(row, target)
            formats[parse_conversation(row).format] += 1
        except RowError as error:
            problems.append(f"line {line.number}: {error.path} {error.message} ({error.code})")
            if len(problems) == MAX_LISTED_ERRORS:
                break
            continue
        handle.write(json.dumps(converted, ensure_ascii=False).encode("utf-8") + b"\n")
    return problems


def _turn_fields(row: dict[str, Any], conversation: Conversation) -> Generator[dict[str, Any]]:
    """Yield for each turn the fields that the conversation does not hold; null counts as absent."""
    if conversation.format == "alpaca":
        yield from ({} for _ in conversation.messages)
        return
    turns: list[dict[str, Any]] = row["messages" if conversation.format == "messages" else "conversations"]
    yield from ({} for _ in conversation.messages[len(turns) :])  # ShareGPT's system text beside the turns
    first_turn = len(conversation.messages) - len(turns)
    is_from = conversation.format == "sharegpt" and bool(turns) and "from" in turns[0]
    keys = ["from", "value"] if is_from else ["role", "content"]
    for turn, message in zip(turns, conversation.messages[first_turn:], strict=True):
        _refuse_call_fields(turn, keys)
        own = [*keys, *(["tool_call_id"] if message.role == "tool" else [])]
        if message.tool_calls or not turn.get("tool_calls"):
            own.append("tool_calls")
        yield {key: value for key, value in turn.items() if key not in own and value is not None}


def _refuse_call_fields(turn: dict[str, Any], keys: list[str]) -> None:
    """Refuse what a call cannot say in any format: a call is its name, arguments and id; null counts as absent."""
    calls: Any = turn.get("tool_calls") or []
    if turn[keys[0]] == "function_call":
        if calls:
            raise _inexpressible("tool_calls", "a function_call turn has calls beside its own")
        calls = parse_embedded(turn[keys[1]], keys[1], "invalid_call")
    for call in calls if is_array(calls) else [calls]:
        is_flat = "function" not in call
        allowed = {"id", *_FUNCTION_FIELDS} if is_flat else _CALL_FIELDS
        if is_flat and call.get("type") == "function":
            allowed.add("type")
        lost = [key for key, value in call.items() if value is not None and key not in allowed]
        if not is_flat:
            function: dict[str, Any] = call["function"]
            lost += [k for k, value in function.items() if value is not None and k not in _FUNCTION_FIELDS]
        if lost:
            raise _inexpressible("tool_calls", f"a call has no place for the field {echo(lost[0])}")


def _kept_fields(row: dict[str, Any], conversation: Conversation, target: Format) -> dict[str, Any]:
    extra = dict(conversation.extra)
    added = row.get("input") if conversation.format == "alpaca" else None
    if added:
        if extra.get(INPUT_FIELD) is not None:
            raise _inexpressible(INPUT_FIELD, f"the row already has a field {INPUT_FIELD!r}")
        extra[INPUT_FIELD] = added  # Alpaca takes it out again
    taken = sorted(key for key in extra if key in _OWN_FIELDS[target] and extra[key] is not None)
    if taken:
        raise _inexpressible(
            taken[0], f"{target} rows use the field {taken[0]!r} for the conversation itself"
        )
    return {key: value for key, value in extra.items() if key not in _OWN_FIELDS[target]}


def _to_openai(message: Message, fields: dict[str, Any], position: int) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    return _add_rest(turn, message, fields, f"messages[{position}]")


def _to_sharegpt(message: Message, fields: dict[str, Any], position: int) -> dict[str, Any]:
    turn: dict[str, Any] = {"from": _SPEAKERS[message.role], "value": message.content}
    if "role" in fields or "content" in fields:
        raise _inexpressible(f"turn {position}", "the turn has fields of two formats")
    return _add_rest(turn, message, fields, f"conversations[{position}]")


def _add_rest(turn: dict[str, Any], message: Message, fields: dict[str, Any], path: str) -> dict[str, Any]:
    if message.tool_calls:
        calls = [call.to_openai() for call in message.tool_calls]
        for wire, call in zip(calls, message.tool_calls, strict=True):
            if call.id is None:
                del wire["id"]
        turn["tool_calls"] = calls
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if clash := sorted(turn.keys() & fields.keys()):
        raise _inexpressible(f"{path}.{clash[0]}", f"the turn has a field {clash[0]!r} with another meaning")
    return {**turn, **fields}


def _to_alpaca(
    conversation: Conversation, turn_fields: list[dict[str, Any]], extra: dict[str, Any]
) -> dict[str, Any]:
    messages = list(conversation.messages)
    for position, message in enumerate(messages):
        if message.tool_calls or message.role == "tool":
            raise _inexpressible(f"turn {position}", "Alpaca has no tool calls and no tool results")
    for position, fields in enumerate(turn_fields):
        if fields:
            raise _inexpressible(
                f"turn {position}", f"Alpaca has no place for the turn's field {echo(next(iter(fields)))}"
            )
    system = messages.pop(0).content if messages and messages[0].role == "system" else None
    if system == "":
        raise _inexpressible("turn 0", "Alpaca reads an empty system text as none")
    roles = [message.role for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise _inexpressible(
            "", "Alpaca needs user and assistant turns in pairs, after at most one system turn"
        )
    texts = [message.content or "" for message in messages]
    question, added = texts[-2], extra.get(INPUT_FIELD)
    row: dict[str, Any] = {"instruction": question, "input": "", "output": texts[-1]}
    if isinstance(added, str) and added and question.endswith(f"\n{added}"):
        row |= {"instruction": question.removesuffix(f"\n{added}"), "input": added}
        del extra[INPUT_FIELD]
    if system is not None:
        row["system"] = system
    if len(texts) > 2:
        row["history"] = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    return row


def _inexpressible(path: str, message: str) -> RowError:
    return RowError("not_expressible", path, message, fix=_FIX)


DATA_CONVERT = Operation(
    name="data.convert",
    request=DataConvertRequest,
    result=DataConvertResult,
    run=convert_data,
    long_running=True,
    destructive=True,
    positional=("data",),
)
