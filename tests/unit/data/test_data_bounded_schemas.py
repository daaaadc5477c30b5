"""A schema that would keep a validator busy for years gets a verdict; sound ones keep theirs."""

from typing import Any

import pytest

from pipeline.data.backends.bounded_schema import MAX_PARTS, MAX_REFERENCES
from pipeline.data.backends.json_schema import ArgumentSchema

BACKTRACKING = "^(a+)+$"
LONG = "a" * 50_000 + "!"
DOUBLING = {
    "$defs": {"d40": {}, **{f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}},
    "$ref": "#/$defs/d0",
}


def text_field(**keywords: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", **keywords}}}


def verdict(schema: dict[str, Any], arguments: dict[str, Any]) -> str:
    problem = ArgumentSchema(schema).find_problem(arguments)
    return "right" if problem is None else "bad schema" if problem.is_schema else "broken"


@pytest.mark.parametrize(
    ("schema", "arguments", "expected"),
    [
        pytest.param(text_field(pattern=BACKTRACKING), {"a": LONG}, "broken", id="pattern"),
        pytest.param(text_field(pattern=BACKTRACKING), {"a": "aaa"}, "right", id="pattern that fits"),
        pytest.param(
            {**text_field(pattern=BACKTRACKING), "$schema": "http://json-schema.org/draft-07/schema#"},
            {"a": LONG},
            "broken",
            id="pattern in another dialect",
        ),
        pytest.param(
            {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": BACKTRACKING}}},
            {"a": LONG},
            "broken",
            id="pattern in a part of another dialect",
        ),
        pytest.param(
            {"patternProperties": {BACKTRACKING: {"type": "integer"}}, "additionalProperties": False},
            {LONG: 1},
            "broken",
            id="property pattern",
        ),
        pytest.param(
            {"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
            {"x-a": 1, "b": "text"},
            "right",
            id="property pattern that fits",
        ),
        pytest.param(
            {"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
            {"x-a": 1, "b": 2},
            "broken",
            id="what no property pattern knows",
        ),
        pytest.param(
            {"patternProperties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1}, "bad schema", id="unevaluated"
        ),
        pytest.param(DOUBLING, {}, "bad schema", id="doubling references"),
        pytest.param({"required": [f"a{i}" for i in range(MAX_PARTS + 1)]}, {}, "bad schema", id="too many parts"),
        pytest.param(text_field(pattern="(?=a)b"), {"a": "ab"}, "bad schema", id="look-ahead"),
        pytest.param(text_field(pattern=r"^\u00e9\d$"), {"a": "\u00e91"}, "right", id="Unicode escape of ECMA-262"),
        pytest.param(text_field(pattern=r"^\d$"), {"a": "\u0661"}, "broken", id="digits are those of ASCII"),
        pytest.param(text_field(pattern="^a$"), {"a": "a\n"}, "broken", id="the end is the very end"),
    ],
)  # fmt: skip
def test_every_schema_gets_a_verdict(
    schema: dict[str, Any], arguments: dict[str, Any], expected: str
) -> None:
    assert verdict(schema, arguments) == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([*range(20_000), *({"a": i} for i in range(20_000))], "right"),
        ([1, True, "1", [1], {"a": 1}, None], "right"),
        ([1, 1.0], "broken"),
        ([{"a": 1, "b": [2]}, {"b": [2], "a": 1}], "broken"),
        ([[True], [True]], "broken"),
    ],
)
def test_items_are_compared_as_json_values_in_one_pass(items: list[Any], expected: str) -> None:
    assert verdict({"properties": {"a": {"uniqueItems": True}}}, {"a": items}) == expected


@pytest.mark.parametrize(
    ("step", "number", "expected"),
    [
        (0.01, 19.99, "right"),
        (0.01, 19.995, "broken"),
        (0.1, 0.3, "right"),
        (0.1, 2**63, "right"),
        (1e-8, 12391239123, "right"),
        (3, 9.0, "right"),
        (3, 10, "broken"),
        (2, -4, "right"),
        (0.01, True, "right"),
        (0.01, "19.995", "right"),
        (5e-324, 1.7e308, "right"),
        (1.7e308, 5e-324, "broken"),
        (7, 1e300, "broken"),
        (float("inf"), 1.5, "bad schema"),
    ],
)
def test_multiples_are_those_of_the_decimals_as_written(step: Any, number: Any, expected: str) -> None:
    assert verdict({"properties": {"a": {"multipleOf": step}}}, {"a": number}) == expected


def test_a_reference_that_a_deep_value_follows_often_is_no_fault() -> None:
    tree = {"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"}
    value: dict[str, Any] = {}
    for _ in range(20):
        value = {"next": value}
    schema = ArgumentSchema(tree)
    assert all(schema.find_problem(value) is None for _ in range(MAX_REFERENCES // 20 + 1))
