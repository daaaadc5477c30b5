"""llama.cpp's view of a GGUF: a short-lived embedded server and the raw questions the gate asks it."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import OperationFailedError
from pipeline.core.settings import Settings
from pipeline.inference.server import start_server
from pipeline.inference.server_spec import ServerSpec

if TYPE_CHECKING:
    import httpx

_TIMEOUT_SECONDS = 300.0
_TOP = 20
CONTEXT_TOKENS = 2048


class RefusedRequestError(OperationFailedError):
    """The server answered with an error, such as a tool call it could not parse: a finding, not a bug of ours."""


class GateServer:
    """Client of one running server; every question may raise :class:`RefusedRequestError`."""

    def __init__(self, client: "httpx.Client", model: str) -> None:
        self._client, self._model = client, model

    def props(self) -> dict[str, Any]:
        """Return what the engine read from the file: template, special tokens, capabilities."""
        return _accepted(self._client.get("/props")).json()

    def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        """Return the prompt text the engine makes of these messages."""
        body = {"messages": messages} | ({"tools": tools} if tools else {})
        return self._post("/apply-template", body)["prompt"]

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids the engine reads for a prompt, including any it adds by itself."""
        return self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})[
            "tokens"
        ]

    def reply(self, prompt_ids: list[int], max_tokens: int) -> dict[str, Any]:
        """Return the greedy continuation: ``tokens``, ``stop_type``, ``content``."""
        body = {"prompt": prompt_ids, "n_predict": max_tokens, "samplers": ["top_k"], "top_k": 1}
        return self._post(
            "/completion", {**body, "temperature": 0, "return_tokens": True, "cache_prompt": True}
        )

    def next_logprobs(self, prompt_ids: list[int]) -> dict[int, float]:
        """Return the log-probabilities of the 20 likeliest next tokens.

        Empty when the likeliest one is a part of a character: the engine then reports nothing for it.
        """
        body = {
            "prompt": prompt_ids,
            "n_predict": 1,
            "temperature": -1,
            "n_probs": _TOP,
            "cache_prompt": True,
        }
        reported: list[dict[str, Any]] = self._post("/completion", body).get("completion_probabilities") or [
            {"top_logprobs": []}
        ]
        return {item["id"]: item["logprob"] for item in reported[0]["top_logprobs"]}

    def chat(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, **extra: Any
    ) -> dict[str, Any]:
        """Return the first choice of a chat completion at temperature 0."""
        body = self._chat_body(messages, tools, extra)
        return self._post("/v1/chat/completions", body)["choices"][0]

    def chat_streamed(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, **extra: Any
    ) -> dict[str, Any]:
        """Return the same as :meth:`chat`, put together from the streamed pieces."""
        body = self._chat_body(messages, tools, extra) | {"stream": True}
        message: dict[str, Any] = {"content": "", "tool_calls": []}
        finish: str | None = None
        with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.is_error:
                response.read()  # a stream has no text before
            for line in _accepted(response).iter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: ")).get("choices", []):
                        _add_delta(message, choice["delta"])
                        finish = choice.get("finish_reason") or finish
        return {"message": message, "finish_reason": finish}

    def _chat_body(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, extra: dict[str, Any]
    ) -> dict[str, Any]:
        body = {"model": self._model, "messages": messages, "temperature": 0, **extra}
        return body | ({"tools": tools} if tools else {})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _accepted(self._client.post(path, json=body)).json()


@contextmanager
def open_server(
    gguf: Path, *, exact: bool, num_slots: int = 1, context_tokens: int = CONTEXT_TOKENS
) -> Generator[GateServer]:
    """Serve a file on a free loopback port while the block runs; ``exact`` uses a 32-bit cache.

    Raises:
        IntegrityError: If the file cannot be loaded.
    """
    import httpx

    spec = ServerSpec(
        model_path=str(gguf),
        name=gguf.stem,
        context_length=context_tokens,
        num_slots=num_slots,
        expose_raw=True,
        exact_numerics=exact,
    )
    key = Settings.load().api_key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with (
        start_server(spec) as handle,
        httpx.Client(base_url=handle.root_url, headers=headers, timeout=_TIMEOUT_SECONDS) as client,
    ):
        yield GateServer(client, gguf.stem)


def _accepted(response: "httpx.Response") -> "httpx.Response":
    if response.is_error:
        raise RefusedRequestError(
            f"the server answered {response.status_code}: {_reason(response.text)[:300]}",
            hint="Run `llmops export verify` again; if it stays, train or convert the model again.",
        )
    return response


def _reason(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    message["content"] += delta.get("content") or ""
    pieces: list[dict[str, Any]] = delta.get("tool_calls") or []
    for piece in pieces:
        while len(message["tool_calls"]) <= piece["index"]:
            message["tool_calls"].append({"function": {"name": "", "arguments": ""}})
        function = message["tool_calls"][piece["index"]]["function"]
        for key in ("name", "arguments"):
            function[key] += piece.get("function", {}).get(key) or ""
