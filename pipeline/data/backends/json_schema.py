# pyright: basic
"""Check the arguments of a call against the JSON Schema of its tool (Draft 2020-12, formats asserted).

Two answers from one schema: :meth:`ArgumentSchema.spell_certain` is quick and may only err towards None;
:meth:`ArgumentSchema.find_problem` is ``jsonschema``'s verdict, with words. Nothing is ever fetched for a ``$ref``.
"""

import re
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema_specifications import REGISTRY as SPECIFICATIONS
from referencing.exceptions import Unresolvable

from pipeline.data.answers import spell
from pipeline.data.quick_schema import compile_type
from pipeline.data.strict_json import RowError, cut, echo, is_array, is_object, parse_json_text

_NUM_CACHED = 4096
_FORMATS = Draft202012Validator.FORMAT_CHECKER
_SCHEMA_FAILURES = (Unresolvable, re.error, RecursionError, OverflowError)
# What a schema can make the library raise while it checks: a reference to nowhere, a broken pattern, a reference that
# leads to itself, multipleOf with numbers too large to divide.


class ArgumentProblem(NamedTuple):
    """How arguments break their schema, or that the schema itself is unusable."""

    is_schema: bool
    """True when the schema is at fault."""
    path: str
    """Below the arguments, or below the schema."""
    message: str
    """In short words."""


class ArgumentSchema:
    """The schema of one tool's arguments."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._validator = Draft202012Validator(parameters, format_checker=_FORMATS, registry=SPECIFICATIONS)
        self.schema_problem = self._check_schema(parameters)
        kind = None if self.schema_problem else compile_type(parameters)
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode if kind else None

    def find_problem(self, arguments: dict[str, Any]) -> ArgumentProblem | None:
        """Return the most telling way in which the arguments break the schema, or None."""
        if self.schema_problem:
            return self.schema_problem
        if self._kind and _is_of_kind(arguments, self._kind):
            return None
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except _SCHEMA_FAILURES as failure:
            return ArgumentProblem(True, "", f"the schema cannot be applied ({type(failure).__name__})")
        return None if error is None else ArgumentProblem(False, _path(error), _describe(error))

    def spell_certain(self, text: str) -> str | None:
        """Return arguments in their one spelling (``answers.py``) when they are certainly right, else None.

        Raises:
            MsgspecError: Maybe, when they are not.
        """
        if self._decode and "\\" not in text:
            spelling = spell(self._decode(text))
            return spelling if spelling.count('"') == text.count('"') else None  # else a key was repeated
        try:
            arguments = parse_json_text(text)
            is_valid = is_object(arguments) and self._validator.is_valid(arguments)
        except (RowError, *_SCHEMA_FAILURES):
            return None
        return spell(arguments) if is_valid else None

    @staticmethod
    def _check_schema(parameters: dict[str, Any]) -> ArgumentProblem | None:
        try:
            Draft202012Validator.check_schema(parameters, format_checker=_FORMATS)
        except SchemaError as error:
            return ArgumentProblem(True, _path(error), f"not a JSON Schema: {_describe(error)}")
        except _SCHEMA_FAILURES as failure:
            return ArgumentProblem(True, "", f"not a JSON Schema ({type(failure).__name__})")
        return None


def _is_of_kind(arguments: dict[str, Any], kind: Any) -> bool:
    try:
        msgspec.convert(arguments, kind)
    except msgspec.ValidationError:
        return False
    return True


def load_schema(parameters: dict[str, Any] | None) -> ArgumentSchema:
    """Return the schema of a tool, made once for equal parameters; a tool without any takes what it is given."""
    return _load(msgspec.json.encode(parameters or {}))


@lru_cache(maxsize=_NUM_CACHED)
def _load(parameters_json: bytes) -> ArgumentSchema:
    return ArgumentSchema(msgspec.json.decode(parameters_json))


def _path(error: ValidationError | SchemaError) -> str:
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{cut(str(part), 20)}" for part in error.absolute_path
    )
    return cut("".join(parts), 60)


def _describe(error: ValidationError | SchemaError) -> str:
    keyword, wanted, found = str(error.validator), error.validator_value, error.instance
    if keyword == "required" and is_object(found) and is_array(wanted):
        missing = [name for name in wanted if name not in found]
        return f"{echo(', '.join(map(str, missing)))} is missing"
    if keyword == "additionalProperties" and is_object(found) and is_object(error.schema):
        declared: Any = error.schema.get("properties", {})
        return f"{echo(', '.join(name for name in found if name not in declared))} is not declared"
    return f"{echo(found, 30)} breaks {cut(keyword, 20)} {echo(wanted, 30)}"
