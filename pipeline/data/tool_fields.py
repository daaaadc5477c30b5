"""The tools a row declares and the calls its turns make, in OpenAI's form or in the flat one of ShareGPT files.

Checks shapes only; whether a call names a declared tool and fits its schema is the matter of ``rules.py``.
"""

from typing import Any, NamedTuple

from pipeline.core.messages import Role, Tool
from pipeline.data.strict_json import (
    RowError,
    echo,
    is_array,
    is_object,
    parse_embedded,
    require_text,
    type_name,
    wrong_type,
)
from pipeline.task_api.tools import load_tools

TOOL_SETS = {"task_api": load_tools}


class Call(NamedTuple):
    """One call of a tool."""

    name: str
    arguments: dict[str, Any]
    id: str | None


def parse_tools(row: dict[str, Any], *, may_be_flat: bool) -> tuple[Tool, ...]:
    """Return the tools a row declares, in OpenAI form, or those of its named tool set.

    Raises:
        RowError: If the declaration is malformed or the tool set unknown.
    """
    declared: Any = row.get("tools")
    if declared is None:
        name = row.get("tool_set")
        if name is None:
            return ()
        if not isinstance(name, str) or name not in TOOL_SETS:
            raise RowError(
                "unknown_tool_set",
                "tool_set",
                f"there is no tool set {echo(name)}",
                fix=f"Declare the tools in the row, or name one of: {', '.join(TOOL_SETS)}.",
            )
        return tuple(TOOL_SETS[name]())
    if isinstance(declared, str):
        declared = parse_embedded(declared, "tools", "invalid_tools") if declared.strip() else []
    if not is_array(declared):
        raise wrong_type("tools", "an array of tools", declared)
    tools: list[Tool] = [
        _parse_tool(tool, f"tools[{i}]", may_be_flat=may_be_flat) for i, tool in enumerate(declared)
    ]
    _require_distinct(tools)
    return tuple(tools)


def _parse_tool(tool: Any, path: str, *, may_be_flat: bool) -> Tool:
    if not is_object(tool):
        raise wrong_type(path, "an object", tool)
    if may_be_flat and "function" not in tool and "name" in tool:
        tool = {"type": "function", "function": tool}
    function: Any = tool.get("function")
    fix = 'Write {"type": "function", "function": {"name": ..., "parameters": {...}}}.'
    if tool.get("type", "function") != "function" or not is_object(function):
        raise RowError("invalid_tools", path, "not a tool in OpenAI form", fix=fix)
    name: Any = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RowError("invalid_tools", f"{path}.function.name", "the tool has no name", fix=fix)
    parameters: Any = function.get("parameters")
    if parameters is not None and not is_object(parameters):
        raise wrong_type(f"{path}.function.parameters", "an object (JSON Schema)", parameters)
    return tool


def _require_distinct(tools: list[Tool]) -> None:
    names: set[str] = set()
    for position, tool in enumerate(tools):
        name: str = tool["function"]["name"]
        if name in names:
            raise RowError(
                "duplicate_tool",
                f"tools[{position}].function.name",
                f"the tool {echo(name)} is declared twice",
                fix="Declare every tool once.",
            )
        names.add(name)


def parse_calls(calls: Any, path: str, role: Role, *, may_be_flat: bool) -> tuple[Call, ...]:
    """Return the calls of a turn.

    Raises:
        RowError: If they are malformed, or the turn is not the assistant's.
    """
    if role != "assistant":
        raise RowError(
            "misplaced_calls",
            path,
            f"a {role} turn cannot call tools",
            fix="Only assistant turns call tools.",
        )
    if not is_array(calls):
        raise wrong_type(path, "an array of calls", calls)
    return tuple(_parse_call(call, f"{path}[{i}]", may_be_flat=may_be_flat) for i, call in enumerate(calls))


def _parse_call(call: Any, path: str, *, may_be_flat: bool) -> Call:
    if not is_object(call):
        raise wrong_type(path, "an object", call)
    is_flat = may_be_flat and "function" not in call
    function: Any = call if is_flat else call.get("function")
    at = path if is_flat else f"{path}.function"
    if not is_object(function) or (not is_flat and call.get("type", "function") != "function"):
        raise RowError(
            "invalid_call",
            path,
            "not a call in OpenAI form",
            fix='Write {"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}.',
        )
    name: Any = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RowError("invalid_call", f"{at}.name", "the call names no tool", fix="Name a declared tool.")
    arguments = _parse_arguments(function.get("arguments"), f"{at}.arguments")
    identifier = call.get("id")
    return Call(
        name=name,
        arguments=arguments,
        id=None if identifier is None else require_text(identifier, f"{path}.id"),
    )


def _parse_arguments(arguments: Any, path: str) -> dict[str, Any]:
    if isinstance(arguments, str):
        arguments = parse_embedded(arguments, path, "arguments_not_json")
    if not is_object(arguments):
        raise RowError(
            "arguments_not_object",
            path,
            f"arguments are {type_name(arguments)}, not an object",
            fix='Write the arguments as a JSON object in a string, "{}" when there are none.',
        )
    return arguments


def parse_call_text(text: Any, path: str) -> tuple[Call, ...]:
    """Read LLaMA-Factory's ``function_call`` turn: the text is one call or an array of calls."""
    parsed = parse_embedded(require_text(text, path), path, "invalid_call")
    calls: list[Any] = parsed if is_array(parsed) and parsed else [parsed]
    return tuple(_parse_call(call, path, may_be_flat=True) for call in calls)
