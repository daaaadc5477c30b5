"""The quick verdict: True means that a row is certainly right; anything else is for the slow path to decide.

A row is decoded into closed types by msgspec, so that every field it knows has the right type and is strict JSON.
Repeated keys and unknown fields would escape that; they are found by counting: a JSON object has two quotation marks
for every key and every text, so when the line has exactly as many as the decoded row accounts for, there is no key
besides those that were decoded. ``tests/unit/data/test_data_paths_agree.py`` holds both paths against each other.
"""

from array import array
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from pipeline.data.answers import fingerprint, tools_fingerprint, turn_text
from pipeline.data.backends.json_schema import load_schema
from pipeline.data.quick_schema import Check
from pipeline.data.rules import has_text
from pipeline.data.strict_json import RowError, is_object, parse_json, parse_json_text
from pipeline.data.tool_fields import parse_tools

_MAX_TOOL_LISTS = 1024
_MAX_BRACKETS = 400
_UNCERTAIN = -(1 << 40)  # makes any count of texts wrong
_SAFE_INTEGER = 1 << 63
_PLAIN_VALUES = {b"null", b"true", b"false"}
_PLAIN_TYPES = {int, float, bool, type(None)}
_SPEAKERS = {
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
    role: Literal["system", "user", "assistant", "tool"]
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
    tools: Raw = Raw(b"")
    tool_set: str | None = None


_READ_FIELDS = {item.encode_name for item in msgspec.structs.fields(_Row)}


class _Tools(NamedTuple):
    """What a declaration of tools comes to."""

    num_texts: int
    """Keys and texts in it, its own key included."""
    fingerprint: int
    checks: dict[str, Check]


class _Spoken(NamedTuple):
    """What was read from a row."""

    num_texts: int
    """Keys and texts of its turns, the key that holds them included."""
    turns: list[tuple[str, str]]
    """Role and text, as fingerprinted."""


class FastPath:
    """Decides row by row; remembers the tool declarations it has seen."""

    def __init__(self, *, allow_final_calls: bool) -> None:
        self._allow_final_calls = allow_final_calls
        self._decode = msgspec.json.Decoder(_Row).decode
        self._decode_top = msgspec.json.Decoder(dict[str, Raw]).decode
        self._tools: dict[tuple[bytes, str | None, bool], _Tools | None] = {}

    def is_certain(self, raw: bytes, line: int, answers: "array[int]") -> bool:
        """Tell whether a line is certainly a right row, and if so note its answers (see ``answers.py``)."""
        try:
            row = self._decode(raw)
            tools = self._load_tools(row)
            spoken = None if tools is None else self._read_turns(row, tools)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        if tools is None or spoken is None:
            return False
        num_texts = spoken.num_texts + tools.num_texts + (0 if row.tool_set is None else 2)
        if raw.count(b'"') != 2 * num_texts and not self._accounts_for(raw, num_texts):
            return False
        prefix = tools.fingerprint
        for role, text in spoken.turns:
            answer = fingerprint(role, text, prefix)
            if role == "assistant":
                answers.extend((prefix, answer, line))
            prefix = answer
        return True

    def _read_turns(self, row: _Row, tools: _Tools) -> _Spoken | None:
        """Return the turns of a row, or None when not all of them are certainly right."""
        is_alpaca = row.instruction is not None
        if (row.messages is not None) + (row.conversations is not None) + is_alpaca != 1:
            return None
        if row.conversations is not None:
            return _read_sharegpt(row, row.conversations)
        if row.messages is not None:
            may_end_open = self._allow_final_calls or (row.tool_set is not None and not tools.num_texts)
            return _MessageReader(tools.checks).read(row.messages, may_end_open=may_end_open)
        return _read_alpaca(row)

    def _load_tools(self, row: _Row) -> _Tools | None:
        key = bytes(row.tools), row.tool_set, row.messages is None
        if key not in self._tools:
            if len(self._tools) >= _MAX_TOOL_LISTS:
                self._tools.clear()
            self._tools[key] = _make_tools(*key)
        return self._tools[key]

    def _accounts_for(self, raw: bytes, num_texts: int) -> bool:
        """Tell whether a line has no key or text besides those counted and those of harmless unknown fields."""
        if b"\\" in raw and _count_texts(raw) == num_texts:
            return True
        for key, value in self._decode_top(raw).items():
            num_texts += _count_added(key, bytes(value))
        return _count_texts(raw) == num_texts


def _count_texts(raw: bytes) -> int:
    """Return the number of keys and texts in valid JSON: half its quotation marks, escaped ones left out."""
    return (raw.count(b'"') - raw.replace(b"\\\\", b"").count(b'\\"')) // 2


def _count_added(key: str, value: bytes) -> int:
    """Return how many keys and texts a field adds to those that were read."""
    if key in _READ_FIELDS:
        return 1 if value == b"null" and key != "tools" else 0  # what is null was not counted
    try:
        if value[:1] == b'"':
            msgspec.json.decode(value, type=str)
            return 2
        if value in _PLAIN_VALUES or (len(value) < 18 and value.isdigit()):
            return 1
        if value.count(b"[") + value.count(b"{") > _MAX_BRACKETS:
            return _UNCERTAIN
        parse_json(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RowError):
        return _UNCERTAIN
    return 1 + _count_texts(value)


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
    return _Tools(1 + _count_texts(raw) if raw else 0, tools_fingerprint(tools), checks)


def _read_sharegpt(row: _Row, turns: list[_Turn]) -> _Spoken | None:
    spoken = [(_SPEAKERS[turn.speaker], turn.value) for turn in turns]
    num_texts = 4 * len(turns) + 1
    if row.system is not None:
        num_texts += 2
        if row.system:
            spoken.insert(0, ("system", row.system))
    return _accept_plain(num_texts, spoken)


def _read_alpaca(row: _Row) -> _Spoken | None:
    if row.instruction is None or row.output is None:
        return None
    question = f"{row.instruction}\n{row.input}" if row.input else row.instruction
    spoken = [("user", question), ("assistant", row.output)]
    if row.system:
        spoken.insert(0, ("system", row.system))
    return _accept_plain(4 + 2 * (row.input is not None) + 2 * (row.system is not None), spoken)


def _accept_plain(num_texts: int, spoken: list[tuple[str, str]]) -> _Spoken | None:
    if not _is_plain_order(tuple([role for role, _ in spoken])):
        return None
    for _, text in spoken:
        if not (text[:1].isalnum() or has_text(text)):
            return None
    return _Spoken(num_texts, spoken)


@lru_cache(maxsize=1024)
def _is_plain_order(roles: tuple[str, ...]) -> bool:
    rest = roles[1:] if roles[:1] == ("system",) else roles
    return len(rest) >= 2 and len(rest) % 2 == 0 and rest == ("user", "assistant") * (len(rest) // 2)


class _MessageReader:
    """Walks the turns of one OpenAI row."""

    def __init__(self, checks: dict[str, Check]) -> None:
        self._checks = checks
        self._ids: set[str] = set()
        self._open_ids: set[object] = set()
        self._num_texts = 1

    def read(self, messages: list[_Message], *, may_end_open: bool) -> _Spoken | None:
        """Return the turns, or None when not all is certainly right."""
        spoken: list[tuple[str, str]] = []
        previous = ""
        for message in messages:
            role = message.role
            is_placed = self._take_result(message) if role == "tool" else self._is_placed(message, previous)
            text = self._read_text(message) if is_placed else None
            if text is None:
                return None
            spoken.append((role, text))
            previous = role
        if previous != "assistant" or (self._open_ids and not may_end_open):
            return None
        return _Spoken(self._num_texts, spoken)

    def _take_result(self, message: _Message) -> bool:
        if message.tool_call_id not in self._open_ids:
            return False
        self._open_ids.discard(message.tool_call_id)
        self._num_texts += 2
        if message.name is not UNSET:
            self._num_texts += 1 if message.name is None else 2
        return True

    def _is_placed(self, message: _Message, previous: str) -> bool:
        if self._open_ids or message.name or message.tool_call_id:
            return False  # an UNSET is false, too
        self._num_texts += (message.name is None) + (message.tool_call_id is None)
        if message.role == "assistant":
            return previous in {"user", "tool"}
        return previous not in {"user", "tool"} if message.role == "user" else not previous

    def _read_text(self, message: _Message) -> str | None:
        content, calls = message.content, message.tool_calls
        self._num_texts += (3 if content is None else 4) + (calls is not UNSET)
        if content is not None and not (content[:1].isalnum() or has_text(content)):
            return None
        if not calls:
            return content
        if message.role != "assistant":
            return None
        read = [self._read_call(call) for call in calls]
        whole = [call for call in read if call is not None]
        return turn_text(content, whole) if len(whole) == len(read) else None

    def _read_call(self, call: _Call) -> tuple[str, dict[str, Any]] | None:
        name = call.function.name
        check = self._checks.get(name)
        if check is None or not call.id or call.id in self._ids:
            return None
        self._ids.add(call.id)
        self._open_ids.add(call.id)
        self._num_texts += 9
        arguments = _read_arguments(call.function.arguments)
        return (name, arguments) if arguments is not None and check(arguments) else None


def _read_arguments(text: str) -> dict[str, Any] | None:
    arguments = msgspec.json.decode(text)
    if is_object(arguments):
        num_texts = len(arguments)
        for value in arguments.values():
            kind: type[Any] = type(value)
            if kind is str:
                num_texts += 1
            elif kind not in _PLAIN_TYPES or (kind is int and not -_SAFE_INTEGER < value < _SAFE_INTEGER):
                break
        else:
            if text.count('"') == 2 * num_texts:
                return arguments
    try:
        arguments = parse_json_text(text)
    except RowError:
        return None
    return arguments if is_object(arguments) else None
