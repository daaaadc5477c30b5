"""Wrong values near a right one, by kind: what a model might write instead."""

import copy
import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

_ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def wrong_values(value: Any, schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (kind, wrong value) pairs for one argument value of a schema."""
    yield "null", None
    if isinstance(value, bool):
        yield "boolean_flipped", not value
        yield "boolean_as_text", str(value).lower()
    elif isinstance(value, int | float):
        yield from _wrong_numbers(value)
    elif isinstance(value, str):
        yield from _wrong_enums(value, schema)
        yield from _wrong_dates(value)
        yield from _wrong_texts(value)
    elif isinstance(value, list):
        yield from _wrong_lists(value)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, dict):
        yield from _wrong_objects(value, schema)  # pyright: ignore[reportUnknownArgumentType]


def _wrong_numbers(value: float) -> Iterator[tuple[str, Any]]:
    yield "number_plus_one", value + 1
    yield "number_minus_one", value - 1
    yield "number_times_ten", value * 10 if value else 10
    if value:
        yield "number_negated", -value
        yield "number_zero", 0
    yield "number_plus_half", value + 0.5
    yield "number_as_text", str(value)
    yield "number_in_list", [value]


def _wrong_enums(value: str, schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    choices: list[Any] = schema.get("enum") or []
    if value in choices:
        yield from (("enum_neighbour", other) for other in choices if other != value)
        yield "enum_unknown_word", f"{value}ish"
        yield "enum_in_capitals", value.upper() if value != value.upper() else value.lower()


def _wrong_dates(value: str) -> Iterator[tuple[str, Any]]:
    found = _ISO_DATE.search(value)
    day = _parse_day(found) if found else None
    if found is not None and day is not None:
        yield "date_next_day", value.replace(found[0], (day + timedelta(days=1)).isoformat())
        yield "date_week_later", value.replace(found[0], (day + timedelta(days=7)).isoformat())
        yield "date_year_later", value.replace(found[0], f"{day.year + 1}{found[0][4:]}")
        if day.day <= 12 and day.day != day.month:
            yield "date_day_and_month_swapped", value.replace(found[0], f"{found[1]}-{found[3]}-{found[2]}")
    for position, name in enumerate(_WEEKDAYS):
        if name in value.casefold():
            other = _WEEKDAYS[(position + 1) % 7]
            yield "weekday_next", re.sub(name, other, value, flags=re.IGNORECASE)


def _parse_day(found: "re.Match[str]") -> date | None:
    try:
        return date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None


def _wrong_texts(value: str) -> Iterator[tuple[str, Any]]:
    words = value.split()
    yield "text_empty", ""
    yield "text_of_spaces", " "
    yield "text_in_list", [value]
    yield "text_with_word_added", f"{value} now"
    if len(words) > 1:
        yield "text_last_word_missing", " ".join(words[:-1])
        yield "text_first_word_missing", " ".join(words[1:])
        if len(words) > 2 and words[0] != words[1]:
            yield "text_words_swapped", " ".join([words[1], words[0], *words[2:]])
    letters = [i for i, letter in enumerate(value) if letter.isalpha()]
    if letters:
        place = letters[len(letters) // 2]
        changed = "q" if value[place] not in "qQ" else "z"
        yield "text_one_letter_changed", value[:place] + changed + value[place + 1 :]
    digits = [i for i, letter in enumerate(value) if letter.isdecimal()]
    if digits:
        place = digits[-1]
        yield "text_one_digit_changed", value[:place] + str((int(value[place]) + 1) % 10) + value[place + 1 :]
        for mark, kind in ((".", "decimal_point_lost"), ("-", "hyphen_or_sign_lost"), ("/", "slash_lost")):
            if mark in value:
                yield kind, value.replace(mark, "")
    if value.strip("-").isdecimal():
        yield "text_as_number", int(value)


def _wrong_lists(value: list[Any]) -> Iterator[tuple[str, Any]]:
    yield "list_as_text", ", ".join(map(str, value))
    if value:
        yield "list_empty", []
        yield "list_item_missing", value[:-1]
        yield "list_item_twice", [*value, copy.deepcopy(value[-1])]
        for kind, changed in wrong_values(value[0], {}):
            yield f"list_item:{kind}", [changed, *value[1:]]
            break
        if isinstance(value[0], int | float) and not isinstance(value[0], bool):
            yield "list_item_plus_one", [value[0] + 1, *value[1:]]


def _wrong_objects(value: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    schemas: dict[str, Any] = schema.get("properties") or {}
    yield "object_with_key_added", {**value, "note_to_self": "x"}
    for key, part in value.items():
        yield "object_key_missing", {name: other for name, other in value.items() if name != key}
        for kind, changed in wrong_values(part, schemas.get(key) or {}):
            yield f"object:{kind}", {**value, key: changed}
