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
from referencing.exceptions import Unresolvable

from pipeline.data.answers import spell
from pipeline.data.backends.bounded_schema import BoundedValidator, UnboundedSchemaError
from pipeline.data.quick_schema import compile_type
from pipeline.data.strict_json import RowError, cut, echo, is_array, is_object, parse_json_text

_NUM_CACHED = 4096
_SCHEMA_FAILURES = (UnboundedSchemaError, Unresolvable, re.error, RecursionError, OverflowError)
# What a schema can make the library raise while it checks: a reference to nowhere, a broken pattern, a reference that
# leads to itself, numbers too large to compute with.


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
        self.schema_problem: ArgumentProblem | None = None
        self._kind = self._decode = None
        try:
            self._find_errors = BoundedValidator(parameters).find_errors
            # Not our formats: a $schema that is no address says nothing about the arguments.
            Draft202012Validator.check_schema(parameters, format_checker=Draft202012Validator.FORMAT_CHECKER)
        except SchemaError as error:
            self.schema_problem = ArgumentProblem(
                True, _path(error), f"not a JSON Schema: {_describe(error)}"
            )
        except _SCHEMA_FAILURES as failure:
            self.schema_problem = _unusable(failure)
        if self.schema_problem is None and (kind := compile_type(parameters)):
            self._kind, self._decode = kind, msgspec.json.Decoder(kind).decode

    def find_problem(self, arguments: dict[str, Any]) -> ArgumentProblem | None:
        """Return the most telling way in which the arguments break the schema, or None."""
        if self.schema_problem or self._is_of_kind(arguments):
            return self.schema_problem
        try:
            error = best_match(self._find_errors(arguments))
        except _SCHEMA_FAILURES as failure:
            return _unusable(failure)
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
            is_valid = is_object(arguments) and self.find_problem(arguments) is None
        except RowError:
            return None
        return spell(arguments) if is_valid else None

    def _is_of_kind(self, arguments: dict[str, Any]) -> bool:
        if self._kind is None:
            return False
        try:
            msgspec.convert(arguments, self._kind)
        except msgspec.ValidationError:
            return False
        return True


def _unusable(failure: Exception) -> ArgumentProblem:
    reason = str(failure) if isinstance(failure, UnboundedSchemaError) else type(failure).__name__
    return ArgumentProblem(True, "", f"the schema cannot be applied: {reason}")


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
