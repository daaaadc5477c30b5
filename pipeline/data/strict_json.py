"""Strict JSON: what this reads, every JSON reader downstream reads, with the same meaning.

Refused beside broken syntax: invalid UTF-8, lone surrogates, repeated keys at any depth, NaN, Infinity, numbers outside
64 bits, nesting over 512 levels. This is the deciding parser; it knows nothing of conversations.
"""

import json
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeGuard

MAX_DEPTH = 512
"""Levels of brackets; far above any row, below what Python's and other parsers can take."""
MAX_ECHO = 60
ESCAPED_QUOTE = b"\\u0022"
"""A quotation mark that counting misses: it could make up for those of a repeated key."""
_UNSURE = object()
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # what Arrow, msgspec and most databases can hold
# C0 and C1 controls, bidirectional marks, zero-width characters, line separators: unsafe to show
_UNSHOWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)

FIXES = {
    "line_too_long": "Split the row, or remove what does not belong to the conversation.",
    "invalid_utf8": "Write the file as UTF-8.",
    "invalid_json": "Write one complete JSON object on this line (json.dumps does).",
    "trailing_content": "Write one object a line; put a line break between objects and no comma.",
    "duplicate_key": "Keep one of the two; readers disagree on which one counts.",
    "number_out_of_range": "Use null or text for what is not a finite 64-bit number.",
    "lone_surrogate": "Write the whole character; half a surrogate pair is not text.",
    "too_deep": f"Nest at most {MAX_DEPTH} levels.",
    "not_an_object": "Write one JSON object a line; a JSON array becomes lines with `jq -c '.[]'`.",
}
"""How to fix a problem, by its code."""


class RowError(Exception):
    """One problem of a row.

    Attributes:
        code: Stable machine name.
        path: Where in the row, as in ``messages[2].content``; empty for the row as a whole.
        message: What is wrong; echoes at most 80 characters of the row.
        fix: What to do about it.
    """

    def __init__(self, code: str, path: str, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.code, self.path, self.message, self.fix = code, path, message, fix


def parse_row(raw: bytes) -> dict[str, Any]:
    """Parse one line as a JSON object.

    Raises:
        RowError: If it is anything else.
    """
    row = parse_json(raw)
    if not is_object(row):
        raise json_error("not_an_object", f"the row is {type_name(row)}, not an object")
    return row


def parse_json(raw: bytes) -> Any:
    """Parse one JSON value.

    Raises:
        RowError: If it is not strict JSON.
    """
    value = _parse_quickly(raw)
    if value is not _UNSURE:
        return value
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise json_error("invalid_utf8", f"byte {error.start + 1} of the line is not UTF-8") from error
    return parse_json_text(text)


def _parse_quickly(raw: bytes) -> Any:
    """Return the value when it is certainly strict JSON, else that this is unsure.

    msgspec refuses what is no JSON, orjson refuses to write integers beyond 64 bits, and when what orjson writes has as
    many quotation marks as the line, no key was repeated: two of them stand around every key and text.
    """
    libraries = _load_quick_libraries()
    if libraries is None or ESCAPED_QUOTE in raw or raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        return _UNSURE
    decode, encode, failures = libraries
    try:
        value = decode(raw)
        return value if encode(value).count(b'"') == raw.count(b'"') else _UNSURE
    except failures:
        return _UNSURE


@cache
def _load_quick_libraries() -> (
    tuple[Callable[[bytes], Any], Callable[[Any], bytes], tuple[type[Exception], ...]] | None
):
    try:
        import msgspec
        import orjson
    except ImportError:
        return None  # the strict parser below needs neither
    failures = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, orjson.JSONEncodeError)
    return msgspec.json.decode, orjson.dumps, failures


