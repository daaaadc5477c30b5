"""A real HTTP server that answers from a script: for tests of what talks to a model, without a model."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

_CALL_NUMBERS = count()  # the Agents SDK refuses an id that it has seen


class ReceivedRequest(NamedTuple):
    """One request as it arrived."""

    method: str
    path: str
    body: Any
    """Parsed JSON, the bytes of an upload, or None."""
    headers: dict[str, str]
    """Header names in lower case."""


class ScriptedServer:
    """Answers requests in order with (status, body) pairs and repeats the last one; a context manager.

    A completion is streamed to a request that wants a stream; text is sent as it is. A body of None closes the
    connection without an answer. With ``respond``, a function answers instead.
    """

    def __init__(
        self, *answers: tuple[int, Any], respond: Callable[[ReceivedRequest], tuple[int, Any]] | None = None
    ) -> None:
        self._answers = list(answers)
        self._respond = respond
        self.requests: list[ReceivedRequest] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def _answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = ReceivedRequest(self.command, self.path, _parse(raw), headers)
                scripted.requests.append(received)
                status, body = scripted.next_answer(received)
                if body is None:
                    self.close_connection = True
                    return
                streams = status == 200 and _wants_stream(received.body)
                if not isinstance(body, str):
                    body = _to_events(body) if streams else json.dumps(body)
                content = body.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream" if streams else "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def base_url(self) -> str:
        """OpenAI base URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def next_answer(self, received: ReceivedRequest) -> tuple[int, Any]:
        """Return the answer to the next request."""
        if self._respond:
            return self._respond(received)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw


def _wants_stream(body: Any) -> bool:
    fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    return bool(fields.get("stream"))


def _to_events(whole: dict[str, Any]) -> str:
    """Return a completion as server-sent events: one a word, one a call, one with the end, one with the usage."""
    message: dict[str, Any] = whole["choices"][0]["message"]
    words = (message["content"] or "").split(" ")
    deltas: list[dict[str, Any]] = [
        {"content": word if i == 0 else f" {word}"} for i, word in enumerate(words)
    ]
    calls: list[dict[str, Any]] = message.get("tool_calls") or []
    deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in enumerate(calls)]
    end: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": whole["choices"][0]["finish_reason"]}
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    head: dict[str, Any] = {**whole, "object": "chat.completion.chunk", "usage": None}
    chunks: list[dict[str, Any]] = [{**head, "choices": [choice]} for choice in (*choices, end)]
    chunks.append({**head, "choices": [], "usage": whole["usage"]})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def completion(text: str | None = None, *calls: tuple[str, str]) -> dict[str, Any]:
    """Return a chat completion in OpenAI form; calls are (name, arguments as JSON text)."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{next(_CALL_NUMBERS)}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for name, arguments in calls
        ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "task-agent",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
