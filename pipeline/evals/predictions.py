"""A model's answer to one turn: asked over HTTP, kept with what it cost.

A call that cannot be parsed is a finding, not an exception: its text is kept beside the reason.
"""

import json
import time
from collections.abc import Callable
from typing import Literal

from pipeline.core.messages import Message, Tool, ToolCall
from pipeline.core.operation import Part
from pipeline.inference.client import ChatClient, Completion, UnparsableToolCallError

Breakage = Literal["not_json", "arguments_not_object"]
Ask = Callable[[tuple[Message, ...]], "Reply"]


class Reply(Part):
    """One answer."""

    content: str = ""
    """Visible text; of a broken call, what the model wrote."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls that could be parsed."""
    finish_reason: str | None = None
    """``stop``, ``tool_calls`` or ``length``."""
    broken: Breakage | None = None
    """Set when a call was made but could not be parsed."""
    retried: bool = False
    """True when the server hid a first, unparsable try."""
    latency_ms: float = 0.0
    """Time from request to whole answer, seen by the client."""
    prompt_tokens: int | None = None
    """As the server counts."""
    completion_tokens: int | None = None
    """As the server counts."""


def ask_model(
    client: ChatClient, messages: tuple[Message, ...], tools: list[Tool], *, max_tokens: int, seed: int
) -> Reply:
    """Ask for the next turn, greedily.

    Raises:
        PipelineError: If the server is gone, or refuses the request.
    """
    started = time.monotonic()
    try:
        completion = client.complete(
            messages, tools=tools, max_tokens=max_tokens, temperature=0.0, extra={"seed": seed}
        )
    except UnparsableToolCallError as error:
        text = str(error.details.get("raw_text") or "")
        milliseconds = (time.monotonic() - started) * 1000
        return Reply(content=text, broken=classify_breakage(text), latency_ms=round(milliseconds, 1))
    return read_completion(completion)


def read_completion(completion: Completion) -> Reply:
    """Return an answer as it is judged and stored."""
    calls = completion.message.tool_calls
    try:
        json.dumps([call.arguments for call in calls], ensure_ascii=False).encode()
        broken = None
    except UnicodeEncodeError:
        # Half of a surrogate pair is legal JSON, but no text: nothing could store it.
        calls, broken = (), "not_json"
    return Reply(
        content=(completion.message.content or "").encode("utf-8", "replace").decode("utf-8"),
        tool_calls=calls,
        finish_reason=completion.finish_reason,
        broken=broken,
        retried=completion.retried,
        latency_ms=round(completion.seconds * 1000, 1),
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
    )


def classify_breakage(text: str) -> Breakage:
    """Say why a call could not be parsed, from what the model wrote."""
    try:
        value: object = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    except (ValueError, RecursionError):
        return "not_json"
    # A whole JSON value that still is no call: what should be an object is something else.
    return "not_json" if isinstance(value, dict) and not value else "arguments_not_object"
