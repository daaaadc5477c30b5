"""An operation as an MCP tool: name, description, schemas and hints, all from its declaration."""

from typing import Any

from mcp_types import Tool, ToolAnnotations
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from mcp_server.costs import asks_first
from mcp_server.offers import ALWAYS_LOADED, APP_URIS, tool_name
from pipeline.core.jobs import JobRef
from pipeline.core.operation import Operation

_DESCRIPTION_CHARACTERS = 600
_BRIEF_CHARACTERS = 60  # of a field's description in the default tool list
_BRIEF_FIELDS = 8  # of an answer, named in the default tool list
_TOKEN_FIELD = {
    "confirm_token": {
        "type": "string",
        "description": "From the dry run, after a yes.",
    }
}
_BRIEF_KEYS = ("type", "enum", "items", "anyOf", "default")


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


def to_tool(operation: Operation[Any, Any], shown: tuple[str, ...] | None = None) -> Tool:
    """Return the MCP tool of an operation.

    Args:
        operation: What the tool runs.
        shown: The request fields to show, shortened; None shows the whole request and result.
    """
    group, _, verb = operation.name.partition(".")
    return Tool(
        name=tool_name(operation.name),
        title=f"{group.capitalize()}: {verb.replace('_', ' ')}",
        description=_describe(operation),
        input_schema=input_schema(operation) if shown is None else _brief_input(operation, shown),
        output_schema=output_schema(operation) if shown is None else _brief_output(operation),
        annotations=_annotations(operation),
        _meta=_meta(operation.name),
    )


def _meta(name: str) -> dict[str, Any] | None:
    meta: dict[str, Any] = {"anthropic/alwaysLoad": True} if name in ALWAYS_LOADED else {}
    if name in APP_URIS:
        meta["ui"] = {"resourceUri": APP_URIS[name]}
    return meta or None


def input_schema(operation: Operation[Any, Any]) -> dict[str, Any]:
    """Return the whole schema of a request, with the confirmation token where the operation asks first."""
    schema = json_schema(operation.request)
    if asks_first(operation):
        schema["properties"] = {**schema.get("properties", {}), **_TOKEN_FIELD}
    return schema


def _describe(operation: Operation[Any, Any]) -> str:
    text = operation.summary
    if asks_first(operation):
        text += " Without confirm_token: dry run."
    if operation.long_running:
        text += " Starts a job."
    return text[:_DESCRIPTION_CHARACTERS]


def _annotations(operation: Operation[Any, Any]) -> ToolAnnotations:
    if operation.read_only:
        return ToolAnnotations(read_only_hint=True)
    return ToolAnnotations(destructive_hint=operation.destructive)  # not read-only is the protocol's default


def _brief_input(operation: Operation[Any, Any], shown: tuple[str, ...]) -> dict[str, Any]:
    whole = input_schema(operation)
    definitions: dict[str, Any] = whole.get("$defs", {})
    names = (*shown, "confirm_token") if asks_first(operation) else shown
    schema: dict[str, Any] = {"type": "object"}
    if names:
        schema["properties"] = {name: _brief(whole["properties"][name], definitions) for name in names}
    if required := [name for name in whole.get("required", []) if name in names]:
        schema["required"] = required
    return schema


def _brief(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Shorten a field: a nested model becomes an object that names its fields, the description its first sentence."""
    described = field.get("description", "").split(". ")[0].rstrip(".")
    if "$ref" in field:
        nested = definitions[field["$ref"].rpartition("/")[2]]
        described += f". Fields: {', '.join(nested.get('properties', {}))}"
        return {"type": "object", "description": described.replace("`", "")}
    kept = {key: value for key, value in field.items() if key in _BRIEF_KEYS}
    if kept.get("default") in ("", None, [], {}):
        kept.pop("default", None)
    return {**kept, "description": _cut(described)} if described else kept


def _cut(text: str) -> str:
    """End at a word, within the budget of a field."""
    text = text.replace("`", "").partition(";")[0]
    return (
        text if len(text) <= _BRIEF_CHARACTERS else text[:_BRIEF_CHARACTERS].rpartition(" ")[0].rstrip(",(")
    )


def output_schema(operation: Operation[Any, Any]) -> dict[str, Any]:
    """Return the whole schema of what the tool answers."""
    schema = json_schema(_answer_model(operation), "serialization")
    if asks_first(operation):  # a dry run answers with the token and the guidance fields only
        schema.pop("required", None)
        schema.pop("additionalProperties", None)
        schema["properties"] |= _TOKEN_FIELD
    return schema


def _brief_output(operation: Operation[Any, Any]) -> dict[str, Any]:
    """Name the main fields of an answer; their values show their form."""
    fields = _answer_model(operation).model_fields
    names = [name for name in fields if name not in {"warnings", "next_step"}][:_BRIEF_FIELDS]
    return {"type": "object", "description": ", ".join(names)}


def _answer_model(operation: Operation[Any, Any]) -> type[BaseModel]:
    return JobRef if operation.long_running else operation.result
