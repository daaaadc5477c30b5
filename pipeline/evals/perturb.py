"""Right and wrong variants of a case's own reference answer, by kind: what `evals selftest` feeds the scorer.

The idea is mutation testing: a wrong variant that the case accepts is something the case cannot measure. Pure
functions on cases as they stand in a file; nothing is scored here.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.evals.cases import Alternative, Case
from pipeline.evals.perturb_values import wrong_values
from pipeline.evals.tool_calls.lint import build_reference, materialise

Call = dict[str, Any]
"""``{"name": ..., "arguments": {...}}``"""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """One made-up answer."""

    kind: str
    calls: list[Call]
    right: bool
    """It should be accepted."""


def make_variants(case: Case) -> Iterator[Variant]:
    """Yield the variants that apply to a case."""
    tools, row = list(case.openai_tools), case.to_row()
    if case.expected.kind in ("none", "ask"):
        yield Variant("no_call", [], right=True)
        yield from (Variant("call_when_none", [_blank_call(tool)], right=False) for tool in tools[:3])
        return
    yield Variant("silence", [], right=False)
    if case.expected.kind != "calls":
        return
    built = [build_reference(call) for call in case.expected.calls]
    reference: list[Call] = [{"name": call.name, "arguments": call.arguments} for call in built]
    yield from _right_variants(row, reference)
    for kind, calls in _wrong_call_lists(row, reference, tools):
        yield Variant(kind, calls, right=False)
    for number, call in enumerate(reference):
        parameters = _parameters(tools, call["name"])
        wanted: dict[str, Any] = row["expected"]["calls"][number]["args"]
        for kind, changed in _wrong_arguments(call, wanted, parameters):
            yield Variant(kind, _replaced(reference, number, changed), right=False)


def _right_variants(case: Row, reference: list[Call]) -> Iterator[Variant]:
    yield Variant("reference", reference, right=True)
    yield Variant("arguments_in_other_order", [_reordered(call) for call in reference], right=True)
    if len(reference) > 1 and case["expected"].get("order", "any") == "any":
        yield Variant("calls_in_other_order", reference[::-1], right=True)
    for number, call in enumerate(reference):
        wanted: dict[str, Any] = case["expected"]["calls"][number]["args"]
        for name, spec in wanted.items():
            alternatives: list[Any] = spec.get("any_of") or []
            for alternative in alternatives[1:]:
                changed = {**call["arguments"], name: materialise(Alternative.model_validate(alternative))}
                calls = _replaced(reference, number, changed)
                yield Variant("other_alternative", calls, right=True)
            if spec.get("optional") and name in call["arguments"]:
                kept = {key: value for key, value in call["arguments"].items() if key != name}
                yield Variant("optional_left_out", _replaced(reference, number, kept), right=True)
            value = call["arguments"].get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                changed = {**call["arguments"], name: float(value)}
                yield Variant("integer_as_5.0", _replaced(reference, number, changed), right=True)


def _wrong_call_lists(
    case: Row, reference: list[Call], tools: list[dict[str, Any]]
) -> Iterator[tuple[str, list[Call]]]:
    first, rest = reference[0], reference[1:]
    others = [_name(tool) for tool in tools if _name(tool) != first["name"]]
    yield "unknown_tool", [{**first, "name": first["name"] + "_v2"}, *rest]
    if first["name"] != first["name"].upper():
        yield "tool_name_in_capitals", [{**first, "name": first["name"].upper()}, *rest]
    yield "same_call_twice", [*reference, copy.deepcopy(reference[-1])]
    if others:
        yield "other_tool_same_arguments", [{**first, "name": others[0]}, *rest]
        other = next(tool for tool in tools if _name(tool) == others[0])
        yield "extra_call_of_other_tool", [*reference, _blank_call(other)]
        yield "other_tool_blank", [_blank_call(other), *rest]
    if rest:
        yield "first_call_missing", rest
        yield "last_call_missing", reference[:-1]
        yield "first_call_repeated_for_all", [copy.deepcopy(first) for _ in reference]
        if case["expected"].get("order") == "strict" and reference != reference[::-1]:
            yield "calls_reversed", reference[::-1]
        if first["name"] == rest[0]["name"] and first["arguments"] != rest[0]["arguments"]:
            yield from _crossed(reference)


def _crossed(reference: list[Call]) -> Iterator[tuple[str, list[Call]]]:
    """Swap one argument between two calls of one tool that differ in more than that argument."""
    one, two = copy.deepcopy(reference[0]), copy.deepcopy(reference[1])
    shared = [
        name
        for name in one["arguments"]
        if name in two["arguments"] and one["arguments"][name] != two["arguments"][name]
    ]
    if len(shared) > 1:
        name = shared[0]
        one["arguments"][name], two["arguments"][name] = two["arguments"][name], one["arguments"][name]
        yield "argument_crossed_between_calls", [one, two, *reference[2:]]


def _wrong_arguments(
    call: Call, wanted: dict[str, Any], parameters: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    arguments: dict[str, Any] = call["arguments"]
    required: set[str] = set(parameters.get("required") or ())
    schemas: dict[str, Any] = parameters.get("properties") or {}
    yield "undeclared_argument", {**arguments, "note_to_self": "x"}
    yield from _unasked_arguments(arguments, wanted, schemas)
    yield from _swapped(arguments)
    for name, value in arguments.items():
        spec: dict[str, Any] = wanted[name]
        others = {key: part for key, part in arguments.items() if key != name}
        if name in required:
            yield "required_left_out", others
        elif not spec.get("optional"):
            yield "constraint_left_out", others
        yield "argument_renamed", {**others, f"{name}_": value}
        accepted = [materialise(Alternative.model_validate(alternative)) for alternative in spec["any_of"]]
        for kind, wrong in wrong_values(value, schemas.get(name) or {}):
            if not any(_same(wrong, right) for right in accepted):
                yield kind, {**arguments, name: wrong}


def _unasked_arguments(
    arguments: dict[str, Any], wanted: dict[str, Any], schemas: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in schemas.items():
        if name not in wanted:
            yield "argument_nobody_asked_for", {**arguments, name: blank_value(schema)}
            return


def _swapped(arguments: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    names = list(arguments)
    for one, two in itertools.pairwise(names):
        same_type = type(arguments[one]) is type(arguments[two])
        if same_type and arguments[one] != arguments[two]:
            yield "two_values_swapped", {**arguments, one: arguments[two], two: arguments[one]}
            return


def blank_value(schema: dict[str, Any]) -> Any:
    """Return some value of a schema."""
    if schema.get("enum"):
        return schema["enum"][0]
    blanks: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    return blanks.get(str(schema.get("type")), "something")


def _blank_call(tool: dict[str, Any]) -> Call:
    parameters: dict[str, Any] = tool.get("function", tool).get("parameters") or {}
    schemas: dict[str, Any] = parameters.get("properties") or {}
    required: list[str] = parameters.get("required") or []
    needed = [name for name in required if name in schemas]
    return {"name": _name(tool), "arguments": {name: blank_value(schemas[name]) for name in needed}}


def _parameters(tools: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found = next((tool for tool in tools if _name(tool) == name), None)
    return {} if found is None else found.get("function", found).get("parameters") or {}


def _name(tool: dict[str, Any]) -> str:
    return str(tool.get("function", tool).get("name"))


def _replaced(reference: list[Call], number: int, arguments: dict[str, Any]) -> list[Call]:
    changed = {**reference[number], "arguments": arguments}
    return [*reference[:number], changed, *reference[number + 1 :]]


def _reordered(call: Call) -> Call:
    return {**call, "arguments": dict(reversed(call["arguments"].items()))}


def _same(one: Any, two: Any) -> bool:
    """True when two values differ at most in case and spaces, which free text may."""
    if isinstance(one, str) and isinstance(two, str):
        return " ".join(one.casefold().split()) == " ".join(two.casefold().split())
    return type(one) is type(two) and one == two
