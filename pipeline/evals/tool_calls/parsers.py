"""Calls out of raw model text, by the format they are written in; the format is reported by name.

| name | looks like |
| --- | --- |
| hermes | ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` (Hermes, Qwen) |
| mistral | ``[TOOL_CALLS][{"name": ...}]`` or ``[TOOL_CALLS]name[ARGS]{...}`` |
| functiongemma | ``<start_function_call>call:name{key:<escape>text<escape>,n:5}<end_function_call>`` |
| llama_json | ``{"name": ..., "parameters": {...}}``, also after ``<|python_tag|>``, several joined by ``;`` |
| pythonic | ``[name(key="text", n=5), other()]`` |
| openai | ``{"tool_calls": [{"function": {"name": ..., "arguments": "{...}"}}]}`` |
| json | one object or list of ``{"name": ..., "arguments": {...}}``, bare or fenced |

Text around bare JSON or Python is an error (a server would show it to the user as text); before a tag it is a remark.
What looks like a call and cannot be read is an error too, never an answer without calls.
"""

import json
import re
from collections.abc import Collection
from typing import Any, Literal, cast

from pipeline.evals.tool_calls.literals import parse_functiongemma, parse_pythonic
from pipeline.evals.tool_calls.prediction import CallReader, Prediction, load_json

Format = Literal["hermes", "mistral", "functiongemma", "llama_json", "pythonic", "openai", "json"]

_END_MARKS = re.compile(
    r"(?:<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<\|endoftext\|>|<end_of_turn>|<start_function_response>|</s>|\s)+$"
)
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_HERMES = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|$)", re.DOTALL)
_MISTRAL_NEW = re.compile(r"\s*([\w.\-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?\[ARGS\]\s*")
_FENCE = re.compile(r"```(?:\w+)?[ \t]*\n?(.*?)(?:```|$)", re.DOTALL)
_CALL_KEYS = re.compile(r'"(?:name|arguments|parameters|function|tool_calls)"\s*:')
_PYTHON_START = re.compile(r"\[\s*[A-Za-z_][\w.]*\s*\(")
_STRAY_MARKS = ("</tool_call>", "<end_function_call>", "[ARGS]")


def parse_text(text: str, tool_names: Collection[str] = (), expected: Format | None = None) -> Prediction:
    """Parse an answer.

    Args:
        text: As the model wrote it, special tokens included or not.
        tool_names: Names of the tools, to tell calls from other text.
        expected: The format that the chat template prescribes; calls in another one are ``wrong_wrapper``.
    """
    shown = _END_MARKS.sub("", _THINKING.sub("", text)).strip()
    if not shown:
        return Prediction(text="", errors=("no_output",))
    found = _parse_marked(shown) or _parse_bare(shown, tool_names)
    if found is None:
        return Prediction(text=shown)
    errors = list(dict.fromkeys(found.errors))
    if (
        expected is not None
        and found.parser != expected
        and not (found.parser == "json" and expected == "llama_json")
    ):
        errors.append("wrong_wrapper")
    return Prediction(found.calls, found.text, tuple(dict.fromkeys(errors)), found.parser)


def _parse_marked(text: str) -> Prediction | None:
    """Parse formats that announce themselves by a mark."""
    for mark, parse in (
        ("<tool_call>", _parse_hermes),
        ("[TOOL_CALLS]", _parse_mistral),
        ("<start_function_call>", _parse_gemma),
        ("<|python_tag|>", _parse_llama),
    ):
        if mark in text:
            return parse(text)
    if any(mark in text for mark in _STRAY_MARKS):
        return Prediction(text=text, errors=("wrong_wrapper",), parser=None)
    return None


def _parse_hermes(text: str) -> Prediction:
    reader = CallReader()
    for found in _HERMES.finditer(text):
        body, is_closed = found[1].strip(), bool(found[2])
        num_errors = len(reader.errors)
        _read_json(reader, body)
        if not is_closed and len(reader.errors) == num_errors:
            reader.errors.append("wrong_wrapper")
    if "</tool_call>" in _HERMES.sub("", text):
        reader.errors.append("wrong_wrapper")
    return _prediction(reader, "hermes", _HERMES.sub("", text))


def _parse_mistral(text: str) -> Prediction:
    before, *bodies = text.split("[TOOL_CALLS]")
    reader = CallReader()
    for body in bodies:
        if named := _MISTRAL_NEW.match(body):
            try:
                reader.add(named[1], load_json(body[named.end() :].strip() or "{}"), encoded_is_right=False)
            except ValueError:
                reader.errors += _name_json_error(body[named.end() :])
        elif body.strip() or len(bodies) == 1:
            _read_json(reader, body.strip())
    return _prediction(reader, "mistral", before)


def _parse_gemma(text: str) -> Prediction:
    reader = CallReader()
    parts = text.split("<start_function_call>")
    for part in parts[1:]:
        body, closing, _ = part.partition("<end_function_call>")
        try:
            reader.calls.append(parse_functiongemma(body.strip()))
        except ValueError:
            reader.errors.append("not_json" if closing else "truncated")
            reader.errors.append("not_json")
            continue
        if not closing:
            reader.errors.append("wrong_wrapper")
    return _prediction(reader, "functiongemma", parts[0])


def _parse_llama(text: str) -> Prediction:
    before, _, body = text.partition("<|python_tag|>")
    body = body.strip()
    if _PYTHON_START.match(body) or not body.startswith(("{", "[")):
        found = _parse_python(body)
        return Prediction(found.calls, before.strip() or None, found.errors, "pythonic")
    reader = CallReader()
    _read_json(reader, body)
    return _prediction(reader, "llama_json", before)


