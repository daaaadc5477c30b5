# pyright: basic
r"""A JSON Schema validator whose time is bounded by the sizes of schema and value, whoever wrote the schema.

Three things can keep ``jsonschema`` busy for years: a regular expression that backtracks, references that double at every
level, and comparing the items of an array pair by pair. Patterns run on RE2, which is linear in the text and near ECMA-262
in what it means (``\d`` is a digit of ASCII, ``$`` the very end); references are counted; items are hashed. What goes
beyond is a fault of the schema.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from jsonschema_specifications import REGISTRY as SPECIFICATIONS

from pipeline.data.backends.text_formats import FORMATS
from pipeline.data.strict_json import echo, is_array, is_object

MAX_REFERENCES = 10_000
"""References followed in one check; those of a sound schema are a few for every value."""
MAX_PARTS = 1000
"""Parts of one array of a schema, values to choose from apart: whether they differ is found out pair by pair."""
_DATA_KEYWORDS = {"const", "enum", "default", "examples"}
_OPTIONS = re2.Options()
Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]
_OPTIONS.log_errors = False
_UNICODE_ESCAPE = re.compile(r"(\\\\)|\\u([0-9a-fA-F]{4})")


class UnboundedSchemaError(Exception):
    """A schema asks for what could take too long."""


class BoundedValidator:
    """Checks values against one schema (Draft 2020-12, whatever ``$schema`` says; nothing is fetched).

    Raises:
        UnboundedSchemaError: If reading the schema could take too long.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._num_followed = 0
        keywords = {
            name: self._count(Draft202012Validator.VALIDATORS[name]) for name in ("$ref", "$dynamicRef")
        }
        keywords |= {
            "pattern": _check_pattern,
            "patternProperties": _check_pattern_properties,
            "additionalProperties": _check_additional_properties,
            "uniqueItems": _check_unique_items,
            "multipleOf": _check_multiple_of,
        }
        if "patternProperties" in json.dumps(schema):
            keywords["unevaluatedProperties"] = _refuse_unevaluated
        kind = extend(Draft202012Validator, keywords)
        self._validator = kind(_without_dialects(schema), format_checker=FORMATS, registry=SPECIFICATIONS)

    def find_errors(self, value: Any) -> Iterator[ValidationError]:
        """Yield every way in which the value breaks the schema.

        Raises:
            UnboundedSchemaError: If finding out could take too long.
        """
        self._num_followed = 0
        return self._validator.iter_errors(value)

    def _count(self, follow: Keyword) -> Keyword:
        def follow_counted(validator: Any, target: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
            self._num_followed += 1
            if self._num_followed > MAX_REFERENCES:
                raise UnboundedSchemaError(f"more than {MAX_REFERENCES:,} references were followed")
            yield from follow(validator, target, value, schema) or ()

        return follow_counted


def _check_pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not compile_pattern(pattern).search(value):
        yield ValidationError("the text does not match")


def _check_pattern_properties(
    validator: Any, patterns: dict[str, Any], value: Any, schema: Any
) -> Iterator[ValidationError]:
    if not is_object(value):
        return
    for pattern, part in patterns.items():
        matches = compile_pattern(pattern).search
        for name in filter(matches, value):
            yield from validator.descend(value[name], part, path=name, schema_path=pattern)


def _check_additional_properties(
    validator: Any, rest: Any, value: Any, schema: Any
) -> Iterator[ValidationError]:
    if not is_object(value) or rest is True:
        return
    patterns = [compile_pattern(pattern) for pattern in schema.get("patternProperties", ())]
    declared = schema.get("properties", {})
    for name in value:
        if name not in declared and not any(pattern.search(name) for pattern in patterns):
            if rest is False:
                yield ValidationError("the property is not declared")
                return
            yield from validator.descend(value[name], rest, path=name)


def _check_unique_items(
    validator: Any, is_wanted: bool, value: Any, schema: Any
) -> Iterator[ValidationError]:
    if is_wanted and is_array(value) and len(set(map(_hashable, value))) < len(value):
        yield ValidationError("an item occurs twice")


def _check_multiple_of(validator: Any, step: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if _as_written(value) % _as_written(step):
        yield ValidationError("the number is no multiple")


def _as_written(number: Any) -> Fraction:
    """Return a number in decimals: as binary fractions 19.99 is no multiple of 0.01.

    Exponents of floating-point numbers have three digits, so no numerator is long.
    """
    if isinstance(number, int):
        return Fraction(number)
    if not math.isfinite(number):
        raise UnboundedSchemaError("multipleOf with a number that is not finite")
    return Fraction(str(number))


def _hashable(value: Any) -> Any:
    """Return something that is equal for equal JSON: 1 is 1.0, and not true."""
    if is_object(value):
        return frozenset((name, _hashable(item)) for name, item in value.items())
    if is_array(value):
        return tuple(map(_hashable, value))
    return (bool, value) if isinstance(value, bool) else value  # no JSON array holds a Python type


def _refuse_unevaluated(validator: Any, rest: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    raise UnboundedSchemaError("unevaluatedProperties beside patternProperties")


def _without_dialects(schema: Any) -> Any:
    """Return a schema without ``$schema``, which would hand its part to an unbounded validator."""
    if is_array(schema):
        if len(schema) > MAX_PARTS:
            raise UnboundedSchemaError(f"an array of {len(schema):,} parts")
        return [_without_dialects(part) for part in schema]
    if not is_object(schema):
        return schema
    return {
        name: part if name in _DATA_KEYWORDS else _without_dialects(part)
        for name, part in schema.items()
        if name != "$schema" or not isinstance(part, str)
    }


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Any:
    """Compile a pattern of a schema.

    Raises:
        UnboundedSchemaError: If RE2 cannot: it looks around or back, repeats too often, or is no pattern.
    """
    spelled = _UNICODE_ESCAPE.sub(lambda found: found[1] or f"\\x{{{found[2]}}}", pattern)
    try:
        return re2.compile(spelled, _OPTIONS)
    except re2.error as error:
        raise UnboundedSchemaError(
            f"the pattern {echo(pattern, 30)} is not one that RE2 can check"
        ) from error
