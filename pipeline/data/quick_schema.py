"""Compile the usual tool schemas into Python checks that are about fifty times faster than ``jsonschema``.

A check may only err towards False: whoever gets True needs no second opinion, and all else goes to
``backends/json_schema.py``. The schema must have passed that one's own check before.
"""

from collections.abc import Callable
from datetime import date
from typing import Any

from pipeline.data.strict_json import is_array, is_object

Check = Callable[[Any], bool]
_ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "$comment"}


def compile_check(schema: Any) -> Check | None:
    """Return a check that is True only for what the schema allows, or None when a keyword is not known here.

    Known are the keywords that tool definitions are made of; all others are left to ``jsonschema``.
    """
    if not is_object(schema):
        return None
    maker = _MAKERS.get(str(schema.get("type")))
    return maker({key: value for key, value in schema.items() if key not in _ANNOTATIONS}) if maker else None


def _compile_object(schema: dict[str, Any]) -> Check | None:
    if not schema.keys() <= {"type", "properties", "required", "additionalProperties"}:
        return None
    closed = schema.get("additionalProperties", True)
    if not isinstance(closed, bool):
        return None
    checks = {name: compile_check(part) for name, part in schema.get("properties", {}).items()}
    if None in checks.values():
        return None
    known = {name: check for name, check in checks.items() if check}
    required = frozenset[str](schema.get("required", ()))
    is_open = closed

    def check_object(value: Any) -> bool:
        if not is_object(value) or not required <= value.keys():
            return False
        for name, item in value.items():
            check = known.get(name)
            if check is None:
                if not is_open:
                    return False
            elif not check(item):
                return False
        return True

    return check_object


def _compile_string(schema: dict[str, Any]) -> Check | None:
    if schema.keys() == {"type"}:
        return lambda value: type(value) is str
    if schema.keys() == {"type", "enum"}:
        allowed = frozenset(item for item in schema["enum"] if isinstance(item, str))
        return lambda value: type(value) is str and value in allowed
    if schema.keys() == {"type", "format"} and schema["format"] == "date":
        return _is_date
    if schema.keys() <= {"type", "minLength", "maxLength"}:
        low, high = schema.get("minLength", 0), schema.get("maxLength", float("inf"))
        return lambda value: type(value) is str and low <= len(value) <= high
    return None


def _is_date(value: Any) -> bool:
    if type(value) is not str or len(value) != 10 or not value.isascii() or value[4] + value[7] != "--":
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _compile_number(schema: dict[str, Any]) -> Check | None:
    if not schema.keys() <= {"type", "minimum", "maximum"}:
        return None
    kinds = {int} if schema["type"] == "integer" else {int, float}
    low, high = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    return lambda value: type(value) in kinds and low <= value <= high


def _compile_boolean(schema: dict[str, Any]) -> Check | None:
    return (lambda value: type(value) is bool) if schema.keys() == {"type"} else None


def _accept(_: Any) -> bool:
    return True


def _compile_array(schema: dict[str, Any]) -> Check | None:
    if not schema.keys() <= {"type", "items"}:
        return None
    check = compile_check(schema["items"]) if "items" in schema else _accept
    if check is None:
        return None
    return lambda value: is_array(value) and all(check(item) for item in value)


_MAKERS: dict[str, Callable[[dict[str, Any]], Check | None]] = {
    "object": _compile_object,
    "string": _compile_string,
    "integer": _compile_number,
    "number": _compile_number,
    "boolean": _compile_boolean,
    "array": _compile_array,
}