def _parse_bare(text: str, tool_names: Collection[str]) -> Prediction | None:
    """Parse formats without marks, alone or with text around."""
    if fenced := _FENCE.search(text):
        inside = _parse_bare_alone(fenced[1].strip(), tool_names)
        if inside is not None:
            return _with_prose(inside, text[: fenced.start()] + text[fenced.end() :])
    alone = _parse_bare_alone(text, tool_names)
    return alone if alone is not None else _parse_embedded(text, tool_names)


def _parse_bare_alone(text: str, tool_names: Collection[str]) -> Prediction | None:
    if _PYTHON_START.match(text) or _starts_python_call(text, tool_names):
        return _parse_python(text)
    if not text.startswith(("{", "[")) or not _looks_like_call(text, tool_names):
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text)
        rest = text[end:].strip().lstrip(";").strip()
    except (ValueError, RecursionError):
        rest = ""
    if rest and not rest.startswith(("{", "[")):  # JSON, then prose
        found = _parse_bare_alone(text[: len(text) - len(rest)].strip(), tool_names)
        return _with_prose(found, rest) if found else None
    reader = CallReader()
    _read_json(reader, text)
    return _prediction(reader, _name_json_format(text), "")


def _parse_embedded(text: str, tool_names: Collection[str]) -> Prediction | None:
    """Find a call inside prose; a sentence that only mentions a tool is none."""
    start = next((m.start() for m in re.finditer(r"[\[{]\s*[\[{]?\s*\"", text) if m.start() > 0), None)
    if start is not None and _looks_like_call(text[start:], tool_names):
        found = _parse_bare_alone(text[start:], tool_names)
        return _with_prose(found, text[:start]) if found else None
    for found_call in re.finditer(r"\[?\s*\b([A-Za-z_][\w.]*)\(([^()]*=[^()]*|)\)\s*\]?", text):
        if found_call[1] in tool_names:
            found = _parse_python(found_call[0].strip().strip("[]"))
            return _with_prose(found, text[: found_call.start()] + text[found_call.end() :])
    return None


def _parse_python(text: str) -> Prediction:
    try:
        return Prediction(tuple(parse_pythonic(text)), None, (), "pythonic")
    except ValueError:
        is_cut = text.count("(") > text.count(")") or text.count("[") > text.count("]")
        return Prediction((), text, ("truncated", "not_json") if is_cut else ("not_json",), "pythonic")


def _read_json(reader: CallReader, text: str) -> None:
    """Read one JSON value or several, joined by semicolons, commas or spaces."""
    position, decoder = 0, json.JSONDecoder(parse_constant=_refuse)
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            reader.errors += _name_json_error(text[position:])
            return
        _read_value(reader, value)
        position += len(text[position:]) - len(text[position:].lstrip(" \n\r\t;"))
    if not text:
        reader.errors.append("not_json")


def _read_value(reader: CallReader, value: Any) -> None:
    if isinstance(value, list):
        parts = cast("list[Any]", value)
        if not parts:
            reader.errors.append("wrong_wrapper")
        for part in parts:
            _read_value(reader, part)
        return
    if not isinstance(value, dict):
        reader.errors.append("wrong_wrapper")
        return
    fields = cast("dict[str, Any]", value)
    if isinstance(fields.get("tool_calls"), list):
        _read_value(reader, fields["tool_calls"])
    elif isinstance(fields.get("function"), dict):
        inner = cast("dict[str, Any]", fields["function"])
        reader.add(inner.get("name"), inner.get("arguments", {}), encoded_is_right=True)
    elif "name" in fields or "function" in fields:
        arguments = fields.get("arguments", fields.get("parameters", {}))
        reader.add(fields.get("name", fields.get("function")), arguments, encoded_is_right=False)
    elif len(fields) == 1 and isinstance(next(iter(fields.values())), dict):
        name, arguments = next(iter(fields.items()))
        reader.errors.append("wrong_wrapper")
        reader.add(name, arguments, encoded_is_right=False)
    else:
        reader.errors.append("wrong_wrapper")


def _prediction(reader: CallReader, parser: str, text: str) -> Prediction:
    if not reader.calls and not reader.errors:
        reader.errors.append("not_json")
    return Prediction(tuple(reader.calls), text.strip() or None, tuple(reader.errors), parser)


def _with_prose(found: Prediction, prose: str) -> Prediction:
    words = prose.strip()
    errors = (*found.errors, "prose_around_call") if words else found.errors
    return Prediction(found.calls, words or found.text, errors, found.parser)


def _looks_like_call(text: str, tool_names: Collection[str]) -> bool:
    if _CALL_KEYS.search(text):
        return True
    return any(f'"{name}"' in text for name in tool_names)


def _starts_python_call(text: str, tool_names: Collection[str]) -> bool:
    name = re.match(r"[A-Za-z_][\w.]*(?=\s*\()", text)
    return name is not None and name[0] in tool_names


def _name_json_format(text: str) -> str:
    if '"tool_calls"' in text or re.search(r'"function"\s*:\s*{', text):
        return "openai"
    return "llama_json" if '"parameters"' in text and '"arguments"' not in text else "json"


def _name_json_error(text: str) -> list[str]:
    """Return ``not_json``, and ``truncated`` when the text ends inside an open bracket or string."""
    depth, in_string, is_escaped = 0, False, False
    for character in text:
        if in_string:
            if is_escaped:
                is_escaped = False
            elif character == "\\":
                is_escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        else:
            depth += (character in "{[") - (character in "}]")
    return ["truncated", "not_json"] if in_string or depth > 0 else ["not_json"]


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
