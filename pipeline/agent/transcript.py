"""What an agent said and did, item by item."""

import json
from typing import Any, Literal

from pydantic import Field

from pipeline.core.operation import Part


class TranscriptItem(Part):
    """One thing that happened in a conversation."""

    role: Literal["user", "assistant", "tool"]
    """Who; `tool` is one call with its result."""
    text: str = ""
    """What was said; empty for a call."""
    tool: str | None = None
    """Name of the called tool."""
    arguments: dict[str, Any] | None = None
    """Arguments of the call; null when they were not a JSON object."""
    result: dict[str, Any] | None = None
    """What the tool answered."""


class AgentTurn(Part):
    """What one user message led to."""

    items: tuple[TranscriptItem, ...]
    """User message, calls and replies in order."""
    output: str
    """Final reply."""
    num_model_calls: int = Field(ge=0)
    """Requests to the model."""
    input_tokens: int = Field(ge=0)
    """Prompt tokens of all requests together."""
    output_tokens: int = Field(ge=0)
    """Generated tokens."""
    seconds: float = Field(ge=0)
    """Wall time."""


def describe_call(item: TranscriptItem) -> str:
    """Return a call and its result as one readable line."""
    arguments = ", ".join(
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in (item.arguments or {}).items()
    )
    return f"{item.tool}({arguments}) -> {json.dumps(item.result, ensure_ascii=False)}"
