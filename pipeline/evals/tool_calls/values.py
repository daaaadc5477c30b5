"""Is an argument right? Compared by declared type and format, never by a guess about what was meant.

Enums, formats, integers and booleans count exactly; other texts without case and runs of spaces; numbers as numbers
(5.0 is 5, true is not 1, "5" is not 5). A ``match`` beside the alternatives says otherwise.
"""

import math
import re
import unicodedata
from datetime import date, datetime
from typing import Any, cast

from pipeline.evals.cases import Alternative, Slot
from pipeline.evals.tool_calls.schema import Schema

_EXACT_KEYWORDS = ("enum", "const", "format", "pattern")
_DATE_FORMS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%B %d, %Y",
    "%b %d, %Y",
    "%B %d %Y",
    "%b %d %Y",
    "%d %B %Y",
    "%d %b %Y",
)
_SLASHED = re.compile(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})")
_ORDINAL = re.compile(r"(\d)(?:st|nd|rd|th)\b", re.IGNORECASE)
_NUMBER = re.compile(r"number\((.+)\)")


def is_right(slot: Slot, value: Any, schema: Schema) -> bool:
    """True when a value is one of the alternatives."""
    if slot.match == "ignore":
        return True
    return any(fits(alternative, value, schema, slot.match) for alternative in slot.any_of)


def fits(wanted: Alternative, value: Any, schema: Schema, match: str | None) -> bool:
    """True when a value is this alternative."""
    if wanted.object is not None:
        return isinstance(value, dict) and _fits_object(wanted.object, cast("dict[str, Any]", value), schema)
    if wanted.list is not None:
        return isinstance(value, list) and _fits_list(wanted.list, cast("list[Any]", value), schema, match)
    return is_same(wanted.value, value, schema, match)


def is_same(wanted: Any, value: Any, schema: Schema, match: str | None = None) -> bool:
    """True when two values mean the same under a way of comparing; None takes the schema's."""
    if isinstance(wanted, list) and isinstance(value, list) and match != "exact":
        elements = tuple(Alternative(value=part) for part in cast("list[Any]", wanted))
        return _fits_list(elements, cast("list[Any]", value), schema, match)
    if match is not None:
        return _is_same_by(match, wanted, value)
    if isinstance(wanted, dict) and isinstance(value, dict):
        return _is_same_object(cast("dict[str, Any]", wanted), cast("dict[str, Any]", value), schema)
    if isinstance(wanted, str) and isinstance(value, str):
        if schema.get("format") == "date-time":
            return wanted == value or _is_same_instant(wanted, value)
        if any(keyword in schema for keyword in _EXACT_KEYWORDS):
            return wanted == value
        return fold(wanted) == fold(value)
    return is_equal(wanted, value)


def is_equal(one: Any, other: Any) -> bool:
    """True for equal JSON values: numbers by value, booleans apart from numbers, texts by character."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        first, second = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    if isinstance(one, list) and isinstance(other, list):
        left, right = cast("list[Any]", one), cast("list[Any]", other)
        return len(left) == len(right) and all(map(is_equal, left, right))
    return bool(one == other)


def fold(text: str) -> str:
    """Return a text without case, compatibility forms and runs of spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def parse_date(text: Any) -> date | None:
    """Return the day a text names without doubt; 1/12/2024 names two and therefore none."""
    if not isinstance(text, str):
        return None
    words = _ORDINAL.sub(r"\1", " ".join(text.split()))
    for form in _DATE_FORMS:
        try:
            return datetime.strptime(words, form).date()  # noqa: DTZ007  # a day has no zone
        except ValueError:
            continue
    if found := _SLASHED.fullmatch(words):
        first, second, year = map(int, found.groups())
        month, day = (second, first) if first > 12 else (first, second)
        if first > 12 or second > 12 or first == second:
            try:
                return date(year, month, day)
            except ValueError:
                return None
    return None


def subschema(schema: Schema, key: str) -> Schema:
    """Return the schema of a property, or an empty one."""
    properties: dict[str, Any] = schema.get("properties") or {}
    found = properties.get(key)
    return cast("Schema", found) if isinstance(found, dict) else {}


def _fits_object(wanted: dict[str, Slot], value: dict[str, Any], schema: Schema) -> bool:
    if not value.keys() <= wanted.keys():
        return False
    if any(not slot.optional and key not in value for key, slot in wanted.items()):
        return False
    return all(is_right(wanted[key], part, subschema(schema, key)) for key, part in value.items())


def _fits_list(wanted: tuple[Alternative, ...], value: list[Any], schema: Schema, match: str | None) -> bool:
    inner = None if match in {"set", "list"} else match
    if match == "set":
        edges = [
            [j for j, part in enumerate(value) if fits(w, part, _items(schema, 0), inner)] for w in wanted
        ]
        # A set: every element has a partner on the other side, however often it stands there.
        return all(edges) and len({j for row in edges for j in row}) == len(value)
    return len(wanted) == len(value) and all(
        fits(w, part, _items(schema, i), inner) for i, (w, part) in enumerate(zip(wanted, value, strict=True))
    )


def _items(schema: Schema, position: int) -> Schema:
    prefix = schema.get("prefixItems")
    if isinstance(prefix, list) and position < len(cast("list[Any]", prefix)):
        found = cast("list[Any]", prefix)[position]
    else:
        found = schema.get("items")
    return cast("Schema", found) if isinstance(found, dict) else {}


def _is_same_object(wanted: dict[str, Any], value: dict[str, Any], schema: Schema) -> bool:
    return wanted.keys() == value.keys() and all(
        is_same(wanted[key], value[key], subschema(schema, key)) for key in wanted
    )


def _is_same_by(match: str, wanted: Any, value: Any) -> bool:
    if match == "regex":
        return isinstance(value, str) and re.fullmatch(str(wanted), value) is not None
    if match.startswith("number"):
        return _is_near(match, wanted, value)
    if not isinstance(wanted, str) or not isinstance(value, str) or match == "exact":
        return is_equal(wanted, value)
    if match == "date":
        days = parse_date(wanted), parse_date(value)
        return wanted == value or (days[0] is not None and days[0] == days[1])
    if match == "datetime":
        return wanted == value or _is_same_instant(wanted, value)
    if match == "text":
        return _words(wanted) == _words(value)
    return fold(wanted) == fold(value)


def _is_near(match: str, wanted: Any, value: Any) -> bool:
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in (wanted, value)):
        return False
    found = _NUMBER.fullmatch(match)
    return math.isclose(wanted, value, rel_tol=0.0, abs_tol=float(found[1]) if found else 0.0)


def _is_same_instant(wanted: str, value: str) -> bool:
    try:
        return datetime.fromisoformat(wanted) == datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return False


def _words(text: str) -> list[str]:
    """Return the words and numbers of a text without its punctuation; a sign or a point inside a number counts."""
    return re.findall(r"-?\d+(?:[.,]\d+)*|\w+", fold(text))
