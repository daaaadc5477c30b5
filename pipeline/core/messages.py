"""Message, ToolCall, Example: the one record type of all stages.

On disk a row is OpenAI ``messages`` with ``tool_calls`` whose ``arguments`` are a JSON *string*, so that Arrow
never has to unify argument types across rows (trl#5307). In memory arguments are a dict.
"""

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Role = Literal["system", "user", "assistant", "tool"]
Tool = dict[str, Any]
"""One tool definition in OpenAI form: ``{"type": "function", "function": {...}}``."""


class Record(BaseModel):
    """Base of stored records: closed and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ToolCall(Record):
    """One call of a tool by the assistant."""

    name: str
    """Tool name."""
    arguments: dict[str, Any]
    """Arguments by parameter name: required first, then optional, in schema order."""
    id: str | None = None
    """Call id that the tool message answers."""

    def to_openai(self, position: int = 0) -> dict[str, Any]:
        """Return the OpenAI wire form (arguments as a JSON string); a call without an id is named by position."""
        function = {"name": self.name, "arguments": json.dumps(self.arguments, ensure_ascii=False)}
        return {"id": self.id or f"call_{position}", "type": "function", "function": function}

    @classmethod
    def from_openai(cls, raw: dict[str, Any]) -> Self:
        """Parse the OpenAI wire form.

        Raises:
            ValueError: If the name is missing or the arguments are not a JSON object.
        """
        function: dict[str, Any] = raw.get("function", raw)
        arguments: Any = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = json.loads(arguments or "{}")
        return cls.model_validate({"name": function.get("name"), "arguments": arguments, "id": raw.get("id")})


class Message(Record):
    """One turn of a conversation."""

    role: Role
    """Who speaks."""
    content: str | None = None
    """Text; null only beside tool calls."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls the assistant makes in this turn."""
    tool_call_id: str | None = None
    """On a tool message: the call it answers."""

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("content may be null only in an assistant turn with tool calls")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant turn can call tools")
        return self

    def to_openai(self) -> dict[str, Any]:
        """Return the OpenAI wire form."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [
                call.to_openai(position) for position, call in enumerate(self.tool_calls)
            ]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message

    @classmethod
    def from_openai(cls, raw: dict[str, Any]) -> Self:
        """Parse the OpenAI wire form.

        Raises:
            ValueError: If the turn has an unknown role, or neither text nor calls.
        """
        calls = tuple(ToolCall.from_openai(call) for call in raw.get("tool_calls") or ())
        fields = {
            "role": raw.get("role"),
            "content": raw.get("content"),
            "tool_call_id": raw.get("tool_call_id"),
        }
        return cls.model_validate({**fields, "tool_calls": calls})


class Example(Record):
    """One conversation to train on or to evaluate with."""

    id: str
    """Unique inside its file."""
    messages: tuple[Message, ...] = Field(min_length=2)
    """Turns in order; the last is the assistant's."""
    tool_set: str = "task_api"
    """Name of the tool definitions the conversation may use."""
    group: str
    """What must stay on one side of a split: the formulation the wording came from."""
    tags: dict[str, str] = {}
    """Slices for reports (``intent``, ``register`` ...)."""
    today: str
    """ISO date of the simulated clock."""
    initial_state: tuple[dict[str, Any], ...] = ()
    """Tasks in the store before the first turn."""
    faults: dict[str, str] = {}
    """Calls that the Task API fails on purpose: call id -> error code."""

    def to_row(self) -> dict[str, Any]:
        """Return the JSON Lines form."""
        row = self.model_dump(mode="json", exclude={"messages"} if self.faults else {"messages", "faults"})
        return {"id": row.pop("id"), "messages": [m.to_openai() for m in self.messages], **row}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Parse the JSON Lines form.

        Raises:
            ValueError: If a field or turn is not of the schema.
        """
        return cls.model_validate({**row, "messages": [Message.from_openai(m) for m in row["messages"]]})
