"""Argument values that are not JSON: Python literals, and FunctionGemma's own notation. Nothing is evaluated."""

import ast
import re
from typing import Any

from pipeline.evals.tool_calls.prediction import PredictedCall

_NAMES = {"true": True, "false": False, "null": None}
_GEMMA_HEAD = re.compile(r"call:\s*([\w.\-]+)\s*")
_GEMMA_TOKEN = re.compile(r"<escape>(.*?)<escape>|[^,{}\[\]:<]+", re.DOTALL)
_MAX_DEPTH = 50


def parse_pythonic(text: str) -> list[PredictedCall]:
    """Parse ``[f(a=1), g(b="x")]``, with or without the brackets.

    Raises:
        ValueError: If it is anything but calls with literal keyword arguments.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError("not Python") from error
    nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    return [_read_call(node) for node in nodes]


def _read_call(node: ast.expr) -> PredictedCall:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("a call has keyword arguments only")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("arguments are named")
        arguments[keyword.arg] = _read_literal(keyword.value)
    return PredictedCall(ast.unparse(node.func), arguments)


def _read_literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_read_literal(part) for part in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else ast.literal_eval(key) for key in node.keys]
        if not all(isinstance(key, str) for key in keys):
            raise ValueError("keys are texts")
        return {str(key): _read_literal(part) for key, part in zip(keys, node.values, strict=True)}
    value: Any = ast.literal_eval(node)
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError("no JSON value")  # sets, bytes and complex numbers
    return value


def parse_functiongemma(text: str) -> PredictedCall:
    """Parse ``call:name{key:<escape>text<escape>,n:5,flag:true,list:[1,2],object:{a:1}}``.

    Raises:
        ValueError: If it is not of that form.
    """
    head = _GEMMA_HEAD.match(text)
    if head is None:
        raise ValueError("no call:name")
    value, end = _read_gemma(text, head.end(), 0)
    if not isinstance(value, dict) or text[end:].strip():
        raise ValueError("arguments stand in braces")
    return PredictedCall(head[1], value)  # pyright: ignore[reportUnknownArgumentType]  # keys are texts


def _read_gemma(text: str, start: int, depth: int) -> tuple[Any, int]:
    opening = text[start : start + 1]
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if opening == "{":
        return _read_gemma_object(text, start + 1, depth)
    if opening == "[":
        return _read_gemma_list(text, start + 1, depth)
    token = _GEMMA_TOKEN.match(text, start)
    if token is None:
        raise ValueError("no value")
    return (token[1] if token[1] is not None else _read_gemma_scalar(token[0].strip())), token.end()


def _read_gemma_scalar(word: str) -> Any:
    if word in _NAMES:
        return _NAMES[word]
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    try:
        return float(word)
    except ValueError:
        return word


def _read_gemma_object(text: str, position: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while text[position : position + 1] != "}":
        key = _GEMMA_TOKEN.match(text, position)
        if key is None or text[key.end() : key.end() + 1] != ":":
            raise ValueError("no key")
        found[(key[1] or key[0]).strip()], position = _read_gemma(text, key.end() + 1, depth + 1)
        position = _skip_comma(text, position, "}")
    return found, position + 1


def _read_gemma_list(text: str, position: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while text[position : position + 1] != "]":
        value, position = _read_gemma(text, position, depth + 1)
        found.append(value)
        position = _skip_comma(text, position, "]")
    return found, position + 1


def _skip_comma(text: str, position: int, closing: str) -> int:
    following = text[position : position + 1]
    if following == ",":
        return position + 1
    if following != closing:
        raise ValueError(f"{closing} is missing")
    return position
