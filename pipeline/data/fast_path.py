"""The quick verdict: True means that a row is certainly right; anything else is for the slow path to decide.

A row is decoded into closed types by msgspec, so that every field it knows has the right type and is strict JSON.
Repeated keys and unknown fields would escape that; they are found by counting: a line has two quotation marks for every
key and every text and those inside the texts, so when it has exactly as many as the decoded row explains, it holds no key
besides those that were decoded. No line can have fewer, so lines of large files are counted together: if the sum is
right, each is. ``tests/unit/data/test_data_paths_agree.py`` holds both paths against each other.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Raw

from pipeline.core.extras import require
from pipeline.data.answers import note_answers, tools_fingerprint
from pipeline.data.backends.json_schema import load_schema
from pipeline.data.fast_rows import (
    NO_RAW,
    UNCERTAIN,
    ChatRow,
    Row,
    count_field,
    count_optional,
    do_alternate,
    read_alpaca,
    read_messages,
    read_sharegpt,
)
from pipeline.data.rules import has_text
from pipeline.data.strict_json import ESCAPED_QUOTE, RowError, parse_json
from pipeline.data.tool_fields import parse_tools

if TYPE_CHECKING:
    from pipeline.data.backends.json_schema import ArgumentSchema

COUNTED_TOGETHER_BYTES = 32 << 20
"""After so many bytes importing numpy has paid."""
_NUM_BLOCKS = 16
"""After a block whose lines were not what was hoped for, so many are not expected to be better."""
_MAX_TOOL_LISTS = 1024
_MAX_BRACKETS = 400
_PLAIN_VALUES = {b"null", b"true", b"false"}
_CHAT_START = b'{"conversations"'
_READ_FIELDS = {item.encode_name for item in msgspec.structs.fields(Row)}
_FAILURES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Tools(NamedTuple):
    """What a declaration of tools comes to."""

    num_delimiters: int
    """Quotation marks around its keys and texts, its own key included."""
    num_inside: int
    """Quotation marks inside those."""
    fingerprint: int
    schemas: "dict[str, ArgumentSchema]"
    are_named: bool
    """They are those of a tool set, whose calls can be executed."""


_NO_TOOLS = _Tools(0, 0, tools_fingerprint(()), {}, are_named=False)
_Spoken = tuple[int, list[str], Sequence[int], _Tools]
"""As :data:`pipeline.data.fast_rows.Spoken`, delimiters of the tools included, with the tools."""
_ToolsKey = tuple[bytes, str | None, bool]


class FastPath:
    """Decides row by row; remembers the tool declarations it has seen."""

    def __init__(self, *, allow_final_calls: bool) -> None:
        self._allow_final_calls = allow_final_calls
        self._decode = msgspec.json.Decoder(Row).decode
        self._decode_chat = msgspec.json.Decoder(ChatRow).decode
        self._decode_top = msgspec.json.Decoder(dict[str, Raw]).decode
        self._tools: dict[_ToolsKey, _Tools | None] = {}
        self._last_key: _ToolsKey | None = None
        self._last_tools: _Tools | None = None
        self._num_bytes = 0
        self._num_apart = self._num_left_out = 0
        self._count_delimiters: Callable[[bytes], int | None] | None = None

    def find_uncertain(
        self, lines: list[bytes], first_line: int, answers: "array[int]"
    ) -> list[tuple[int, bytes]]:
        """Return the lines that are not certainly right rows; note the answers of those that are (``answers.py``)."""
        if self._num_left_out:
            self._num_left_out -= 1
            return list(enumerate(lines, start=first_line))
        uncertain = self._find_uncertain(lines, first_line, answers)
        if 2 * len(uncertain) > len(lines):
            self._num_left_out = _NUM_BLOCKS  # to try costs a tenth of the slow path
        return uncertain

    def _find_uncertain(
        self, lines: list[bytes], first_line: int, answers: "array[int]"
    ) -> list[tuple[int, bytes]]:
        block = b"\n".join(lines)
        self._num_bytes += len(block)
        if self._count_delimiters is None and self._num_bytes >= COUNTED_TOGETHER_BYTES:
            require("numpy", extra="data")
            from pipeline.data.backends.quote_counts import count_delimiters

            self._count_delimiters = count_delimiters
        if self._count_delimiters is None or self._num_apart:
            self._num_apart -= bool(self._num_apart)
            return self._read_lines(lines, first_line, answers, self._is_explained)[0]
        num_delimiters = self._count_delimiters(block)
        if num_delimiters is not None:
            num_noted = len(answers)
            uncertain, num_explained = self._read_lines(lines, first_line, answers, None)
            for _, raw in uncertain:
                num_delimiters -= raw.count(b'"') - raw.count(b'\\"')
            if num_delimiters == num_explained:
                return uncertain
            del answers[num_noted:]
        self._num_apart = _NUM_BLOCKS  # rows have further fields: the next ones probably too
        return self._read_lines(lines, first_line, answers, self._is_explained)[0]

    def _read_lines(
        self,
        lines: list[bytes],
        first_line: int,
        answers: "array[int]",
        is_explained: "Callable[[bytes, _Spoken], bool] | None",
    ) -> tuple[list[tuple[int, bytes]], int]:
        """Return the uncertain lines and how many delimiters the others have when ``is_explained`` need not say so."""
        uncertain: list[tuple[int, bytes]] = []
        num_explained = 0
        read_chat, read = self._read_chat, self._read
        for line, raw in enumerate(lines, start=first_line):
            try:
                spoken = (read_chat(raw) if raw.startswith(_CHAT_START) else None) or read(raw)
                # Nearly all texts start with a letter or digit, which can be seen.
                if (
                    spoken
                    and (
                        (min(texts := spoken[1]) >= "0" and max(texts) < "\x7f") or all(map(has_text, texts))
                    )
                    and (is_explained is None or is_explained(raw, spoken))
                ):
                    num_delimiters, texts, call_turns, tools = spoken
                    num_explained += num_delimiters
                    note_answers(texts, call_turns, tools.fingerprint, line, answers)
                    continue
            except _FAILURES:
                pass
            uncertain.append((line, raw))
        return uncertain, num_explained

    def _read_chat(self, raw: bytes) -> "_Spoken | None":
        """Read the commonest kind of row, ShareGPT turns and nothing else, with the least work."""
        try:
            turns = self._decode_chat(raw).conversations
        except msgspec.ValidationError:
            return None
        if not do_alternate(tuple([turn.speaker for turn in turns])):
            return None
        return 8 * len(turns) + 2, [turn.value for turn in turns], (), _NO_TOOLS

    def _read(self, raw: bytes) -> "_Spoken | None":
        """Read a row of any kind; None when order, calls and results are not certainly right."""
        row = self._decode(raw)
        has_tools = row.tools is not NO_RAW or row.tool_set is not None
        tools = self._load_tools(row) if has_tools else _NO_TOOLS
        turns, messages = row.conversations, row.messages
        if tools is None or (messages is not None) + (turns is not None) + (row.instruction is not None) != 1:
            return None
        if messages is not None:
            may_end_open = self._allow_final_calls or tools.are_named
            spoken = read_messages(messages, tools.schemas, may_end_open=may_end_open)
        else:
            spoken = read_alpaca(row) if turns is None else read_sharegpt(turns, row.system)
        return spoken and (spoken[0] + tools.num_delimiters, spoken[1], spoken[2], tools)

    def _load_tools(self, row: Row) -> _Tools | None:
        key = bytes(row.tools), row.tool_set, row.messages is None
        if key == self._last_key:  # neighbours mostly declare the same; comparing is cheaper than hashing
            return self._last_tools
        if key not in self._tools:
            if len(self._tools) >= _MAX_TOOL_LISTS:
                self._tools.clear()
            self._tools[key] = _make_tools(*key)
        self._last_key, self._last_tools = key, self._tools[key]
        return self._last_tools

    def _is_explained(self, raw: bytes, spoken: "_Spoken") -> bool:
        """Tell whether there are no quotation marks but those of what was read and of harmless other fields."""
        num_delimiters, texts, _, tools = spoken
        num_unexplained = raw.count(b'"') - num_delimiters - tools.num_inside
        if not num_unexplained:
            return True
        if ESCAPED_QUOTE in raw:
            return False
        row = self._decode(raw)
        if row.messages is None:
            num_unexplained -= sum(text.count('"') for text in texts)
        else:
            for message in row.messages:
                calls = message.tool_calls or ()
                num_unexplained -= sum(call.function.arguments.count('"') for call in calls)
                num_unexplained -= (message.content or "").count('"') + count_optional(message)
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
            return UNCERTAIN
        else:
            parse_json(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RowError):
        return UNCERTAIN
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
    num_inside = raw.count(b'\\"')
    num_delimiters = raw.count(b'"') - num_inside + (2 if raw else 0) + count_field(tool_set)
    are_named = bool(tool_set) and not raw
    return _Tools(num_delimiters, num_inside, tools_fingerprint(tools), schemas, are_named)
