"""Turn the usual tool schemas into msgspec types, so that arguments are checked while they are decoded.

A type may only err towards refusing: what fits it needs no second opinion, and all else goes to
``backends/json_schema.py``. The schema must have passed that one's own check before.
"""

import math
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, defstruct

from pipeline.data.strict_json import is_object

_ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "$comment"}
_LARGEST = (1 << 53) - 1  # up to here a bound means the same for integers and floating-point numbers
_SMALLEST = -_LARGEST


def compile_type(schema: Any) -> Any:
    """Return a type that decodes only what the schema allows and all of it, or None when a keyword is not known here.

    Known are the keywords that tool definitions are made of; all others are left to ``jsonschema``. Keys that an open
    object does not declare are unknown to its type too; whoever decodes has to notice that they are gone.
    """
    if not is_object(schema):
        return None
    maker = _MAKERS.get(str(schema.get("type")))
    return maker({key: value for key, value in schema.items() if key not in _ANNOTATIONS}) if maker else None


def _make_object(schema: dict[str, Any]) -> Any:
    if not schema.keys() <= {"type", "properties", "required", "additionalProperties"}:
        return None
    required, properties = schema.get("required", ()), schema.get("properties", {})
    if not isinstance(schema.get("additionalProperties", True), bool) or not {*required} <= properties.keys():
        return None
    fields: list[Any] = []
    names: dict[str, str] = {}
    for position, (name, part) in enumerate(sorted(properties.items())):
        kind = compile_type(part)
        if kind is None or not name.isascii() or not name.isprintable() or '"' in name or "\\" in name:
            return None
        field = f"field_{position}"
        names[field] = name
        fields.append((field, kind) if name in required else (field, kind | UnsetType, UNSET))
    return defstruct("Arguments", fields, rename=names, kw_only=True, forbid_unknown_fields=True, gc=False)


def _make_string(schema: dict[str, Any]) -> Any:
    if schema.keys() == {"type"}:
        return str
    if schema.keys() == {"type", "enum"}:
        allowed = [item for item in schema["enum"] if isinstance(item, str)]
        return Literal[tuple(allowed)] if allowed else None
    if schema.keys() == {"type", "format"} and schema["format"] == "date":
        return date
    bounds = [schema.get("minLength", 0), schema.get("maxLength")]
    if not schema.keys() <= {"type", "minLength", "maxLength"} or float in map(type, bounds):
        return None
    return Annotated[str, Meta(min_length=bounds[0], max_length=bounds[1])]


def _make_integer(schema: dict[str, Any]) -> Any:
    low, high = schema.get("minimum", _SMALLEST), schema.get("maximum", _LARGEST)
    is_known = (
        schema.keys() <= {"type", "minimum", "maximum"} and abs(low) <= _LARGEST and abs(high) <= _LARGEST
    )
    return Annotated[int, Meta(ge=math.ceil(low), le=math.floor(high))] if is_known else None


def _make_number(schema: dict[str, Any]) -> Any:
    integer = _make_integer(schema)
    return integer and integer | Annotated[float, Meta(ge=schema.get("minimum"), le=schema.get("maximum"))]


def _make_boolean(schema: dict[str, Any]) -> Any:
    return bool if schema.keys() == {"type"} else None


def _make_array(schema: dict[str, Any]) -> Any:
    item = compile_type(schema.get("items")) if schema.keys() == {"type", "items"} else None
    return item and list[item]


_MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "object": _make_object,
    "string": _make_string,
    "integer": _make_integer,
    "number": _make_number,
    "boolean": _make_boolean,
    "array": _make_array,
}
