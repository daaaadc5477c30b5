"""Does a call fit the schema of its tool? JSON Schema 2020-12, with the Python-like type names of BFCL translated.

The arguments of a tool are closed unless the schema opens them: a parameter that is not declared is an error. 5.0 is
an integer (JSON Schema, section 6.1.1) and true is not. Remote references are never fetched.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from pipeline.core.messages import Tool

Schema = dict[str, Any]
_TYPES = {
    "dict": "object",
    "hashmap": "object",
    "float": "number",
    "double": "number",
    "tuple": "array",
    "list": "array",
    "arraylist": "array",
    "str": "string",
    "int": "integer",
    "long": "integer",
    "bool": "boolean",
    "none": "null",
}
_JSON_TYPES = frozenset({"object", "number", "array", "string", "integer", "boolean", "null"})
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_OPENERS = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref"}
)
_CODES = {
    "required": "missing_required",
    "dependentRequired": "missing_required",
    "additionalProperties": "undeclared_argument",
    "unevaluatedProperties": "undeclared_argument",
    "enum": "enum_violation",
    "const": "enum_violation",
    "format": "format_violation",
    "pattern": "format_violation",
    "type": "type_error",
}
_RANGES = frozenset(
    [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "contains",
        "minContains",
        "maxContains",
    ]
)
_FORMATS = FormatChecker()


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    # RFC 3339 needs a zone; models leave it out, and so do many references: the instant is compared elsewhere.
    return not isinstance(value, str) or ("T" in value.upper() and bool(datetime.fromisoformat(value)))


@dataclass(slots=True)
class ToolSchema:
    """One tool, ready to check calls."""

    name: str
    parameters: Schema
    """JSON Schema of the arguments, type names translated."""
    declared: Schema
    """As the case has it."""
    validator: Draft202012Validator | None
    """None when the schema itself is broken."""
    problem: str = ""
    """What is wrong with the schema itself."""

    @classmethod
    def of(cls, tool: Tool) -> "ToolSchema":
        """Compile a tool definition in OpenAI form."""
        body: Schema = tool["function"]
        parameters = cast("Schema", translate(body["parameters"]))
        parameters.setdefault("type", "object")
        if not _OPENERS & parameters.keys():
            parameters["additionalProperties"] = False
        validator = Draft202012Validator(parameters, format_checker=_FORMATS, registry=Registry())
        return cls(body["name"], parameters, body["parameters"], validator)

    @property
    def properties(self) -> dict[str, Schema]:
        """Schemas by parameter."""
        found = self.parameters.get("properties")
        return cast("dict[str, Schema]", found) if isinstance(found, dict) else {}

    @property
    def required(self) -> list[str]:
        """Parameters that must be given."""
        found = self.parameters.get("required")
        return [str(name) for name in cast("list[Any]", found)] if isinstance(found, list) else []

    def check(self) -> str:
        """Return what is wrong with the schema itself, or an empty text."""
        try:
            Draft202012Validator.check_schema(self.parameters)
        except SchemaError as error:
            return f"{'.'.join(map(str, error.absolute_path)) or 'parameters'}: {error.message}"
        return ""

    def find_errors(self, arguments: dict[str, Any]) -> list[tuple[str, str]]:
        """Return (code, message) for each way in which arguments break the schema."""
        if self.validator is None:
            return []
        try:
            return [(_code(error), _describe(error)) for error in self._iterate(arguments)]
        except (ValueError, TypeError, AttributeError, KeyError, Unresolvable, RecursionError):
            self.validator = None  # a schema that cannot be used; `check` and the lint tell the user
            return []

    def _iterate(self, arguments: dict[str, Any]) -> Iterable[ValidationError]:
        assert self.validator is not None
        return self.validator.iter_errors(arguments)  # pyright: ignore[reportUnknownMemberType]  # untyped library


def translate(schema: Any) -> Any:
    """Return a schema with the type names of JSON Schema; unknown names, such as ``any``, allow everything."""
    if not isinstance(schema, dict):
        return schema
    result = dict(cast("Schema", schema))
    if "type" in result:
        kinds = _translate_type(result.pop("type"))
        if kinds:
            result["type"] = kinds
    for key, part in result.items():
        if key in _MAPS and isinstance(part, dict):
            result[key] = {name: translate(inner) for name, inner in cast("Schema", part).items()}
        elif key in _LISTS and isinstance(part, list):
            result[key] = [translate(inner) for inner in cast("list[Any]", part)]
        elif key in _SINGLE:
            result[key] = translate(part)
    if isinstance(result.get("required"), bool):  # draft 3 and BFCL write it beside a parameter
        del result["required"]
    return result


def _translate_type(kind: Any) -> Any:
    names = cast("list[Any]", kind) if isinstance(kind, list) else [kind]
    found = [_TYPES.get(str(name).lower(), str(name).lower()) for name in names]
    if not all(name in _JSON_TYPES for name in found):
        return None
    return found if isinstance(kind, list) else found[0]


def _code(error: ValidationError) -> str:
    keyword = str(error.validator)
    if keyword in _CODES:
        return _CODES[keyword]
    if keyword in _RANGES:
        return "range_violation"
    inner = {_code(part) for part in error.context or ()}
    return inner.pop() if len(inner) == 1 else "type_error"


def _describe(error: ValidationError) -> str:
    path = ".".join(map(str, error.absolute_path))
    return f"{path}: {error.message}" if path else error.message
