"""The grammar for constrained decoding, tried on llama.cpp's own parser of grammars where a model is not needed."""

import re

from pipeline.inference.call_grammar import build_call_grammar

TOOL = {
    "type": "function",
    "function": {
        "name": "heat",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"enum": ["a", "b"]},
                "celsius": {"type": "number"},
                "until": {"type": "string"},
            },
            "required": ["room"],
            "additionalProperties": False,
        },
    },
}


def test_names_required_arguments_and_enums_are_literals_of_the_grammar() -> None:
    grammar = build_call_grammar([TOOL])
    assert r'"{\"name\": \"heat\", \"arguments\": "' in grammar
    assert r'"\"a\"" | "\"b\""' in grammar
    assert re.search(r"^root ::= .* \| text$", grammar, re.MULTILINE)


def test_a_model_that_must_call_has_no_way_to_talk() -> None:
    assert "text" not in build_call_grammar([TOOL], allow_text=False).split("\n")[0]


def test_without_tools_only_text_is_left() -> None:
    assert build_call_grammar([]).startswith("root ::= text\n")


def test_every_rule_that_is_used_is_defined_once() -> None:
    lines = [line.split(" ::= ", 1) for line in build_call_grammar([TOOL, TOOL]).splitlines()]
    defined = [name for name, _ in lines]
    used = {
        word
        for _, body in lines
        for word in re.findall(
            r"\b(?:r\d+|ws|string|number|text)\b", re.sub(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]', "", body)
        )
    }
    assert len(defined) == len(set(defined))
    assert used <= set(defined)
