"""BFCL's rules for one call, so that published numbers can be set beside ours.

They follow the behaviour of ``bfcl-eval`` 2026.3.23 for Python functions: texts are compared without spaces, case and
``,./-_*^``; types by Python's exact type, except that the type of the answer key is accepted too ("a variable"), and
an integer where a float is declared; ``""`` in an answer list (here ``optional``) also allows the empty text and the
empty list; enums, formats and nested properties are not checked. Its greedy matching of parallel calls is not followed.
"""

import re
from typing import Any, cast

from pipeline.evals.cases import Alternative, ExpectedCall, Slot
from pipeline.evals.tool_calls.schema import Schema, ToolSchema

_PYTHON_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "number": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "list": list,
    "dict": dict,
    "object": dict,
    "any": str,
}
_DROPPED = re.compile(r"[ ,./\-_*^]")


def find_call_error(tool: ToolSchema, wanted: ExpectedCall, arguments: dict[str, Any]) -> str | None:
    """Return the code of the first rule that a call of the right tool breaks, or None."""
    if any(name not in arguments for name in tool.required):
        return "missing_required"
    declared: dict[str, Any] = tool.declared.get("properties") or {}
    for name, value in arguments.items():
        if name not in declared:
            return "undeclared_argument"
        if name not in wanted.args:
            return "extra_argument"
        if code := _find_value_error(declared[name], value, to_answers(wanted.args[name])):
            return code
    left_out = (slot for name, slot in wanted.args.items() if name not in arguments)
    return "lost_constraint" if any("" not in to_answers(slot) for slot in left_out) else None


def to_answers(slot: Slot) -> list[Any]:
    """Return the alternatives as BFCL's answer list."""
    return [_to_answer(alternative) for alternative in slot.any_of] + ([""] if slot.optional else [])


def standardise(value: Any) -> Any:
    """Return a text as BFCL compares it; other values as they are."""
    return _DROPPED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _to_answer(alternative: Alternative) -> Any:
    if alternative.object is not None:
        return {key: to_answers(slot) for key, slot in alternative.object.items()}
    if alternative.list is not None:
        return [_to_answer(part) for part in alternative.list]
    return alternative.value


def _find_value_error(schema: Schema, value: Any, answers: list[Any]) -> str | None:
    name = str(schema.get("type", "any"))
    kind = _PYTHON_TYPES.get(name, str)
    nested = _nested_type(schema) if name in {"array", "tuple", "list"} else None
    if kind is float and type(value) is int:
        value = float(value)
    is_variable = _judge_type(value, kind, nested, answers)
    if is_variable is None:
        return "type_error"
    return None if _has_value(value, kind, nested, answers, is_variable=is_variable) else "wrong_value"


def _nested_type(schema: Schema) -> type | None:
    items: Any = schema.get("items")
    name = cast("Schema", items).get("type") if isinstance(items, dict) else None
    return _PYTHON_TYPES.get(str(name), str) if name else None


def _judge_type(value: Any, kind: type, nested: type | None, answers: list[Any]) -> bool | None:
    """Return None for a wrong type, else whether the answer key is of another type than declared."""
    key_type = _key_type(answers)
    if type(value) is not kind:
        return True if key_type is type(value) else None
    if nested is not None and not any(_has_nested_type(value, nested, answer) for answer in answers):
        return None
    return key_type is not None and key_type is not kind


def _has_nested_type(value: list[Any], nested: type, answer: Any) -> bool:
    # An answer that is no list says nothing about elements; "" for "may be left out" is one.
    if not isinstance(answer, list):
        return True
    allowed = {nested, _key_type(cast("list[Any]", answer))}
    return all(type(element) in allowed for element in value)


def _key_type(answers: list[Any]) -> type[Any] | None:
    kinds: list[type[Any]] = [type(answer) for answer in answers if answer != ""]
    return kinds[0] if kinds else None


def _has_value(value: Any, kind: type, nested: type | None, answers: list[Any], *, is_variable: bool) -> bool:
    if is_variable:
        return value in answers
    if kind is dict:
        return any(_has_object(value, answer) for answer in answers)
    if kind is list and nested is dict:
        return any(_has_objects(value, answer) for answer in answers)
    if kind is str:
        return standardise(value) in [standardise(answer) for answer in answers if isinstance(answer, str)]
    if kind is list:
        plain = [standardise(element) for element in value]
        return any(plain == [standardise(element) for element in answer] for answer in answers)
    return value in answers


def _has_object(value: Any, answer: Any) -> bool:
    """Compare one level: values inside by equality, texts standardised."""
    if not isinstance(answer, dict) or not isinstance(value, dict):
        return False
    allowed, given = _as_lists(cast("dict[str, Any]", answer)), cast("dict[str, Any]", value)
    if any(key not in allowed for key in given):
        return False
    if any(standardise(part) not in [standardise(a) for a in allowed[key]] for key, part in given.items()):
        return False
    return all(key in given or "" in answers for key, answers in allowed.items())


def _has_objects(value: list[Any], answer: Any) -> bool:
    return len(value) == len(answer) and all(map(_has_object, value, answer))


def _as_lists(answer: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: part if isinstance(part, list) else [part] for key, part in answer.items()}
