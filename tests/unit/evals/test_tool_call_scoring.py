from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evals.intervals import pass_hat_k, rows_needed
from pipeline.evals.tool_calls import parse_text, score_case
from pipeline.evals.tool_calls.matching import match_all

SCHEMA: dict[str, Any] = {
    "type": "dict",
    "properties": {"n": {"type": "integer"}, "s": {"type": "string"}},
    "required": ["n"],
}

NONE: dict[str, Any] = {}


def case(*allowed: list[Any], kind: str = "calls") -> dict[str, Any]:
    calls = [{"name": "book", "args": {"n": {"any_of": values}}} for values in allowed]
    return {
        "id": "a",
        "tools": [{"name": "book", "parameters": SCHEMA}],
        "messages": [{"role": "user", "content": "two"}],
        "expected": {"kind": kind, "calls": calls},
    }


def book(*values: Any) -> list[dict[str, Any]]:
    return [{"name": "book", "arguments": {"n": value}} for value in values]


@given(st.lists(st.lists(st.integers(0, 3), unique=True), max_size=4))
def test_the_matching_is_as_large_as_brute_force_finds(edges: list[list[int]]) -> None:
    best = max(sum(p[i] in row for i, row in enumerate(edges)) for p in permutations(range(4)))
    found = match_all(edges)
    assert len(found) == len(set(found.values())) == best
    assert all(right in edges[left] for left, right in found.items())


def test_overlapping_alternatives_are_matched_in_any_order() -> None:
    assert score_case(case([1, 2], [1]), book(1, 2)).correct


@pytest.mark.parametrize(
    ("calls", "code"),
    [
        ([], "silent_when_call"),
        (book(3), "wrong_value"),
        (book("2"), "type_error"),
        (book(True), "type_error"),
        (book(2, 2), "duplicate_call"),
        ([{"name": "hire", "arguments": NONE}], "unknown_tool"),
        ([{"name": "book", "arguments": NONE}], "missing_required"),
        ([{"name": "book", "arguments": {"n": 2, "x": 1}}], "undeclared_argument"),
        ([{"name": "book", "arguments": {"n": 2, "s": ""}}], "extra_argument"),
        ([{"name": "book", "arguments": '{"n": 2}'}], "string_encoded_arguments"),
    ],
)
def test_each_mistake_has_its_code(calls: list[dict[str, Any]], code: str) -> None:
    assert code in score_case(case([2]), calls).errors


def test_a_whole_float_is_an_integer_in_strict_and_not_in_bfcl() -> None:
    assert score_case(case([5]), book(5.0)).correct
    assert not score_case(case([5]), book(5.0), profile="bfcl").correct


@pytest.mark.parametrize(
    ("text", "parser"),
    [
        ('<tool_call>{"name": "book", "arguments": {"n": 2}}</tool_call>', "hermes"),
        ('[TOOL_CALLS][{"name": "book", "arguments": {"n": 2}}]', "mistral"),
        ("<start_function_call>call:book{n:2}<end_function_call>", "functiongemma"),
        ('{"name": "book", "parameters": {"n": 2}}', "llama_json"),
        ("[book(n=2)]", "pythonic"),
        ('```json\n{"name": "book", "arguments": {"n": 2}}\n```', "json"),
    ],
)
def test_every_format_is_read_and_named(text: str, parser: str) -> None:
    found = parse_text(text, ["book"])
    assert (found.parser, found.errors) == (parser, ())
    assert [(call.name, call.arguments) for call in found.calls] == [("book", {"n": 2})]


@given(st.text())
def test_any_text_can_be_parsed(text: str) -> None:
    parse_text("<tool_call>" + text, ["book"])
    parse_text("[book(" + text, ["book"])
    parse_text(text, ["book"])


def test_broken_json_is_no_restraint() -> None:
    found = parse_text('{"name": "book", "arguments": {"n": ', ["book"])
    assert "not_json" in found.errors
    assert found.attempted


def test_pass_hat_k_and_sample_size_follow_their_formulas() -> None:
    # C(1,2)/C(2,2) = 0 and C(2,2)/C(2,2) = 1; 73 / (73 + 1.96^2) = 0.95
    assert pass_hat_k([[True, False], [True, True]], 2) == 0.5
    assert rows_needed(0.95, 1.0) == 73
