"""An operation as an MCP tool: name, description, schemas and hints, all from its declaration."""

from typing import Any

from mcp_types import Tool, ToolAnnotations
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from pipeline.core.jobs import JobRef
from pipeline.core.operation import Operation

_DESCRIPTION_CHARACTERS = 600


class _UntitledSchema(GenerateJsonSchema):
    """Leaves out the generated titles: they repeat the field names and cost a client's context."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(model: type[BaseModel], mode: JsonSchemaMode = "validation") -> dict[str, Any]:
    """Return a model's JSON schema without generated titles.

    In a request a field that may be left out is not also offered as null: it says the same in a tenth more context.
    """
    schema = model.model_json_schema(schema_generator=_UntitledSchema, mode=mode)
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("title", None)
        if mode == "validation":
            properties: dict[str, dict[str, Any]] = part.get("properties", {})
            part.update(
                {"properties": {k: _drop_null(v) for k, v in properties.items()}} if properties else {}
            )
    return schema


def _drop_null(field: dict[str, Any]) -> dict[str, Any]:
    choices: list[dict[str, Any]] = field.get("anyOf", [])
    if {"type": "null"} not in choices or "default" not in field or field["default"] is not None:
        return field
    rest = [choice for choice in choices if choice != {"type": "null"}]
    kept = {key: value for key, value in field.items() if key not in {"anyOf", "default"}}
    return {**(rest[0] if len(rest) == 1 else {"anyOf": rest}), **kept}


def tool_name(operation_name: str) -> str:
    """Return the tool name of an operation: ``group.verb`` is ``group_verb``."""
    return operation_name.replace(".", "_")


def to_tool(operation: Operation[Any, Any]) -> Tool:
    """Return the MCP tool of an operation."""
    description = operation.summary
    if operation.long_running:
        description += " Starts a job and returns its run_id at once; then call jobs_status."
    answer = JobRef if operation.long_running else operation.result
    group, _, verb = operation.name.partition(".")
    return Tool(
        name=tool_name(operation.name),
        title=f"{group.capitalize()}: {verb.replace('_', ' ')}",
        description=description[:_DESCRIPTION_CHARACTERS],
        input_schema=json_schema(operation.request),
        output_schema=json_schema(answer, "serialization"),
        annotations=ToolAnnotations(
            read_only_hint=operation.read_only,
            destructive_hint=operation.destructive,
            open_world_hint=not operation.read_only,
        ),
    )
