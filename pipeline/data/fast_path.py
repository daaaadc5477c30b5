"""The quick verdict: True means that a row is certainly right; anything else is for the slow path to decide.

A row is decoded into closed types by msgspec, so that every field it knows has the right type and is strict JSON.
Repeated keys and unknown fields would escape that; they are found by counting: a line has two quotation marks for every
key and every text and those inside the texts, so when it has exactly as many as the decoded row explains, it holds no key
besides those that were decoded. ``tests/unit/data/test_data_paths_agree.py`` holds both paths against each other.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from pipeline.core.messages import Role
from pipeline.data.answers import note_answers, tools_fingerprint, turn_text
from pipeline.data.backends.json_schema import load_schema
from pipeline.data.quick_schema import Check
from pipeline.data.rules import has_text
from pipeline.data.strict_json import ESCAPED_QUOTE, RowError, is_object, parse_json, parse_json_text
from pipeline.data.tool_fields import parse_tools

_MAX_TOOL_LISTS = 1024
_MAX_BRACKETS = 400
_UNCERTAIN = -(1 << 40)  # makes any count of quotation marks wrong
_LARGE = 1 << 63
_NO_RAW = Raw(b"")
_PLAIN_VALUES = {b"null", b"true", b"false"}
_SPEAKERS: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class _Function(Struct, forbid_unknown_fields=True, gc=False):
    name: str
    arguments: str


class _Call(Struct, forbid_unknown_fields=True, gc=False):
    id: str
    type: Literal["function"]
    function: _Function


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    role: Role
    content: str | None
    tool_calls: list[_Call] | UnsetType | None = UNSET
    tool_call_id: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET


class _Turn(Struct, forbid_unknown_fields=True, gc=False):
    speaker: Literal["system", "human", "gpt", "user", "assistant"] = field(name="from")
    value: str


class _Row(Struct, gc=False):
    messages: list[_Message] | None = None
    conversations: list[_Turn] | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    system: str | None = None
    history: None = None
    tools: Raw = _NO_RAW
    tool_set: str | None = None


class _ChatRow(Struct, forbid_unknown_fields=True, gc=False):
    conversations: list[_Turn]


_CHAT_START = b'{"conversations"'
_READ_FIELDS = {item.encode_name for item in msgspec.structs.fields(_Row)}


class _Tools(NamedTuple):
    """What a declaration of tools comes to."""

    num_quotes: int
    """Quotation marks in it, those of its key included."""
    fingerprint: int
    checks: dict[str, Check]
    are_named: bool
    """They are those of a tool set, whose calls can be executed."""


_NO_TOOLS = _Tools(0, tools_fingerprint(()), {}, are_named=False)


_Spoken = tuple[int, list[str], Sequence[int]]
"""What was read from a row: the quotation marks around the keys and texts of its turns and inside the arguments of
calls; what each turn says, as fingerprinted; the positions of turns with calls."""


class FastPath:
    """Decides row by row; remembers the tool declarations it has seen."""

    def __init__(self, *, allow_final_calls: bool) -> None:
        self._allow_final_calls = allow_final_calls
        self._decode = msgspec.json.Decoder(_Row).decode
        self._decode_chat = msgspec.json.Decoder(_ChatRow).decode
        self._decode_top = msgspec.json.Decoder(dict[str, Raw]).decode
        self._tools: dict[tuple[bytes, str | None, bool], _Tools | None] = {}
        self._last_key: tuple[bytes, str | None, bool] | None = None
        self._last_tools: _Tools | None = None

    def find_uncertain(
        self, lines: list[bytes], first_line: int, answers: "array[int]"
    ) -> list[tuple[int, bytes]]:
        """Return the lines that are not certainly right rows; note the answers of those that are (``answers.py``)."""
        uncertain: list[tuple[int, bytes]] = []
        is_certain, is_certain_chat = self._is_certain, self._is_certain_chat
        for line, raw in enumerate(lines, start=first_line):
            if raw.startswith(_CHAT_START) and is_certain_chat(raw, line, answers):
                continue
            if not is_certain(raw, line, answers):
                uncertain.append((line, raw))
        return uncertain

    def _is_certain_chat(self, raw: bytes, line: int, answers: "array[int]") -> bool:
        """Decide the commonest kind of row, ShareGPT turns and nothing else, with the least work."""
        try:
            turns = self._decode_chat(raw).conversations
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        texts = [turn.value for turn in turns]
        if raw.count(b'"') != 8 * len(turns) + 2 or not _do_alternate(
            tuple([turn.speaker for turn in turns])
        ):
            return False
        if not _are_visible(texts):
            return False
        note_answers(texts, (), _NO_TOOLS.fingerprint, line, answers)
        return True

    def _is_certain(self, raw: bytes, line: int, answers: "array[int]") -> bool:
        try:
            row = self._decode(raw)
            has_tools = row.tools is not _NO_RAW or row.tool_set is not None
            tools = self._load_tools(row) if has_tools else _NO_TOOLS
            spoken = self._read_turns(row, tools) if tools else None
            if tools is None or spoken is None:
                return False
            num_quotes, texts, call_turns = spoken
            if ESCAPED_QUOTE in raw:
                return False
            num_unexplained = raw.count(b'"') - num_quotes - tools.num_quotes
            if num_unexplained and not self._explains(raw, row, num_unexplained):
                return False
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        if not _are_visible(texts):
            return False
        note_answers(texts, call_turns, tools.fingerprint, line, answers)
        return True

    def _read_turns(self, row: _Row, tools: _Tools) -> _Spoken | None:
        """Return the turns of a row, or None when their order, calls and results are not certainly right."""
        turns, messages = row.conversations, row.messages
        if (messages is not None) + (turns is not None) + (row.instruction is not None) != 1:
            return None
        if turns is not None:
            return _read_sharegpt(turns, row.system)
        if messages is not None:
            may_end_open = self._allow_final_calls or tools.are_named
            return _read_messages(messages, tools.checks, may_end_open=may_end_open)
        return _read_alpaca(row)

    def _load_tools(self, row: _Row) -> _Tools | None:
        key = bytes(row.tools), row.tool_set, row.messages is None
        if key == self._last_key:  # neighbours mostly declare the same; comparing is cheaper than hashing
            return self._last_tools
        if key not in self._tools:
            if len(self._tools) >= _MAX_TOOL_LISTS:
                self._tools.clear()
            self._tools[key] = _make_tools(*key)
        self._last_key, self._last_tools = key, self._tools[key]
        return self._last_tools

    def _explains(self, raw: bytes, row: _Row, num_unexplained: int) -> bool:
        """Tell whether further quotation marks are those inside the texts and of harmless other fields."""
        if row.messages is None:
            texts = [turn.value for turn in row.conversations or ()]
            texts += [text for text in (row.instruction, row.input, row.output, row.system) if text]
            num_unexplained -= sum(text.count('"') for text in texts)
        else:  # the texts of messages were counted while reading
            num_unexplained -= sum(map(_count_optional_quotes, row.messages))
        if num_unexplained:
            for key, value in self._decode_top(raw).items():
                num_unexplained -= _count_quotes(key, bytes(value))
        return not num_unexplained


def _count_quotes(key: str, value: bytes) -> int:
    """Return how many quotation marks a top-level field adds to those that were explained."""
    if key in _READ_FIELDS:
        return 2 if value == b"null" and key != "tools" else 0  # the key of what is null was not counted
    key_quotes = 2 + key.count('"')
    try:
        if value[:1] == b'"':
            msgspec.json.decode(value, type=str)
        elif value in _PLAIN_VALUES or (len(value) < 18 and value.isdigit()):
            return key_quotes
        elif value.count(b"[") + value.count(b"{") > _MAX_BRACKETS:
            return _UNCERTAIN
        else:
            parse_json(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RowError):
        return _UNCERTAIN
    return key_quotes + value.count(b'"')


def _make_tools(raw: bytes, tool_set: str | None, may_be_flat: bool) -> _Tools | None:
    if raw.count(b"[") + raw.count(b"{") > _MAX_BRACKETS:
        return None
    try:
        row: dict[str, Any] = {"tools": parse_json(raw or b"null"), "tool_set": tool_set}
        tools = parse_tools(row, may_be_flat=may_be_flat)
    except RowError:
        return None
    schemas = {tool["function"]["name"]: load_schema(tool["function"].get("parameters")) for tool in tools}
    if any(schema.schema_problem for schema in schemas.values()):
        return None
    checks = {name: schema.is_certainly_valid for name, schema in schemas.items()}
    num_quotes = 2 + raw.count(b'"') if raw else 0
    num_quotes += _field_quotes(tool_set)
    return _Tools(num_quotes, tools_fingerprint(tools), checks, are_named=bool(tool_set) and not raw)


def _field_quotes(text: str | None) -> int:
    return 0 if text is None else 4


def _are_visible(texts: list[str]) -> bool:
    # Nearly all start with a letter or digit, which can be seen.
    return all(map(has_text, [text for text in texts if not "0" <= text < "\x7f"]))


def _read_sharegpt(turns: list[_Turn], system: str | None) -> _Spoken | None:
    speakers = [turn.speaker for turn in turns]
    texts = [turn.value for turn in turns]
    if system:
        speakers.insert(0, "system")
        texts.insert(0, system)
    if not _do_alternate(tuple(speakers)):
        return None
    return 8 * len(turns) + 2 + _field_quotes(system), texts, ()


def _read_alpaca(row: _Row) -> _Spoken | None:
    if row.instruction is None or row.output is None:
        return None
    question = f"{row.instruction}\n{row.input}" if row.input else row.instruction
    texts = [row.system, question, row.output] if row.system else [question, row.output]
    return 8 + _field_quotes(row.input) + _field_quotes(row.system), texts, ()


@lru_cache(maxsize=1024)
def _do_alternate(speakers: tuple[str, ...]) -> bool:
    """Tell whether user and assistant take turns, an answer last, after at most one system turn."""
    roles = [_SPEAKERS[speaker] for speaker in speakers]
    rest = roles[1:] if roles[:1] == ["system"] else roles
    return bool(rest) and rest == ["user", "assistant"] * (len(rest) // 2)


def _read_messages(
    messages: list[_Message], checks: dict[str, Check], *, may_end_open: bool
) -> _Spoken | None:
    shape: list[Role | int] = []
    texts: list[str] = []
    ids: list[str] = []
    answered: list[str | UnsetType | None] = []
    num_quotes = 2
    for message in messages:
        content, step = message.content, message.role
        num_quotes += 6 if content is None else 8 + content.count('"')
        if message.tool_calls:
            step = len(message.tool_calls)
            content = _read_calls(message, message.tool_calls, checks)
            num_quotes += 2
            for call in message.tool_calls:
                ids.append(call.id)
                num_quotes += 18 + call.function.arguments.count('"')
        elif step == "tool":
            answered.append(message.tool_call_id)
            num_quotes += 4
        if content is None:
            return None
        shape.append(step)
        texts.append(content)
    if not _is_right_order(tuple(shape)) or not _are_answered(ids, answered, may_end_open=may_end_open):
        return None
    return num_quotes, texts, [position for position, step in enumerate(shape) if isinstance(step, int)]


def _read_calls(message: _Message, calls: list[_Call], checks: dict[str, Check]) -> str | None:
    """Return what a turn with calls says, or None when a call is not certainly right."""
    if message.role != "assistant" or (message.content is not None and not has_text(message.content)):
        return None
    read: list[tuple[str, dict[str, Any]]] = []
    for call in calls:
        arguments = _read_arguments(call.function.arguments)
        check = checks.get(call.function.name)
        if arguments is None or check is None or not check(arguments):
            return None
        read.append((call.function.name, arguments))
    return turn_text(message.content, read)


def _are_answered(ids: list[str], answered: list[str | UnsetType | None], *, may_end_open: bool) -> bool:
    """Tell whether the results come in the order of the calls, all ids being different."""
    num_answered = len(answered)
    if answered != ids[:num_answered] or (num_answered < len(ids) and not may_end_open):
        return False
    return "" not in ids and len(set(ids)) == len(ids)


def _count_optional_quotes(message: _Message) -> int:
    """Return the quotation marks of fields that most turns do not have, or a wrong number when one says something."""
    name, result_id = message.name, message.tool_call_id
    if message.role != "tool" and (isinstance(name, str) or isinstance(result_id, str)):
        return _UNCERTAIN
    num_quotes = 2 if message.tool_calls is None or message.tool_calls == [] else 0
    if name is not UNSET:
        num_quotes += 2 if name is None else 4 + name.count('"')
    if result_id is None:
        num_quotes += 2
    return num_quotes


@lru_cache(maxsize=1024)
def _is_right_order(shape: tuple[Role | int, ...]) -> bool:
    """Tell whether turns come in the right order; a turn with calls is the number of its calls."""
    previous: Role | int | None = None
    num_open = 0
    for step in shape:
        if step == "tool":
            num_open -= 1
        elif num_open or not _may_follow(step, previous):
            return False
        elif isinstance(step, int):
            num_open = step
        if num_open < 0:
            return False
        previous = step
    return previous == "assistant" or isinstance(previous, int)


def _may_follow(step: Role | int, previous: Role | int | None) -> bool:
    if step == "system":
        return previous is None
    return (step != "user") == (previous in {"user", "tool"})


def _read_arguments(text: str) -> dict[str, Any] | None:
    arguments = msgspec.json.decode(text)
    if is_object(arguments) and text.count('"') == 2 * _count_plain_texts(arguments):
        return arguments
    try:
        arguments = parse_json_text(text)
    except RowError:
        return None
    return arguments if is_object(arguments) else None


def _count_plain_texts(arguments: dict[str, Any]) -> int:
    """Return the number of keys and texts of an object of plain values within 64 bits, else a wrong number."""
    num_texts = len(arguments)
    for value in arguments.values():
        if isinstance(value, str):
            num_texts += 1
        elif isinstance(value, dict | list) or (isinstance(value, int) and not -_LARGE < value < _LARGE):
            return _UNCERTAIN
    return num_texts
