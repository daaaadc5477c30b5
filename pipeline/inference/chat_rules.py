"""What the gateway changes in a chat request and its answer: the parts of OpenAI's contract llama.cpp leaves out.

Pure functions and small accumulators; no network. llama.cpp ignores a named ``tool_choice``, lets prose precede a
required call, and ignores ``parallel_tool_calls: false`` for formats with one tag per call.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

Json = dict[str, Any]

CALL_TAG = "<tool_call>"
_CALL_START = CALL_TAG + '{"name": '
UNPARSABLE = "unparsable_tool_call"
_RETRY_TEMPERATURE = 0.4


class RequestError(Exception):
    """A request that ends with an error object in OpenAI's shape."""

    def __init__(self, status: int, message: str, code: str, **facts: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.facts = status, code, facts

    def to_openai(self) -> Json:
        """Return the response body."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "code": self.code, "param": None, **self.facts}}


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """One checked request: what the engine gets, and how its answer is changed."""

    model: str
    """Served name the answer carries."""
    body: Json
    """Request for the engine, always streaming: only a streamed request can be cancelled there."""
    stream: bool
    """The client wants server-sent events."""
    show_usage: bool
    """The client wants the usage chunk."""
    first_call_only: bool
    """``parallel_tool_calls`` is false."""

    def hotter(self) -> "ChatPlan":
        """Return the plan for a second try: greedy decoding would repeat the same text."""
        temperature = find_retry_temperature(self.body.get("temperature"))
        return replace(self, body={**self.body, "temperature": temperature})


def find_retry_temperature(temperature: float | None) -> float:
    """Return the temperature of a second try, never below that of the first."""
    return max(_RETRY_TEMPERATURE, temperature or 0.0)


class ChunkFilter:
    """Changes the chunks of one answer to what its client shall see."""

    def __init__(self, plan: ChatPlan) -> None:
        self._plan = plan
        self._dropped_a_call = False

    def change(self, chunk: Json) -> Json | None:
        """Return the chunk for the client, or None to drop it."""
        choices: list[Json] = chunk.get("choices") or []
        if chunk.pop("prompt_progress", None) and not any(_says_something(choice) for choice in choices):
            return None
        if not choices and self._plan.stream and not self._plan.show_usage:
            return None
        if self._plan.first_call_only and not all(self._keep_first_call(choice) for choice in choices):
            return None
        return {**chunk, "model": self._plan.model}

    def _keep_first_call(self, choice: Json) -> bool:
        calls: list[Json] = choice["delta"].get("tool_calls") or []
        kept = [call for call in calls if call["index"] == 0]
        if calls:
            self._dropped_a_call = self._dropped_a_call or len(kept) < len(calls)
            choice["delta"]["tool_calls"] = kept
        if choice.get("finish_reason") and self._dropped_a_call:
            choice["finish_reason"] = "tool_calls"  # the kept call is whole, whatever cut the dropped one
        return bool(kept) or not calls


def plan_chat(body: Any, models: list[str], template: str) -> ChatPlan:
    """Check a request body and turn it into a plan.

    Args:
        body: Parsed JSON of the request.
        models: Served names, the base model first; the others are adapters in order.
        template: The model's chat template; decides how a call can be forced.

    Raises:
        RequestError: With status 400 or 404, in words a caller can act on.
    """
    if not isinstance(body, dict):
        raise RequestError(400, "The request body must be a JSON object.", "invalid_body")
    request: Json = dict(body)  # pyright: ignore[reportUnknownArgumentType]
    model = _find_model(request.get("model"), models)
    _check_shape(request)
    request = _force_call(request, template)
    if len(models) > 1:
        request["lora"] = [{"id": i, "scale": float(name == model)} for i, name in enumerate(models[1:])]
    options: Json = request.get("stream_options") or {}
    return ChatPlan(
        model=model,
        body=request
        | {
            "model": models[0],
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,
        },
        stream=bool(request.get("stream")),
        show_usage=bool(options.get("include_usage")),
        first_call_only=request.get("parallel_tool_calls") is False,
    )


def _find_model(wanted: Any, models: list[str]) -> str:
    if wanted is None:
        return models[0]
    name = str(wanted).removesuffix(":latest")  # Ollama clients append it
    if name not in models:
        raise RequestError(
            404,
            f"There is no model {wanted!r} here; this server has {', '.join(models)}.",
            "model_not_found",
            models=models,
        )
    return name


def _check_shape(request: Json) -> None:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "'messages' must be a list with at least one message.", "invalid_messages")
    if request.get("n") not in (None, 1):
        raise RequestError(400, "This server gives one answer per request; leave out 'n'.", "unsupported")
    shape: Json = request.get("response_format") or {}
    if request.get("tools") and shape.get("type") in {"json_schema", "json_object"}:
        raise RequestError(
            400,
            "With 'response_format' no tool could ever be called; send either it or 'tools'.",
            "unsupported",
        )


def _force_call(request: Json, template: str) -> Json:
    choice: Any = request.get("tool_choice")
    if choice in (None, "auto", "none"):
        return request
    tools: list[Json] = request.get("tools") or []
    names = [_function_name(tool) for tool in tools]
    if not names:
        raise RequestError(400, "'tool_choice' asks for a call, but 'tools' is empty.", "invalid_tool_choice")
    if choice == "required":
        # A trailing assistant message is continued: after the tag the grammar admits nothing but a call.
        return _continue_from(request, CALL_TAG) if CALL_TAG in template else request
    name = _function_name(choice)
    if name not in names:
        raise RequestError(
            400, f"'tool_choice' names {name!r}; the tools are {', '.join(names)}.", "invalid_tool_choice"
        )
    request = {**request, "tool_choice": "required"}
    if _CALL_START in template and not any(other != name and other.startswith(name) for other in names):
        # The closing quote is left to the model: with it, llama.cpp's stream loses the first brace of the arguments.
        return _continue_from(request, _CALL_START + json.dumps(name)[:-1])
    return {**request, "tools": [tool for tool in tools if _function_name(tool) == name]}


def _function_name(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    whole: Json = entry  # pyright: ignore[reportUnknownVariableType]
    function: Json = whole.get("function") or whole
    return str(function.get("name"))


def _says_something(choice: Json) -> bool:
    delta: Json = choice["delta"]
    return bool(choice.get("finish_reason") or delta.get("content") or delta.get("tool_calls"))


def _continue_from(request: Json, text: str) -> Json:
    return {**request, "messages": [*request["messages"], {"role": "assistant", "content": text}]}


class CompletionBuilder:
    """Adds up stream chunks to the answer of a request that did not ask for a stream."""

    def __init__(self) -> None:
        self._head: Json = {}
        self._message: Json = {"role": "assistant", "content": ""}
        self._calls: dict[int, Json] = {}
        self._logprobs: list[Json] = []
        self.finish_reason: str | None = None
        self.usage: Json = {}
        self.timings: Json = {}

    def add(self, chunk: Json) -> None:
        """Take one chunk."""
        self._head = self._head or {key: chunk[key] for key in ("id", "created", "model") if key in chunk}
        self.usage = chunk.get("usage") or self.usage
        self.timings = chunk.get("timings") or self.timings
        for choice in chunk.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            logprobs: Json = choice.get("logprobs") or {}
            self._logprobs += logprobs.get("content") or []
            self._add_delta(choice["delta"])

    def _add_delta(self, delta: Json) -> None:
        for key in ("content", "reasoning_content"):
            if delta.get(key):
                self._message[key] = self._message.get(key, "") + delta[key]
        for part in delta.get("tool_calls") or ():
            call = self._calls.setdefault(
                part["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            )
            call["id"] = part.get("id") or call["id"]
            for key, text in part.get("function", {}).items():
                call["function"][key] += text

    def build(self) -> Json:
        """Return the ``chat.completion`` object."""
        message = dict(self._message)
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
            message["content"] = message["content"] or None
        choice: Json = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        if self._logprobs:
            choice["logprobs"] = {"content": self._logprobs}
        whole: Json = {**self._head, "object": "chat.completion", "choices": [choice], "usage": self.usage}
        return whole | ({"timings": self.timings} if self.timings else {})


def explain_engine_error(status: int, error: Json) -> RequestError:
    """Translate an error object of llama.cpp."""
    message = str(error.get("message", "unknown error"))
    if error.get("type") == "exceed_context_size_error":
        needed, held = error["n_prompt_tokens"], error["n_ctx"]
        return RequestError(
            400,
            f"The request has {needed} tokens; this server holds {held} per request. Shorten the conversation, or "
            "serve with a larger context_length.",
            "context_length_exceeded",
            prompt_tokens=needed,
            context_tokens=held,
        )
    if "does not match the expected" in message:
        return RequestError(500, "The model began a tool call that cannot be parsed.", UNPARSABLE)
    return RequestError(status, message, str(error.get("type", "engine_error")))
