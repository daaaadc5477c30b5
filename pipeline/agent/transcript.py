"""What an agent said and did, item by item."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from pipeline.core.errors import PipelineError
from pipeline.core.operation import Part

_MAX_CALL_CHARACTERS = 300
_MAX_CALLS = 20


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


def attach_calls(error: PipelineError, calls: Sequence[TranscriptItem]) -> None:
    """Add to an error which calls were made before it: what they changed stays, and a repeated request changes it twice.

    The last ones, each cut to a sane length; the transcript has them whole.
    """
    if not calls:
        return
    lines = [describe_call(item) for item in calls[-_MAX_CALLS:]]
    error.details["num_calls"] = len(calls)
    error.details["calls"] = [
        line if len(line) <= _MAX_CALL_CHARACTERS else f"{line[: _MAX_CALL_CHARACTERS - 3]}..."
        for line in lines
    ]
    made = "1 tool call was" if len(calls) == 1 else f"{len(calls)} tool calls were"
    error.hint += (
        f" Before the failure {made} made, and what was changed stays changed, but the model does not remember it: "
        "look at the tasks before you ask for the same again."
    )
