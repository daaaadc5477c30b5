"""Predictions files: JSON Lines of ``{id, calls}``, ``{id, text}`` or ``{id, message}``, several per id as repeats."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from pipeline.core.errors import InvalidInputError
from pipeline.evals.cases import describe_error
from pipeline.evals.tool_calls.parsers import Format, parse_text
from pipeline.evals.tool_calls.prediction import Prediction, load_json, read_calls

_HINT = "A line is {id, calls: [{name, arguments}]}, {id, text} or {id, message}."
Row = dict[str, Any]


def read_prediction_rows(path: Path) -> list[Row]:
    """Read a predictions file without parsing the answers in it.

    Raises:
        InvalidInputError: If it is missing or empty, or a line is no prediction; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read predictions from {path}: {error}", hint=_HINT) from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_check_row(load_json(line)))
        except ValueError as error:
            reason = describe_error(error).removeprefix("ValueError: ")
            raise InvalidInputError(f"{path.name}:{number}: {reason}", hint=_HINT) from error
    if not rows:
        raise InvalidInputError(f"{path} holds no prediction", hint=_HINT)
    return rows


def parse_prediction(row: Row, tool_names: Collection[str], expected: Format | None = None) -> Prediction:
    """Return the answer of a predictions row."""
    found = _parse(row, tool_names, expected)
    if row.get("finish_reason") == "length" and "truncated" not in found.errors:
        return Prediction(found.calls, found.text, ("truncated", *found.errors), found.parser)
    return found


def _parse(row: Row, tool_names: Collection[str], expected: Format | None) -> Prediction:
    text = row.get("text") if isinstance(row.get("text"), str) else None
    if row.get("calls") is not None:
        return read_calls(row["calls"], text)
    if row.get("message") is None:
        return parse_text(text or "", tool_names, expected)
    message = cast("Row", row["message"])
    calls: list[Any] = list(message.get("tool_calls") or ())
    if message.get("function_call"):
        calls.append({"function": message["function_call"]})
    content = message.get("content")
    shown = content if isinstance(content, str) else ""
    if not calls:
        return parse_text(shown, tool_names, expected)
    return read_calls(calls, shown)


def _check_row(row: Any) -> Row:
    if not isinstance(row, dict):
        raise ValueError("a prediction is a JSON object")
    fields = cast("Row", row)
    if not isinstance(fields.get("id"), str):
        raise ValueError("id is missing or no text")
    if not {"calls", "text", "message"} & fields.keys():
        raise ValueError("none of calls, text and message is given")
    for name, kind in (("calls", list), ("message", dict)):
        if fields.get(name) is not None and not isinstance(fields[name], kind):
            raise ValueError(f"{name} is no {'list' if kind is list else 'object'}")
    message = cast("Row", fields.get("message") or {})
    if not isinstance(message.get("tool_calls") or [], list):
        raise ValueError("message.tool_calls is no list")
    return fields
