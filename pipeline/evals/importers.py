"""Cases out of other formats: our rows, OpenAI rows, ShareGPT rows, BFCL files, and the tool list of an MCP server.

A row of conversation becomes one case per assistant turn, with the true history before it. Pure functions on parsed
JSON; reading files is the operation's part (:mod:`pipeline.evals.import_cases`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pipeline.core.messages import Example, Tool
from pipeline.evals.cases import TASK_API, Case, to_openai_tool
from pipeline.evals.tool_calls.parsers import parse_text
from pipeline.evals.tool_calls.prediction import load_json, read_calls
from pipeline.evals.turns import Turn, cut_turns

Row = dict[str, Any]
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
}
_SAMPLES: dict[str, Any] = {
    "string": "example",
    "integer": 3,
    "number": 2.5,
    "boolean": True,
    "array": [],
    "null": None,
}


def import_own_row(row: Row) -> list[Case]:
    """Return the cases of a row as ``synth generate`` writes it, executable on the Task API."""
    example = Example.from_row(row)
    return [_from_turn(turn, len(example.messages)) for turn in cut_turns(example)]


def import_openai_row(row: Row, number: int) -> list[Case]:
    """Return the cases of a row of OpenAI ``messages`` and ``tools``."""
    messages: list[Row] = [dict(message) for message in row["messages"]]
    tools = _read_tools(row.get("tools"))
    positions = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    if not positions:
        raise ValueError("no assistant turn to predict")
    identity = str(row.get("id") or number)
    return [
        Case.model_validate(
            {
                "id": identity if len(positions) == 1 else f"{identity}#{turn}",
                "tools": tools,
                "messages": messages[:position],
                "expected": _expect_message(messages[position]),
                "group": str(row.get("group") or identity),
                "tags": row.get("tags") or {},
            }
        )
        for turn, position in enumerate(positions)
    ]


def import_sharegpt_row(row: Row, number: int) -> list[Case]:
    """Return the cases of a ShareGPT row: ``conversations`` of ``{from, value}``; calls in the value are parsed."""
    messages: list[Row] = []
    if row.get("system"):
        messages.append({"role": "system", "content": row["system"]})
    tools = _read_tools(row.get("tools"))
    names = [str(to_openai_tool(tool)["function"]["name"]) for tool in tools]
    for turn in row["conversations"]:
        speaker, value = str(turn.get("from", turn.get("role"))), turn.get("value", turn.get("content"))
        if speaker not in _SPEAKERS:
            raise ValueError(f"unknown speaker {speaker!r}")
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        message: Row = {"role": _SPEAKERS[speaker], "content": text}
        if message["role"] == "assistant":
            message |= _parse_calls(text, names)
        messages.append(message)
    return import_openai_row({**row, "messages": messages, "tools": tools}, number)


def import_bfcl(question: Row, answer: Row | None, category: str) -> Case:
    """Return the case of one BFCL question (single turn, Python functions) and its answer.

    Raises:
        ValueError: If a category that has answers lacks one.
    """
    functions: list[Row] = question["function"]
    if answer is not None:
        schemas = {function["name"]: function["parameters"] for function in functions}
        calls = [_bfcl_call(call, schemas) for call in answer["ground_truth"]]
        expected: Row = {"kind": "calls", "calls": calls}
    elif "relevance" in category:
        expected = {"kind": "none" if "irrelevance" in category else "any_call"}
    else:
        raise ValueError(f"no answer for {question['id']!r}")
    return Case.model_validate(
        {
            "id": question["id"],
            "tools": functions,
            "messages": question["question"][0],
            "expected": expected,
            "tags": {"category": category},
        }
    )


def import_mcp_tools(listing: Any) -> list[Case]:
    """Return one smoke case per tool of a ``tools/list`` answer: its required arguments spelt out in the message.

    They show whether a model can call the tools at all; cases of the user's own words are the real test.
    """
    found: Any = cast("Row", listing).get("result", listing) if isinstance(listing, dict) else listing
    tools: Any = cast("Row", found).get("tools") if isinstance(found, dict) else found
    if not isinstance(tools, list) or not tools:
        raise ValueError("no tools: give the answer of tools/list")
    return [_smoke_case(tool, cast("list[Tool]", tools)) for tool in cast("list[Tool]", tools)]


def _from_turn(turn: Turn, num_messages: int) -> Case:
    kinds = {"ask": "ask", "talk": "none", "reply": "none"}
    gold = turn.gold
    expected: Row = {"kind": kinds[turn.kind]} if turn.kind in kinds else _expect_message(gold.to_openai())
    is_only_turn = turn.number == 0 and num_messages == turn.position + 1
    return Case.model_validate(
        {
            "id": turn.example.id if is_only_turn else f"{turn.example.id}#{turn.number}",
            "tool_set": TASK_API,
            "messages": [message.to_openai() for message in turn.history],
            "expected": expected,
            "initial_state": list(turn.example.initial_state),
            "oracle_calls": [call.model_dump() for call in gold.tool_calls],
            "group": turn.example.group,
            "tags": {**turn.example.tags, "kind": turn.kind},
            "today": turn.example.today,
        }
    )


def _expect_message(message: Mapping[str, Any]) -> Row:
    calls: list[Any] = message.get("tool_calls") or []
    if not calls:
        return {"kind": "none"}
    read = read_calls(calls)
    if read.errors:
        raise ValueError(f"a call of the right answer cannot be read: {read.errors[0]}")
    return {"kind": "calls", "calls": [_exact_call(call.name, call.arguments) for call in read.calls]}


def _exact_call(name: str, arguments: Row) -> Row:
    return {"name": name, "args": {key: {"any_of": [{"value": value}]} for key, value in arguments.items()}}


def _parse_calls(text: str, names: Sequence[str]) -> Row:
    parsed = parse_text(text, names)
    if not parsed.calls:
        return {}
    calls = [
        {
            "id": f"call_{i}",
            "type": "function",
            "function": {"name": c.name, "arguments": json.dumps(c.arguments)},
        }
        for i, c in enumerate(parsed.calls)
    ]
    return {"content": parsed.text, "tool_calls": calls}


def _read_tools(raw: Any) -> list[Tool]:
    found: Any = load_json(raw) if isinstance(raw, str) and raw.strip() else raw or []
    if not isinstance(found, list):
        raise ValueError("tools is no list")
    return cast("list[Tool]", found)


def _bfcl_call(call: Row, schemas: Mapping[str, Row]) -> Row:
    (name, arguments), *_ = call.items()
    schema = schemas.get(name, {})
    required: list[str] = schema.get("required", [])
    properties: Row = schema.get("properties", {})
    return {
        "name": name,
        "args": {
            key: _bfcl_slot(allowed, properties.get(key, {}), may_be_left_out=key not in required)
            for key, allowed in arguments.items()
        },
    }


def _bfcl_slot(allowed: Sequence[Any], schema: Row, *, may_be_left_out: bool) -> Row:
    """Return a slot; ``""`` means "may be left out", or the empty text where the schema requires the argument."""
    is_optional = "" in allowed and may_be_left_out
    values = [value for value in allowed if not (is_optional and value == "")]
    return {"any_of": [_bfcl_alternative(value, schema) for value in values], "optional": is_optional}


def _bfcl_alternative(value: Any, schema: Row) -> Row:
    if isinstance(value, dict):
        keys = cast("dict[str, Any]", value)
        # Inside an object "" means "may be left out" even where the nested schema requires the key: BFCL never looks.
        return {"object": {k: _bfcl_key(part) for k, part in keys.items()}}
    if isinstance(value, list) and any(isinstance(part, dict) for part in cast("list[Any]", value)):
        return {
            "list": [_bfcl_alternative(part, schema.get("items") or {}) for part in cast("list[Any]", value)]
        }
    return {"value": value}


def _bfcl_key(allowed: Any) -> Row:
    values: list[Any] = cast("list[Any]", allowed) if isinstance(allowed, list) else [allowed]
    return {"any_of": [{"value": value} for value in values if value != ""], "optional": "" in values}


def _smoke_case(tool: Tool, tools: Sequence[Tool]) -> Case:
    schema: Row = tool.get("inputSchema") or tool.get("input_schema") or tool.get("parameters") or {}
    properties: Row = schema.get("properties") or {}
    required: list[str] = schema.get("required") or []
    values: Row = {name: _sample(properties.get(name, {}), schema) for name in required}
    said = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
    what = str(tool.get("title") or tool["name"]).replace("_", " ")
    message = f"Use the tool {tool['name']} ({what})" + (f" with {said}." if said else ".")
    return Case.model_validate(
        {
            "id": f"smoke-{tool['name']}",
            "tools": list(tools),
            "messages": [{"role": "user", "content": message}],
            "expected": {"kind": "calls", "calls": [_exact_call(str(tool["name"]), values)]},
            "tags": {"category": "smoke"},
        }
    )


def _sample(schema: Row, root: Row) -> Any:
    """Return a value that fits a schema, what the schema itself suggests first; ``root`` holds its definitions."""
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if (inner := _follow(schema, root)) is not None:
        return _sample(inner, root)
    kind: Any = schema.get("type", "string")
    name = str(cast("list[Any]", kind)[0] if isinstance(kind, list) else kind)
    by_format = {"date": "2026-03-11", "date-time": "2026-03-11T09:00:00Z", "email": "ann@example.com"}
    if name == "string" and schema.get("format") in by_format:
        return by_format[schema["format"]]
    if name == "array" and schema.get("minItems"):
        return [_sample(schema.get("items") or {}, root)] * int(schema["minItems"])
    if name == "object":
        properties: Row = schema.get("properties") or {}
        return {key: _sample(properties.get(key, {}), root) for key in schema.get("required") or ()}
    if name in {"integer", "number"}:
        low, high = schema.get("minimum", _SAMPLES[name]), schema.get("maximum", _SAMPLES[name])
        return min(max(_SAMPLES[name], low), high)
    return _SAMPLES.get(name, "example")


def _follow(schema: Row, root: Row) -> Row | None:
    """Return the schema that a reference or a choice leads to, of a choice the first that is not null."""
    if "$ref" in schema:
        found: Any = root
        for part in str(schema["$ref"]).removeprefix("#").split("/")[1:]:
            found = found[part]
        return cast("Row", found)
    options: list[Row] = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf") or []
    return next((option for option in options if option.get("type") != "null"), None)


ROW_IMPORTERS: dict[str, Callable[[Row, int], list[Case]]] = {
    "own": lambda row, _: import_own_row(row),
    "openai": import_openai_row,
    "sharegpt": import_sharegpt_row,
}
"""Formats with one conversation a line."""
