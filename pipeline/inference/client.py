"""Chat with an OpenAI-compatible server: one reused connection, typed answers, failures in plain words.

Works with the embedded server, Ollama's ``/v1`` and the like. Synchronous; use one client per thread.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from pipeline.core.errors import (
    DoesNotFitError,
    InvalidInputError,
    MissingDependencyError,
    OperationFailedError,
)
from pipeline.core.messages import Message, Tool
from pipeline.core.settings import Settings
from pipeline.inference.chat_rules import CompletionBuilder
from pipeline.inference.server_spec import API_KEY_VARIABLE, is_loopback

if TYPE_CHECKING:  # imported where it is used: it takes 0.15 s that the MCP server would pay at its start
    import httpx

_CONNECT_SECONDS = 5.0
_CONNECT_ATTEMPTS = 4
_BACKOFF_SECONDS = 0.25
_UNAUTHORIZED, _NOT_FOUND = 401, 404


class UnparsableToolCallError(OperationFailedError):
    """The model began a tool call that no parser accepts; ``details["raw_text"]`` is what it wrote."""

    code = "unparsable_tool_call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer."""

    message: Message
    """What the assistant said or called."""
    finish_reason: str
    """``stop``, ``tool_calls`` or ``length``."""
    prompt_tokens: int
    """Tokens of the request."""
    cached_tokens: int
    """How many of them the server had already read."""
    completion_tokens: int
    """Tokens of the answer."""
    seconds: float
    """Wall time of the request, seen from here."""
    retried: bool
    """The server had to try a second time, warmer, because the first tool call could not be parsed."""


class ChatClient:
    """Client of one server and model; a context manager that closes the connection."""

    def __init__(
        self, base_url: str, model: str, *, api_key: str | None = None, timeout_seconds: float = 300.0
    ) -> None:
        """Connects at the first request.

        Args:
            base_url: Ends in ``/v1``.
            model: Name to ask for.
            api_key: Bearer key; default is the one of this environment.
            timeout_seconds: Longest silence of the server; waiting for a free slot counts.
        """
        self.base_url, self.model = base_url.rstrip("/"), model
        self._http = open_http(self.base_url, api_key=api_key, timeout_seconds=timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | dict[str, Any] | None = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
        extra: dict[str, Any] | None = None,
    ) -> Completion:
        """Ask for the next assistant turn.

        Args:
            messages: The conversation so far.
            tools: What may be called.
            tool_choice: ``auto``, ``required``, ``none`` or a named function; Ollama ignores it.
            max_tokens: Longest answer.
            temperature: 0 is greedy; always sent, because some servers default to 1.
            extra: More fields of the request body, such as ``response_format`` or ``seed``.

        Raises:
            MissingDependencyError: If the server cannot be reached or breaks off.
            InvalidInputError: If it has no such model or refuses the request.
            DoesNotFitError: If the conversation is longer than its context.
            UnparsableToolCallError: If the model's tool call cannot be parsed.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [message.to_openai() for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        body |= {"tools": list(tools)} if tools else {}
        body |= {"tool_choice": tool_choice} if tool_choice else {}
        started = time.monotonic()
        raw = self._request("POST", "/chat/completions", body | (extra or {}))
        return _parse_completion(raw, time.monotonic() - started)

    def chat(self, body: dict[str, Any], *, stream: bool = False) -> dict[str, Any]:
        """Send a request body as it is and return the answer as it came; a streamed one is put together.

        Raises:
            PipelineError: As :meth:`complete` does, except that calls which cannot be parsed are left to the caller.
        """
        body = {"model": self.model, **body}
        if not stream:
            return self._request("POST", "/chat/completions", body)
        builder = CompletionBuilder()
        for chunk in self._stream(
            "/chat/completions", body | {"stream": True, "stream_options": {"include_usage": True}}
        ):
            builder.add(chunk)
        return builder.build()

    def raw(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON to a path beside `/v1`, such as llama.cpp's /apply-template and /completion.

        Raises:
            InvalidInputError: If the server has no such path.
            MissingDependencyError: If it cannot be reached.
        """
        reply = send(self._http, "POST", self.base_url.removesuffix("/v1") + path, json=body)
        if not reply.is_success:
            raise self._explain(reply)
        return reply.json()

    def _stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._http.stream("POST", self.base_url + path, json=body) as reply:
            if not reply.is_success:
                reply.read()
                raise self._explain(reply)
            for line in reply.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk: dict[str, Any] = json.loads(line[6:])
                if "error" in chunk:
                    raise _explain_stream_error(chunk["error"])
                yield chunk

    def list_models(self) -> list[str]:
        """Return the model names the server has.

        Raises:
            MissingDependencyError: If the server cannot be reached.
        """
        return [str(entry["id"]) for entry in self._request("GET", "/models", None)["data"]]

    def _request(
        self, method: Literal["GET", "POST"], path: str, body: dict[str, Any] | None
    ) -> dict[str, Any]:
        reply = send(self._http, method, self.base_url + path, json=body)
        if not reply.is_success:
            raise self._explain(reply)
        try:
            answer = reply.json()
            answer["data" if body is None else "choices"][0]
        except (ValueError, LookupError, TypeError) as error:
            raise OperationFailedError(
                f"{self.base_url} does not answer like an OpenAI server",
                hint="Check the base URL; it ends in /v1.",
            ) from error
        return answer

    def _explain(self, reply: "httpx.Response") -> Exception:
        error = _error_object(reply)
        message = str(error.get("message", reply.reason_phrase))
        kind = f"{error.get('code', '')} {error.get('type', '')}"
        if "unparsable_tool_call" in kind:
            text = str(error.get("raw_text", ""))
            return UnparsableToolCallError(
                message, hint="Train the model on tool calls, or lower the temperature.", raw_text=text
            )
        if "context" in kind:
            return DoesNotFitError(
                message,
                hint="Shorten the conversation, or serve with a larger --context-length.",
                prompt_tokens=error.get("prompt_tokens") or error.get("n_prompt_tokens"),
                context_tokens=error.get("context_tokens") or error.get("n_ctx"),
            )
        if reply.status_code == _UNAUTHORIZED:
            return InvalidInputError(
                f"{self.base_url} wants a key", hint=f"Set {API_KEY_VARIABLE} to its key."
            )
        if reply.status_code == _NOT_FOUND and ("model" in kind or "model" in message):
            names = self.list_models()
            return InvalidInputError(
                f"{self.base_url} has no model {self.model!r}",
                hint=f"Use one of: {', '.join(names)}.",
                models=names,
            )
        hint = f"The server at {self.base_url} answered {reply.status_code}; see its log."
        if reply.is_client_error:
            return InvalidInputError(message, hint=hint, status=reply.status_code)
        return OperationFailedError(message, hint=hint, status=reply.status_code)