def parse_json_text(text: str) -> Any:
    """Parse one JSON value that is text already.

    Raises:
        RowError: If it is not strict JSON.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _describe(error, text) from error
    except RecursionError as error:
        raise json_error("too_deep", f"brackets are nested more than {MAX_DEPTH} levels deep") from error
    # Without many brackets or such an escape there is nothing that these could find.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    if "\\ud" in text or "\\uD" in text:
        _check_text(text)
    return value


def type_name(value: Any) -> str:
    """Return the JSON type of a value with its article."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "an array",
        dict: "an object",
    }
    return names[type(value)]


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Tell whether a parsed value is an object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Tell whether a parsed value is an array."""
    return isinstance(value, list)


def wrong_type(path: str, wanted: str, value: Any) -> RowError:
    """Return the problem of a value that has another type than the format says."""
    return RowError(
        "wrong_type", path, f"{type_name(value)} where {wanted} is needed", fix=f"Write {wanted} here."
    )


def require_text(value: Any, path: str) -> str:
    """Return the value when it is text.

    Raises:
        RowError: If it is anything else.
    """
    if not isinstance(value, str):
        raise wrong_type(path, "text", value)
    return value


def parse_embedded(text: str, path: str, code: str) -> Any:
    """Parse JSON that is text inside a row, such as the arguments of a call.

    Raises:
        RowError: If it is not strict JSON; it has the code and path given.
    """
    try:
        return parse_json_text(text)
    except RowError as error:
        raise RowError(code, path, f"not strict JSON: {error.message}", fix=error.fix) from error


def echo(value: object, max_characters: int = MAX_ECHO) -> str:
    """Return a quoted piece of the row that is short and safe to show."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f'"{cut(text, max_characters)}"'


def cut(text: str, max_characters: int) -> str:
    """Return the start of a text with control, bidirectional and invisible characters replaced."""
    shown = text if len(text) <= max_characters else text[: max_characters - 3] + "..."
    return _UNSHOWABLE.sub("?", shown)


def strip_unshowable(text: str) -> str:
    """Return a text without control, bidirectional and invisible characters."""
    return _UNSHOWABLE.sub("", text)


def json_error(code: str, message: str) -> RowError:
    """Return a problem of the line as a whole."""
    return RowError(code, "", message, fix=FIXES[code])


def _describe(error: json.JSONDecodeError, text: str) -> RowError:
    if error.msg == "Extra data":
        return json_error("trailing_content", f"something follows the JSON value at column {error.pos + 1}")
    if "\0" in text:
        return json_error("invalid_json", f"a NUL byte at column {text.index(chr(0)) + 1}")
    if text.startswith("\ufeff"):
        return json_error("invalid_json", "a byte order mark inside the file")
    reason = error.msg[:1].lower() + error.msg[1:]
    if error.pos >= len(text.rstrip()) or reason.startswith("unterminated"):
        reason += "; the line ends too early"
    return json_error("invalid_json", f"{reason} (column {error.pos + 1})")


def _join_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise json_error("duplicate_key", f"the key {echo(repeated)} occurs twice in one object")
    return found


def _parse_integer(text: str) -> int:
    if len(text) > 20 or not _SMALLEST <= (number := int(text)) <= _LARGEST:
        raise json_error("number_out_of_range", f"an integer of {len(text.lstrip('-'))} digits")
    return number


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise json_error("number_out_of_range", f"{echo(text)} is beyond the largest number")
    return number


def _refuse_constant(text: str) -> float:
    raise json_error("number_out_of_range", f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_join_pairs,
    parse_int=_parse_integer,
    parse_float=_parse_float,
    parse_constant=_refuse_constant,
)


# Escapes in the order of a text: right pairs and all that is no surrogate pass by, half a pair is group 1.
_ESCAPES = re.compile(
    r"\\(?:[^u]|u(?![dD][89a-fA-F])|u[dD][89abAB]..\\u[dD][c-fC-F]|(u[dD][89a-fA-F]..))", re.DOTALL
)


def _check_text(text: str) -> None:
    """Refuse half a surrogate pair; the text is known to be JSON."""
    for escape in _ESCAPES.finditer(text):
        if half := escape[1]:
            raise json_error("lone_surrogate", f"\\{half.lower()} without its other half")


def _check_depth(value: Any) -> None:
    """Walk without recursion: what was parsed may be nested as deep as the parser allows."""
    level, depth = [value], 0
    while level:
        depth += any(is_object(item) or is_array(item) for item in level)
        if depth > MAX_DEPTH:
            raise json_error("too_deep", f"brackets are nested more than {MAX_DEPTH} levels deep")
        level = [
            part
            for item in level
            for part in (item.values() if is_object(item) else item if is_array(item) else ())
        ]
