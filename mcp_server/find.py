"""Two tools beside the operations: find any operation with its whole schema, and call one that is not listed."""

from typing import Any

from mcp_types import Tool, ToolAnnotations

from mcp_server.offers import Offer, tool_name
from mcp_server.schemas import input_schema
from pipeline.core.errors import InvalidInputError, PipelineError
from pipeline.core.operation import Operation
from pipeline.operations import OPERATIONS

FIND, CALL = "operations_find", "operations_call"
_ANSWER = {"type": "object", "description": "operations, schema, next_step, warnings"}


def tools(offer: Offer) -> list[Tool]:
    """Return the two tools."""
    text = {"type": "string"}
    return [
        Tool(
            name=FIND,
            title="Operations: find",
            description="List operations that are not tools by word (name or purpose), or one with all its fields by name.",
            input_schema={
                "type": "object",
                "properties": {
                    "words": text,
                    "name": {**text, "description": "group.verb, or a tool's name"},
                },
            },
            output_schema=_ANSWER,
            annotations=ToolAnnotations(read_only_hint=True),
        ),
        Tool(
            name=CALL,
            title="Operations: call",
            description="Call any operation found by operations_find; answers like a tool of its own.",
            input_schema={
                "type": "object",
                "properties": {"name": text, "arguments": {"type": "object"}},
                "required": ["name"],
            },
            output_schema={"type": "object"},
            annotations=ToolAnnotations(read_only_hint=offer.read_only),
        ),
    ]


def find(offer: Offer, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return matching operations with their summaries, or one operation's request schema.

    Raises:
        InvalidInputError: If the named operation does not exist.
    """
    if name := str(arguments.get("name") or ""):
        operation = resolve(offer, name)
        return {
            "operations": {operation.name: operation.summary},
            "schema": input_schema(operation),
            "next_step": f"Call {tool_name(operation.name)} if it is a tool, else {CALL} with name={operation.name}.",
            "warnings": [],
        }
    words = str(arguments.get("words") or "").lower().split()
    found = {
        entry.name: entry.summary
        for entry in OPERATIONS
        if all(word in f"{entry.name} {entry.summary}".lower() for word in words)
    }
    step = f"Call {FIND} with name=... for the fields." if found else "Nothing matches; leave out words."
    return {"operations": found, "schema": {}, "next_step": step, "warnings": []}


def resolve(offer: Offer, name: str) -> Operation[Any, Any]:
    """Return an operation this server's clients may call.

    Raises:
        InvalidInputError: If there is none of that name, or it is left out here.
    """
    entry = offer.entry(name)
    if entry is None:
        raise InvalidInputError(
            f"no operation {name[:80]!r}", hint=f"Call {FIND} with a word of what you want to do."
        )
    operation = entry.load()
    if not offer.allows(operation):
        reason = "this server is read-only" if offer.read_only else "it talks with a person on a terminal"
        raise PipelineError(
            f"{operation.name} is not offered: {reason}", hint=f"Use `llmops {name.replace('.', ' ')}`."
        )
    return operation
