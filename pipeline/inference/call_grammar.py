"""A grammar (llama.cpp's GBNF) of what a model may say when it has tools: plain text, or calls that fit their schema.

For measuring what constrained decoding adds: wrong syntax and unknown names become impossible, wrong decisions and
values do not. Writes the ``<tool_call>`` form of Hermes and Qwen. Of JSON Schema it knows types, enums, nested objects
and lists; ranges, lengths, patterns and formats are left to the scorer.
"""

import json
from collections.abc import Sequence
from typing import Any, cast

from pipeline.core.messages import Tool

_TERMINALS = r"""ws ::= " "?
string ::= "\"" ([^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
integer ::= "-"? ([0-9] | [1-9] [0-9]{0,15})
number ::= integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,3})?
boolean ::= "true" | "false"
null ::= "null"
value ::= object | array | string | number | boolean | null
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}"
array ::= "[" ws (value ("," ws value)*)? "]"
"""
_TEXT_RULE = r"text ::= [^<\x00-\x1F] [^\x00]*"
_SIMPLE = {"string", "integer", "number", "boolean", "null", "object", "array"}


class _Rules:
    """Collects named rules."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, body: str) -> str:
        name = f"r{len(self.lines)}"
        self.lines.append(f"{name} ::= {body}")
        return name


def build_call_grammar(tools: Sequence[Tool], *, allow_text: bool = True) -> str:
    """Return the grammar of an answer: text, or one or more calls of these tools.

    Args:
        tools: Definitions in OpenAI form.
        allow_text: Without it the model has to call.
    """
    rules = _Rules()
    calls: list[str] = []
    for tool in tools:
        function: dict[str, Any] = tool.get("function", tool)
        arguments = _object_rule(function.get("parameters") or {"properties": {}}, rules)
        head = '{"name": ' + json.dumps(function["name"]) + ', "arguments": '
        calls.append(f"{_literal(head)} {arguments} {_literal('}')}")
    call = f"{_literal('<tool_call>' + chr(10))} ({' | '.join(calls)}) {_literal(chr(10) + '</tool_call>')}"
    name = rules.add(call) if calls else ""
    answers = [f"{name} ({_literal(chr(10))} {name})*"] if name else []
    answers += ["text"] if allow_text or not name else []
    return "\n".join([f"root ::= {' | '.join(answers)}", *rules.lines, _TEXT_RULE, _TERMINALS])


def _object_rule(schema: dict[str, Any], rules: _Rules) -> str:
    properties: dict[str, Any] = schema.get("properties") or {}
    if not properties:
        return (
            _literal("{}")
            if schema.get("additionalProperties") is False or "properties" in schema
            else "object"
        )
    required = [name for name in properties if name in (schema.get("required") or ())]
    optional = [name for name in properties if name not in required]
    pairs = {
        name: f"{_literal(json.dumps(name) + ': ')} {_value_rule(properties[name], rules)}"
        for name in properties
    }
    # "Any of the rest, in order": tail(i) is what may follow once something was written.
    tail = ""
    for name in reversed(optional):
        tail = rules.add(f"({_literal(', ')} {pairs[name]})? {tail}".rstrip())
    if required:
        body = f" {_literal(', ')} ".join(pairs[name] for name in required)
        return rules.add(f"{_literal('{')} {body} {tail} {_literal('}')}")
    return rules.add(f"{_literal('{')} ({_optional_start(optional, pairs, rules)})? {_literal('}')}")


def _optional_start(optional: list[str], pairs: dict[str, str], rules: _Rules) -> str:
    starts: list[str] = []
    tail = ""
    for name in reversed(optional):
        starts.insert(0, f"{pairs[name]} {tail}".rstrip())
        tail = rules.add(f"({_literal(', ')} {pairs[name]})? {tail}".rstrip())
    return " | ".join(starts)


def _value_rule(schema: dict[str, Any], rules: _Rules) -> str:
    if "enum" in schema or "const" in schema:
        values: list[Any] = schema.get("enum") or [schema.get("const")]
        return rules.add(" | ".join(_literal(json.dumps(value, ensure_ascii=False)) for value in values))
    alternatives: list[dict[str, Any]] = schema.get("anyOf") or schema.get("oneOf") or []
    if alternatives:
        return rules.add(" | ".join(_value_rule(part, rules) for part in alternatives))
    kind: Any = schema.get("type")
    if isinstance(kind, list):
        kinds = cast("list[str]", kind)
        return rules.add(" | ".join(_value_rule({**schema, "type": part}, rules) for part in kinds))
    if kind == "object" and "properties" in schema:
        return _object_rule(schema, rules)
    if kind == "array" and "items" in schema:
        item = _value_rule(schema["items"], rules)
        return rules.add(f'"[" ({item} ("," ws {item})*)? "]"')
    return str(kind) if kind in _SIMPLE else "value"


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