def _explain_stream_error(error: dict[str, Any]) -> OperationFailedError:
    message = str(error.get("message"))
    if "unparsable_tool_call" in f"{error.get('code', '')} {error.get('type', '')}":
        hint = "Train the model on tool calls, or lower the temperature."
        return UnparsableToolCallError(message, hint=hint, raw_text=str(error.get("raw_text", "")))
    return OperationFailedError(message, hint="The server broke off while it streamed; see its log.")


def open_http(base_url: str, *, api_key: str | None = None, timeout_seconds: float = 300.0) -> "httpx.Client":
    """Return an HTTP client with time-outs and our key (an empty one sends none); proxies do not catch loopback."""
    import httpx

    key = Settings.load().api_key if api_key is None else api_key
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
        trust_env=not is_loopback(urlsplit(base_url).hostname or ""),
    )


def send(http: "httpx.Client", method: str, url: str, **options: Any) -> "httpx.Response":
    """Send a request; a refused connection is tried again, because a restarting server is back within seconds.

    A request that had reached the server is never repeated.

    Raises:
        MissingDependencyError: If the server cannot be reached, breaks off, or stays silent too long.
        InvalidInputError: If the URL is not one.
    """
    import httpx

    for attempt in range(_CONNECT_ATTEMPTS):
        try:
            return http.request(method, url, **options)
        except httpx.ConnectError as error:
            if attempt == _CONNECT_ATTEMPTS - 1:
                raise _unreachable(url, "does not answer", error) from error
            time.sleep(_BACKOFF_SECONDS * 2**attempt)
        except httpx.TimeoutException as error:
            raise _unreachable(url, "was silent for too long", error) from error
        except httpx.TransportError as error:
            if isinstance(error, httpx.UnsupportedProtocol):
                raise InvalidInputError(f"not a URL: {url}", hint="Use http://HOST:PORT/v1.") from error
            raise _unreachable(url, "broke off in the middle of the request", error) from error
        except httpx.InvalidURL as error:
            raise InvalidInputError(f"not a URL: {url} ({error})", hint="Use http://HOST:PORT/v1.") from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _unreachable(url: str, what: str, error: "httpx.HTTPError") -> MissingDependencyError:
    parts = urlsplit(url)
    return MissingDependencyError(
        f"the server at {parts.scheme}://{parts.netloc} {what} ({type(error).__name__})",
        hint="Start one with `llmops deploy serve --model models/task-agent`; `llmops deploy status` checks it.",
        url=url,
    )


def _error_object(reply: "httpx.Response") -> dict[str, Any]:
    try:
        error: Any = reply.json().get("error", {})
    except (ValueError, AttributeError):
        return {"message": reply.text[:200]}
    return error if isinstance(error, dict) else {"message": str(error)}  # pyright: ignore[reportUnknownVariableType]


def _parse_completion(raw: dict[str, Any], seconds: float) -> Completion:
    choice: dict[str, Any] = raw["choices"][0]
    wire: dict[str, Any] = choice["message"]
    usage: dict[str, Any] = raw.get("usage") or {}
    details: dict[str, Any] = usage.get("prompt_tokens_details") or {}
    try:
        content = wire.get("content") or (None if wire.get("tool_calls") else "")
        message = Message.from_openai({**wire, "content": content})
    except (ValueError, KeyError, TypeError) as error:
        calls: list[dict[str, Any]] = wire.get("tool_calls") or []
        text = "\n".join(str(call.get("function", {}).get("arguments")) for call in calls)
        raise UnparsableToolCallError(
            f"the arguments of a tool call are not a JSON object (answer ended by {choice.get('finish_reason')})",
            hint="Raise max_tokens if the answer was cut; otherwise train the model on tool calls.",
            raw_text=text,
        ) from error
    return Completion(
        message=message,
        finish_reason=str(choice.get("finish_reason")),
        prompt_tokens=usage.get("prompt_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        seconds=seconds,
        retried=bool(raw.get("retried")),
    )
