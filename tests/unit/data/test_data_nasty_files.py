"""About 150 nasty inputs with the verdict that each line must get, on both paths."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pipeline.core.errors import InvalidInputError
from pipeline.data.check import Outcome, RowChecker
from pipeline.data.reader import Block
from pipeline.data.validate import DataValidateRequest, validate_file

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "book",
            "description": "Book a room.",
            "parameters": {
                "type": "object",
                "properties": {
                    "day": {"type": "string", "format": "date"},
                    "people": {"type": "integer", "minimum": 1},
                    "size": {"type": "string", "enum": ["small", "large"]},
                    "at": {"type": "string", "format": "date-time"},
                    "extras": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["day"],
                "additionalProperties": False,
            },
        },
    }
]
USER = {"role": "user", "content": "A room for Friday, please."}
ANSWER = {"role": "assistant", "content": "Booked."}
FINE = '{"day": "2026-11-27"}'


def call(arguments: Any = FINE, *, id: Any = "c1", name: Any = "book", **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calling(*calls: Any, content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(id: Any = "c1", content: Any = "ok", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content, **more}


def row(*messages: Any, tools: Any = TOOLS, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), "tools": tools, **more}


def booking(arguments: Any) -> dict[str, Any]:
    return row(USER, calling(call(arguments)), result(), ANSWER)


def share(*turns: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": speaker, "value": value} for speaker, value in turns], **more}


def alpaca(instruction: Any = "Add 2 and 2.", output: Any = "4", **more: Any) -> dict[str, Any]:
    return {"instruction": instruction, "output": output, **more}


HUMAN, GPT = ("human", "Hello?"), ("gpt", "Hello.")
PLAIN = row(USER, ANSWER, tools=None)
FLAT_TOOL = [{"name": "book", "parameters": TOOLS[0]["function"]["parameters"]}]


def with_parameters(parameters: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "book", "parameters": parameters}}]


ROWS: list[tuple[str, Any, str]] = [
    # name, row, code ("" when it is right)
    ("messages", PLAIN, ""),
    ("system first", row({"role": "system", "content": "Be brief."}, USER, ANSWER), ""),
    ("tools but no calls", row(USER, ANSWER), ""),
    ("empty tools", row(USER, ANSWER, tools=[]), ""),
    ("call and result", booking(FINE), ""),
    ("arguments as an object", booking({"day": "2026-11-27"}), ""),
    ("all arguments", booking('{"day": "2026-11-27", "people": 3, "size": "large", "extras": ["tea"]}'), ""),
    ("5.0 is an integer in JSON Schema", booking('{"day": "2026-11-27", "people": 5.0}'), ""),
    ("date-time", booking('{"day": "2026-11-27", "at": "2026-11-27T10:00:00Z"}'), ""),
    ("parallel calls", row(USER, calling(call(), call(id="c2")), result(), result("c2"), ANSWER), ""),
    ("results in another order", row(USER, calling(call(), call(id="c2")), result("c2"), result(), ANSWER), ""),
    ("calls in two turns", row(USER, calling(call()), result(), calling(call(id="c2")), result("c2"), ANSWER), ""),
    ("text beside a call", row(USER, calling(call(), content="Looking."), result(), ANSWER), ""),
    ("tool message with a name", row(USER, calling(call()), result(name="book"), ANSWER), ""),
    ("null fields as Arrow writes them", {**PLAIN, "conversations": None, "instruction": None}, ""),
    ("null calls as Arrow writes them", row({**USER, "tool_calls": None, "tool_call_id": None}, ANSWER), ""),
    ("tools as JSON text", {**booking(FINE), "tools": json.dumps(TOOLS)}, ""),
    ("U+2028 and U+0085 in text", row({"role": "user", "content": "a\u2028b\u0085c"}, ANSWER), ""),
    ("emoji", row({"role": "user", "content": "\U0001f600"}, ANSWER), ""),
    ("text that looks like a key", row({"role": "user", "content": '": "role": {"x'}, ANSWER), ""),
    ("backslashes", row({"role": "user", "content": '\\" \\\\" \\'}, ANSWER), ""),
    ("unknown fields", {**PLAIN, "id": "r1", "tags": {"a": ["b", {"c": 1}]}, "score": -0.5, "n": 12}, ""),
    ("named tool set may end open", {
        "messages": [USER, calling(call('{"title": "x"}', name="create_task"))], "tool_set": "task_api"}, ""),
    ("ShareGPT", share(HUMAN, GPT), ""),
    ("ShareGPT with role and content", {"conversations": [USER, ANSWER]}, ""),
    ("ShareGPT with a system turn", share(("system", "Be brief."), HUMAN, GPT), ""),
    ("ShareGPT with a system field", share(HUMAN, GPT, system="Be brief."), ""),
    ("ShareGPT with user and assistant", share(("user", "Hi."), ("assistant", "Hi.")), ""),
    ("LLaMA-Factory calls", share(HUMAN, ("function_call", json.dumps({"name": "book", "arguments": {
        "day": "2026-11-27"}})), ("observation", "ok"), GPT, tools=json.dumps(FLAT_TOOL)), ""),
    ("Alpaca", alpaca(input="Now."), ""),
    ("Alpaca without input", alpaca(), ""),
    ("Alpaca with empty input and system", alpaca(input="", system=""), ""),
    ("Alpaca with history", alpaca(history=[["Hi.", "Hello."]]), ""),
    # formats
    ("empty object", {}, "unknown_format"),
    ("other fields", {"prompt": "a", "completion": "b"}, "unknown_format"),
    ("text only", {"text": "a"}, "unknown_format"),
    ("two formats", {**PLAIN, **share(HUMAN, GPT)}, "ambiguous_format"),
    ("messages and Alpaca", {**PLAIN, **alpaca()}, "ambiguous_format"),
    ("messages is text", {"messages": "hi"}, "wrong_type"),
    ("messages is an object", {"messages": {"role": "user"}}, "wrong_type"),
    ("messages is empty", row(), "no_assistant"),
    ("turn is text", row("hi", ANSWER), "wrong_type"),
    ("turn is null", row(None, ANSWER), "wrong_type"),
    ("conversations is empty", share(), "no_assistant"),
    ("from and value under messages", {"messages": [{"from": "human", "value": "a"}]}, "unknown_role"),
    ("two styles in one row", {"conversations": [{"from": "human", "value": "a"}, ANSWER]}, "unknown_role"),
    # roles and order
    ("unknown role", row({"role": "narrator", "content": "a"}, ANSWER), "unknown_role"),
    ("human among messages", row({"role": "human", "content": "a"}, ANSWER), "unknown_role"),
    ("role in upper case", row({"role": "User", "content": "a"}, ANSWER), "unknown_role"),
    ("role None", row({"role": None, "content": "a"}, ANSWER), "unknown_role"),
    ("role missing", row({"content": "a"}, ANSWER), "unknown_role"),
    ("role is a number", row({"role": 1, "content": "a"}, ANSWER), "unknown_role"),
    ("developer", row({"role": "developer", "content": "a"}, USER, ANSWER), "unknown_role"),
    ("function role", row(USER, {"role": "function", "content": "a"}, ANSWER), "unknown_role"),
    ("unknown speaker", share(("bot", "a"), GPT), "unknown_role"),
    ("speaker in upper case", share(("Human", "a"), GPT), "unknown_role"),
    ("human twice", share(HUMAN, HUMAN), "role_order"),
    ("human twice, then gpt", share(HUMAN, HUMAN, GPT), "role_order"),
    ("user twice", row(USER, USER, ANSWER), "role_order"),
    ("assistant twice", row(USER, ANSWER, ANSWER), "role_order"),
    ("assistant first", row(ANSWER, USER, ANSWER), "role_order"),
    ("system, then assistant", row({"role": "system", "content": "a"}, ANSWER), "role_order"),
    ("system last", row(USER, ANSWER, {"role": "system", "content": "a"}), "misplaced_system"),
    ("system twice", row({"role": "system", "content": "a"}, {"role": "system", "content": "b"}, USER, ANSWER),
        "misplaced_system"),
    ("system field and turn", share(("system", "a"), HUMAN, GPT, system="b"), "misplaced_system"),
    ("user after a result", row(USER, calling(call()), result(), USER, ANSWER), "role_order"),
    ("no assistant", row(USER), "no_assistant"),
    ("only a system turn", row({"role": "system", "content": "a"}), "no_assistant"),
    ("last turn is the user's", row(USER, ANSWER, USER), "last_turn"),
    ("last turn is a result", row(USER, calling(call()), result()), "last_turn"),
    ("only an assistant", row(ANSWER), "role_order"),
    # content
    ("empty user", row({"role": "user", "content": ""}, ANSWER), "empty_content"),
    ("blank user", row({"role": "user", "content": " \n\t\u00a0"}, ANSWER), "empty_content"),
    ("invisible user", row({"role": "user", "content": "\u200b\ufeff"}, ANSWER), "empty_content"),
    ("null user", row({"role": "user", "content": None}, ANSWER), "empty_content"),
    ("content missing", row({"role": "user"}, ANSWER), "empty_content"),
    ("empty assistant", row(USER, {"role": "assistant", "content": ""}), "empty_content"),
    ("null assistant without calls", row(USER, {"role": "assistant", "content": None}), "empty_content"),
    ("null assistant, empty calls", row(USER, calling()), "empty_content"),
    ("empty text beside calls", row(USER, calling(call(), content=""), result(), ANSWER), "empty_content"),
    ("empty system", row({"role": "system", "content": ""}, USER, ANSWER), "empty_content"),
    ("empty result", row(USER, calling(call()), result(content=""), ANSWER), "empty_content"),
    ("content is a number", row({"role": "user", "content": 5}, ANSWER), "wrong_type"),
    ("content is a list", row({"role": "user", "content": [{"type": "text", "text": "a"}]}, ANSWER), "wrong_type"),
    ("content is an object", row(USER, {"role": "assistant", "content": {"a": 1}}), "wrong_type"),
    ("value null", share(HUMAN, ("gpt", None)), "empty_content"),
    ("value blank", share(HUMAN, ("gpt", "  ")), "empty_content"),
    ("value is a number", share(HUMAN, ("gpt", 3)), "wrong_type"),
    ("Alpaca with empty output", alpaca(output=""), "empty_content"),
    ("Alpaca without output", {"instruction": "a"}, "wrong_type"),
    ("Alpaca with a number", alpaca(output=5), "wrong_type"),
    ("Alpaca with empty instruction", alpaca(instruction=""), "empty_content"),
    ("Alpaca with empty instruction and an input", alpaca(instruction=" ", input="a"), ""),
    ("Alpaca with a list as input", alpaca(input=["a"]), "wrong_type"),
    ("Alpaca with broken history", alpaca(history=[["a"]]), "wrong_type"),
    # calls
    ("undeclared tool", row(USER, calling(call(name="fly")), result(), ANSWER), "undeclared_tool"),
    ("call without tools", row(USER, calling(call()), result(), ANSWER, tools=None), "undeclared_tool"),
    ("broken JSON in arguments", booking('{"day": '), "arguments_not_json"),
    ("NaN in arguments", booking('{"day": NaN}'), "arguments_not_json"),
    ("repeated key in arguments", booking('{"day": "2026-11-27", "day": "2026-11-28"}'), "arguments_not_json"),
    ("huge integer in arguments", booking('{"day": "2026-11-27", "people": ' + "9" * 30 + "}"), "arguments_not_json"),
    ("lone surrogate in arguments", booking('{"day": "\\ud800"}'), "arguments_not_json"),
    ("empty arguments text", booking(""), "arguments_not_json"),
    ("array arguments", booking("[]"), "arguments_not_object"),
    ("text arguments", booking('"2026"'), "arguments_not_object"),
    ("null arguments", booking(None), "arguments_not_object"),
    ("array arguments, not as text", booking([1]), "arguments_not_object"),
    ("arguments encoded twice", booking(json.dumps(FINE)), "arguments_not_object"),
    ("required argument missing", booking("{}"), "arguments_break_schema"),
    ("undeclared argument", booking('{"day": "2026-11-27", "floor": 1}'), "arguments_break_schema"),
    ("wrong type", booking('{"day": "2026-11-27", "people": "3"}'), "arguments_break_schema"),
    ("boolean for an integer", booking('{"day": "2026-11-27", "people": true}'), "arguments_break_schema"),
    ("below the minimum", booking('{"day": "2026-11-27", "people": 0}'), "arguments_break_schema"),
    ("not in the enum", booking('{"day": "2026-11-27", "size": "Large"}'), "arguments_break_schema"),
    ("not a date", booking('{"day": "Friday"}'), "arguments_break_schema"),
    ("no such date", booking('{"day": "2026-02-30"}'), "arguments_break_schema"),
    ("not a date-time", booking('{"day": "2026-11-27", "at": "noon"}'), "arguments_break_schema"),
    ("wrong item", booking('{"day": "2026-11-27", "extras": [1]}'), "arguments_break_schema"),
    ("id missing", row(USER, calling(call(id=None)), result(), ANSWER), "missing_call_id"),
    ("id empty", row(USER, calling(call(id="")), result(""), ANSWER), "missing_call_id"),
    ("id is a number", row(USER, calling(call(id=1)), result(), ANSWER), "wrong_type"),
    ("same id twice", row(USER, calling(call(), call()), result(), ANSWER), "duplicate_call_id"),
    ("same id in a later turn", row(USER, calling(call()), result(), calling(call()), result(), ANSWER),
        "duplicate_call_id"),
    ("unanswered call", row(USER, calling(call()), ANSWER), "unanswered_call"),
    ("half answered", row(USER, calling(call(), call(id="c2")), result(), ANSWER), "unanswered_call"),
    ("ends with a call", row(USER, calling(call())), "unanswered_call"),
    ("answered twice", row(USER, calling(call()), result(), result(), ANSWER), "duplicate_result"),
    ("result of another call", row(USER, calling(call()), result("c9"), ANSWER), "unknown_call_id"),
    ("result without a call", row(USER, ANSWER, result(), ANSWER), "unknown_call_id"),
    ("result first", row(result(), USER, ANSWER), "unknown_call_id"),
    ("result without an id", row(USER, calling(call()), result(None), ANSWER), "missing_call_id"),
    ("calls by the user", row({**USER, "tool_calls": [call()]}, ANSWER), "misplaced_calls"),
    ("calls are an object", row(USER, {**ANSWER, "tool_calls": {"a": 1}}), "wrong_type"),
    ("call is text", row(USER, calling("book()"), ANSWER), "wrong_type"),
    ("call without function", row(USER, calling({"id": "c1", "type": "function"}), ANSWER), "invalid_call"),
    ("flat call among messages", row(USER, calling({"id": "c1", "name": "book", "arguments": {}}), ANSWER),
        "invalid_call"),
    ("call of another type", row(USER, calling({**call(), "type": "web"}), result(), ANSWER), "invalid_call"),
    ("call without a name", row(USER, calling(call(name=None)), result(), ANSWER), "invalid_call"),
    # tools
    ("tools is an object", row(USER, ANSWER, tools={"a": 1}), "wrong_type"),
    ("tools is broken text", row(USER, ANSWER, tools="[{"), "invalid_tools"),
    ("tool is text", row(USER, ANSWER, tools=["book"]), "wrong_type"),
    ("tool without a name", row(USER, ANSWER, tools=[{"type": "function", "function": {}}]), "invalid_tools"),
    ("tool with an empty name", row(USER, ANSWER, tools=[{"type": "function", "function": {"name": " "}}]),
        "invalid_tools"),
    ("flat tool among messages", row(USER, ANSWER, tools=FLAT_TOOL), "invalid_tools"),
    ("tool declared twice", row(USER, ANSWER, tools=TOOLS * 2), "duplicate_tool"),
    ("parameters are text", row(USER, ANSWER, tools=with_parameters("none")), "wrong_type"),
    ("schema with an unknown type", row(USER, ANSWER, tools=with_parameters({"type": "objekt"})), "invalid_schema"),
    ("schema with broken required", row(USER, ANSWER, tools=with_parameters({"required": "day"})), "invalid_schema"),
    ("schema with a broken pattern", row(USER, ANSWER, tools=with_parameters(
        {"properties": {"day": {"pattern": "("}}})), "invalid_schema"),
    ("schema that refers to nowhere", {**booking(FINE), "tools": with_parameters({"$ref": "#/$defs/no"})},
        "invalid_schema"),
    ("schema that refers to the web", {**booking(FINE), "tools": with_parameters({"$ref": "http://a.b/c"})},
        "invalid_schema"),
    ("schema that refers to itself", {**booking(FINE), "tools": with_parameters({"$ref": "#"})}, "invalid_schema"),
    ("unknown tool set", {**PLAIN, "tool_set": "no_such"}, "unknown_tool_set"),
]  # fmt: skip

GOOD = json.dumps(PLAIN).encode()
LINES: list[tuple[str, bytes, str]] = [
    # name, line, code
    ("truncated", GOOD[:-10], "invalid_json"),
    ("two objects", GOOD + GOOD, "trailing_content"),
    ("two objects with a space", GOOD + b" " + GOOD, "trailing_content"),
    ("lone CR between objects", GOOD + b"\r" + GOOD, "trailing_content"),
    ("trailing comma", GOOD + b",", "trailing_content"),
    ("white space around", b" \t" + GOOD + b" \t\r", ""),
    ("array", b"[" + GOOD + b"]", "not_an_object"),
    ("null", b"null", "not_an_object"),
    ("true", b"true", "not_an_object"),
    ("number", b"5", "not_an_object"),
    ("text", b'"a"', "not_an_object"),
    ("no JSON", b"hello", "invalid_json"),
    ("single quotes", b"{'messages': []}", "invalid_json"),
    ("comment", GOOD[:-1] + b"/* */}", "invalid_json"),
    ("comma before the brace", GOOD[:-1] + b",}", "invalid_json"),
    ("NUL byte", GOOD.replace(b"room", b"ro\0om"), "invalid_json"),
    ("NUL byte between fields", GOOD[:-1] + b"\0}", "invalid_json"),
    ("escaped NUL", GOOD.replace(b"room", b"ro\\u0000om"), ""),
    ("raw tab in text", GOOD.replace(b"room", b"ro\tom"), "invalid_json"),
    ("BOM inside the file", b"\xef\xbb\xbf" + GOOD, "invalid_json"),
    ("invalid UTF-8 in text", GOOD.replace(b"room", b"ro\xffom"), "invalid_utf8"),
    ("invalid UTF-8 in an unknown field", GOOD[:-1] + b', "x": "\xff"}', "invalid_utf8"),
    ("invalid UTF-8 in an unknown key", GOOD[:-1] + b', "\xff": 1}', "invalid_utf8"),
    ("invalid UTF-8 in tools", GOOD.replace(b"null", b'[{"a": "\xff"}]'), "invalid_utf8"),
    ("Latin-1", GOOD.replace(b"room", b"r\xf6om"), "invalid_utf8"),
    ("overlong UTF-8", GOOD.replace(b"room", b"\xc0\xafom"), "invalid_utf8"),
    ("raw surrogates", GOOD.replace(b"room", b"\xed\xa0\xbd\xed\xb8\x80"), "invalid_utf8"),
    ("lone surrogate", GOOD.replace(b"room", b"\\ud800"), "lone_surrogate"),
    ("lone low surrogate", GOOD.replace(b"room", b"\\uDC00x"), "lone_surrogate"),
    ("lone surrogate in an unknown field", GOOD[:-1] + b', "x": "\\ud800"}', "lone_surrogate"),
    ("lone surrogate in an unknown key", GOOD[:-1] + b', "\\ud800": 1}', "lone_surrogate"),
    ("surrogate pair", GOOD.replace(b"room", b"\\ud83d\\ude00"), ""),
    ("escaped backslash before ud800", GOOD.replace(b"room", b"\\\\ud800"), ""),
    ("repeated key", b'{"messages": [], ' + GOOD[1:], "duplicate_key"),
    ("repeated key in a turn", GOOD.replace(b'"role": "user"', b'"role": "user", "role": "user"'), "duplicate_key"),
    ("repeated key, escaped", GOOD.replace(b'"role": "user"', b'"role": "user", "r\\u006fle": "user"'),
        "duplicate_key"),
    ("repeated unknown key", GOOD[:-1] + b', "x": 1, "x": 1}', "duplicate_key"),
    ("repeated key deep inside", GOOD[:-1] + b', "x": [{"y": {"z": 1, "z": 2}}]}', "duplicate_key"),
    ("repeated key beside escaped quotation marks", GOOD.replace(b'"role": "user"', b'"role": "user", "role": "user"')
        .replace(b"room", b"\\u0022" * 4), "duplicate_key"),
    ("repeated unknown key beside escaped quotation marks",
        GOOD[:-1].replace(b"room", b"\\u0022" * 2) + b', "x": 1, "x": 1}', "duplicate_key"),
    ("repeated key in ShareGPT beside escaped quotation marks", json.dumps(share(HUMAN, GPT)).encode().replace(
        b'"from"', b'"from": "gpt", "from"', 1).replace(b"Hello?", b"\\u0022" * 4), "duplicate_key"),
    ("escaped quotation marks", GOOD.replace(b"room", b"\\u0022\\u0022"), ""),
    ("same key in other objects", GOOD[:-1] + b', "x": [{"y": 1}, {"y": 1}], "y": 2}', ""),
    ("NaN", GOOD[:-1] + b', "x": NaN}', "number_out_of_range"),
    ("Infinity", GOOD[:-1] + b', "x": [-Infinity]}', "number_out_of_range"),
    ("1e999", GOOD[:-1] + b', "x": 1e999}', "number_out_of_range"),
    ("1e-999", GOOD[:-1] + b', "x": 1e-999}', ""),
    ("5,000 digits", GOOD[:-1] + b', "x": ' + b"9" * 5000 + b"}", "number_out_of_range"),
    ("2^64 - 1", GOOD[:-1] + b', "x": 18446744073709551615}', ""),
    ("2^64", GOOD[:-1] + b', "x": 18446744073709551616}', "number_out_of_range"),
    ("leading zero", GOOD[:-1] + b', "x": 01}', "invalid_json"),
    ("500 levels", GOOD[:-1] + b', "x": ' + b"[" * 500 + b"]" * 500 + b"}", ""),
    ("512 levels", GOOD[:-1] + b', "x": ' + b"[" * 511 + b"]" * 511 + b"}", ""),
    ("513 levels", GOOD[:-1] + b', "x": ' + b"[" * 512 + b"]" * 512 + b"}", "too_deep"),
    ("5,000 levels", GOOD[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep"),
    ("a million levels", b"[" * 1_000_000 + b"]" * 1_000_000, "too_deep"),
    ("a million open brackets", b'{"a":' * 1_000_000, "too_deep"),
]  # fmt: skip


def codes(raw: bytes, *, use_fast_path: bool) -> list[tuple[int, str]]:
    outcome = Outcome()
    checker = RowChecker(allow_final_calls=False, use_fast_path=use_fast_path)
    checker.check_block(Block(raw.split(b"\n")), outcome)
    return [(error.line, error.code) for error in outcome.errors]


@pytest.mark.parametrize("use_fast_path", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize(("content", "code"), [pytest.param(*case[1:], id=case[0]) for case in ROWS])
def test_a_row_gets_its_verdict(content: Any, code: str, use_fast_path: bool) -> None:
    raw = json.dumps(content, ensure_ascii=False).encode()
    compact = json.dumps(content, separators=(",", ":")).encode()
    expected = [(1, code)] if code else []
    assert codes(raw, use_fast_path=use_fast_path) == expected
    assert codes(compact, use_fast_path=use_fast_path) == expected


@pytest.mark.parametrize("use_fast_path", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize(("raw", "code"), [pytest.param(*case[1:], id=case[0]) for case in LINES])
def test_a_line_gets_its_verdict_and_so_do_its_neighbours(raw: bytes, code: str, use_fast_path: bool) -> None:
    block = GOOD + b"\n\n" + raw + b"\n" + GOOD + b"\n[]"
    expected = ([(3, code)] if code else []) + [(5, "not_an_object")]
    assert codes(block, use_fast_path=use_fast_path) == expected


def verdict(path: Path) -> tuple[int, list[tuple[int, str]]]:
    result = validate_file(DataValidateRequest(file=str(path)))
    return result.num_rows, [(error.line, error.code) for error in result.errors]


FILES: list[tuple[str, bytes, tuple[int, list[tuple[int, str]]]]] = [
    ("BOM", b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD, (2, [])),
    ("two BOMs", b"\xef\xbb\xbf" * 2 + GOOD, (1, [(1, "invalid_json")])),
    ("CRLF", GOOD + b"\r\n" + GOOD + b"\r\n", (2, [])),
    ("blank lines", b"\n \n\t\r\n" + GOOD + b"\n\n[]\n\n", (2, [(6, "not_an_object")])),
    ("no final newline", GOOD, (1, [])),
    ("truncated last line", GOOD + b"\n" + GOOD[:30], (2, [(2, "invalid_json")])),
    ("array file", b"[\n" + GOOD + b",\n" + GOOD + b"\n]", (4, [
        (1, "invalid_json"), (2, "trailing_content"), (4, "invalid_json")])),
    ("gzip", gzip.compress(GOOD + b"\n[]\n"), (2, [(2, "not_an_object")])),
    ("gzip of two members", gzip.compress(GOOD + b"\n") + gzip.compress(b"[]"), (2, [(2, "not_an_object")])),
    ("gzip of a BOM", gzip.compress(b"\xef\xbb\xbf" + GOOD), (1, [])),
    ("zstd", zstandard.compress(GOOD + b"\n[]\n"), (2, [(2, "not_an_object")])),
    ("zstd of two frames", zstandard.compress(GOOD + b"\n") + zstandard.compress(b"[]"), (2, [
        (2, "not_an_object")])),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), [pytest.param(*case[1:], id=case[0]) for case in FILES])
def test_a_file_gets_its_verdict(
    content: bytes, expected: tuple[int, list[tuple[int, str]]], workspace: Path
) -> None:
    path = workspace / "rows.jsonl"
    path.write_bytes(content)
    assert verdict(path) == expected
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n \r\n\t\n", id="only blank lines"),
        pytest.param(b"\xef\xbb\xbf", id="only a BOM"),
        pytest.param(gzip.compress(GOOD * 1000)[:-9], id="truncated gzip"),
        pytest.param(gzip.compress(GOOD)[:5], id="gzip header only"),
        pytest.param(b"\x1f\x8b\x08garbage and more garbage", id="broken gzip"),
        pytest.param(zstandard.compress(GOOD * 1000)[:-9], id="truncated zstd"),
        pytest.param(b"\x28\xb5\x2f\xfdgarbage", id="broken zstd"),
        pytest.param(gzip.compress(b""), id="gzip of nothing"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param("{}".encode("utf-16-le"), id="UTF-16 without a mark"),
        pytest.param(b"PAR1" + bytes(100), id="Parquet"),
        pytest.param(b"PK\x03\x04" + bytes(100), id="zip"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), id="PNG"),
        pytest.param(bytes(range(256)) * 20, id="binary"),
    ],
)
def test_an_unusable_file_is_refused_as_a_whole(content: bytes, workspace: Path) -> None:
    path = workspace / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        verdict(path)
    assert caught.value.hint
