"""The tool definitions (``tools.json``, the one source of truth), the system prompt, and a check of arguments.

The check covers the part of JSON Schema that ``tools.json`` uses (type, enum, minLength, minimum, required, closed
objects) and says what is wrong in plain words, because a model reads the answer.
"""

import json
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from pipeline.core.messages import Tool

DESTRUCTIVE_TOOLS = frozenset({"delete_task"})
"""Tools whose effect cannot be taken back; an agent asks before it calls one."""
_TYPE_NAMES = {"string": "a text", "integer": "a whole number"}


class ArgumentProblem(NamedTuple):
    """One way in which a call does not fit its tool."""

    argument: str
    """Name of the argument; empty when the tool itself is unknown."""
    rule: str
    """JSON Schema keyword that is broken, or ``tool``."""
    message: str
    """What is wrong, in plain words."""


def load_tools() -> list[Tool]:
    """Return the five tools in OpenAI form (a fresh copy, the caller may change it)."""
    return json.loads(files("pipeline.task_api").joinpath("tools.json").read_text(encoding="utf-8"))


def system_prompt(today: date) -> str:
    """Return the system message that training, evaluation and the agent share."""
    return f"You are a task assistant. Today is {today.isoformat()}."


def order_arguments(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments required first, then optional, each in declared order; unknown ones stay last."""
    parameters = _parameters().get(name, {"properties": {}, "required": []})
    required: list[str] = parameters["required"]
    declared = [*required, *(key for key in parameters["properties"] if key not in required)]
    known = {key: arguments[key] for key in declared if key in arguments}
    return {**known, **{key: value for key, value in arguments.items() if key not in known}}


def check_arguments(name: str, arguments: dict[str, Any]) -> str | None:
    """Return what is wrong with a call in plain words, or None when it fits the schema."""
    problem = find_problem(name, arguments)
    return problem.message if problem else None


def find_problem(name: str, arguments: dict[str, Any]) -> ArgumentProblem | None:
    """Return the first way in which a call breaks its tool's schema, or None."""
    tools = _parameters()
    if name not in tools:
        return ArgumentProblem("", "tool", f"There is no tool {name!r}; the tools are {', '.join(tools)}.")
    properties: dict[str, dict[str, Any]] = tools[name]["properties"]
    for key in arguments:
        if key not in properties:
            message = f"{name} has no argument {key!r}; it takes {', '.join(properties)}."
            return ArgumentProblem(key, "additionalProperties", message)
    for key in tools[name]["required"]:
        if key not in arguments:
            return ArgumentProblem(key, "required", f"{name} needs the argument {key!r}.")
    problems = (_check_value(key, value, properties[key]) for key, value in arguments.items())
    return next((problem for problem in problems if problem), None)


@cache
def _parameters() -> dict[str, dict[str, Any]]:
    return {tool["function"]["name"]: tool["function"]["parameters"] for tool in load_tools()}


def _check_value(key: str, value: Any, schema: dict[str, Any]) -> ArgumentProblem | None:
    if not _has_type(value, schema["type"]):
        return ArgumentProblem(key, "type", f"{key} must be {_TYPE_NAMES[schema['type']]}, not {value!r}.")
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(schema["enum"])
        return ArgumentProblem(key, "enum", f"{key} must be one of {allowed}, not {value!r}.")
    if len(str(value)) < schema.get("minLength", 0):
        return ArgumentProblem(key, "minLength", f"{key} must not be empty.")
    if "minimum" in schema and value < schema["minimum"]:
        return ArgumentProblem(key, "minimum", f"{key} must be at least {schema['minimum']}, not {value!r}.")
    return None


def _has_type(value: Any, type_name: str) -> bool:
    if type_name == "string":
        return isinstance(value, str)
    # JSON has one number type: 5.0 is an integer there (JSON Schema, 6.1.1); true is not.
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
