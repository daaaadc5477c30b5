"""``llmops vram estimate`` without the library that checks requests, when the arguments are plainly right.

Importing pydantic takes three times as long as the whole estimate. So arguments are first held against
``estimate_fields.json``, which is made from the request's own schema (a test compares); whatever is not plainly right
is left to the usual way, which also says what is wrong. Knows this one command.
"""

import json
import sys
from typing import Any, cast

from pipeline.core.errors import InvalidInputError
from pipeline.vram.estimator import estimate
from pipeline.vram.fields import Fields
from pipeline.vram.registry import read_packaged

Rule = dict[str, Any]
_PYTHON_TYPES: dict[str, type] = {
    "string": str,
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def run_estimate(argv: list[str]) -> int | None:
    """Print the estimate that the arguments ask for and return the exit status; None leaves it to the usual way."""
    values = _read_values(argv)
    if (
        values is None
        or values.get("out") is not None
        or not (sys.stdout.isatty() is False or "--json" in argv)
    ):
        return None
    rules: dict[str, list[Rule]] = read_packaged("estimate_fields.json")
    if any(name not in rules or not is_plainly_right(value, rules[name]) for name, value in values.items()):
        return None
    try:
        result = estimate(Fields(**values))
    except InvalidInputError as error:
        print(error.to_json(), file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(json.dumps(result, ensure_ascii=False, separators=(",", ":")))  # noqa: T201
    return 1 if result["fits"] is False else 0


def describe_fields(schema: dict[str, Any]) -> dict[str, list[Rule]]:
    """Return, for each field of a JSON schema, what a value may be: one rule for each alternative."""
    fields: dict[str, list[Rule]] = {}
    for name, field in schema["properties"].items():
        choices = field.get("anyOf", [field])
        kept = {"type", "enum", "minimum", "maximum", "exclusiveMaximum", "minLength", "items"}
        fields[name] = [{key: choice[key] for key in kept & choice.keys()} for choice in choices]
    return fields


def is_plainly_right(value: Any, rules: list[Rule]) -> bool:
    """True when a value meets one of the rules without any conversion."""
    return any(_meets(value, rule) for rule in rules)


def _meets(value: Any, rule: Rule) -> bool:
    kind = rule["type"]
    if "enum" in rule:
        return isinstance(value, str) and value in rule["enum"]
    if kind in {"integer", "number"}:
        if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
            return False
        below = value < rule.get("exclusiveMaximum", float("inf"))
        return rule.get("minimum", value) <= value <= rule.get("maximum", value) and below
    if kind == "array":
        return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[Any]", value))
    if kind == "string":
        return isinstance(value, str) and len(value) >= rule.get("minLength", 0) and "\0" not in value
    return isinstance(value, _PYTHON_TYPES[kind])


def _read_values(argv: list[str]) -> dict[str, Any] | None:
    """Read ``--request FILE|-``; anything else is not for here."""
    rest = [argument for argument in argv if argument != "--json"]
    if len(rest) != 2 or rest[0] != "--request":
        return None
    try:
        values = json.loads(_read_text(rest[1]))
    except (OSError, ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", values) if isinstance(values, dict) else None


def _read_text(source: str) -> str:
    if source != "-":
        with open(source, encoding="utf-8") as handle:  # noqa: PTH123 - pathlib alone takes longer than the estimate
            return handle.read()
    text = sys.stdin.read()
    import io

    sys.stdin = io.StringIO(text)  # the usual way reads it again
    return text
