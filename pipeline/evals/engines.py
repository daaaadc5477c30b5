"""Where answers come from: an OpenAI-compatible server, a replay file, or transformers in this process.

Each engine takes messages and tools in OpenAI form and returns an unparsed :class:`Answer`. Parsing and scoring happen
later and elsewhere. Ollama is reached through its OpenAI-compatible ``/v1``.
"""

import queue
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Tool
from pipeline.core.operation import Part
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path
from pipeline.core.settings import Settings
from pipeline.evals.answers import Answer, Decoding, read_replay
from pipeline.inference.call_grammar import build_call_grammar
from pipeline.inference.client import ChatClient, UnparsableToolCallError
from pipeline.inference.model_folder import find_servable
from pipeline.inference.server import start_server
from pipeline.inference.server_spec import AdapterSpec, ServerSpec

JsonMessage = dict[str, Any]
_OLLAMA = "ollama:"


class Engine(Protocol):
    """Answers questions; safe to call from several threads."""

    name: str
    """Model name for reports."""

    def ask(
        self, case_id: str, messages: Sequence[JsonMessage], tools: Sequence[Tool], how: Decoding
    ) -> Answer:
        """Return the answer to one question; ``digest`` and ``repeat`` are the caller's to fill."""
        ...


class Source(Part):
    """Which engine to open."""

    base_url: str | None = None
    """OpenAI-compatible server."""
    serve: WorkspaceRef | None = None
    """Model to serve for the duration, or `ollama:NAME`."""
    adapter: WorkspacePath | None = None
    """LoRA adapter (GGUF) to serve beside the base."""
    replay: WorkspacePath | None = None
    """Predictions file."""
    transformers: WorkspaceRef | None = None
    """Model folder to run with transformers."""
    model: str = ""
    """Name on the server."""
    concurrency: int = 2
    """Requests at the same time."""


class HttpEngine:
    """A server behind one client per concurrent request."""

    def __init__(self, name: str, clients: "queue.SimpleQueue[ChatClient]") -> None:
        self.name, self._clients = name, clients

    def ask(
        self, case_id: str, messages: Sequence[JsonMessage], tools: Sequence[Tool], how: Decoding
    ) -> Answer:
        """Ask the server; a call it cannot parse is an answer too."""
        client = self._clients.get()
        started = time.monotonic()
        try:
            found = _complete(client, messages, tools, how)
        except UnparsableToolCallError as error:
            text = str(error.details.get("raw_text") or "<tool_call>")
            found: dict[str, Any] = {"text": text, "finish_reason": "unparsable"}
        finally:
            self._clients.put(client)
        return Answer(id=case_id, latency_ms=round((time.monotonic() - started) * 1000, 1), **found)


class ReplayEngine:
    """Answers that were made before."""

    def __init__(self, path: Path) -> None:
        self.name, self._answers = path.stem, read_replay(path)

    def ask(
        self, case_id: str, messages: Sequence[JsonMessage], tools: Sequence[Tool], how: Decoding
    ) -> Answer:
        """Return the stored answer, or an empty one, which scores as no output."""
        return self._answers.get(case_id, Answer(id=case_id, text=""))


class LocalEngine:
    """A function from messages and tools to text, such as a transformers model."""

    def __init__(self, name: str, generate: Callable[..., tuple[str, int, int]]) -> None:
        self.name, self._generate = name, generate

    def ask(
        self, case_id: str, messages: Sequence[JsonMessage], tools: Sequence[Tool], how: Decoding
    ) -> Answer:
        """Generate the raw text."""
        if how.constrained:
            raise InvalidInputError(
                "transformers has no grammar here", hint="Serve the model, or leave out --constrained."
            )
        started = time.monotonic()
        text, num_prompt, num_made = self._generate(list(messages), list(tools), how.max_tokens)
        return Answer(
            id=case_id,
            text=text,
            finish_reason="length" if num_made >= how.max_tokens else "stop",
            latency_ms=round((time.monotonic() - started) * 1000, 1),
            prompt_tokens=num_prompt,
            completion_tokens=num_made,
        )


@contextmanager
def open_engine(source: Source) -> Generator[Engine]:
    """Yield the engine of a source; servers it starts and connections it opens end with the block.

    Raises:
        InvalidInputError: If not exactly one source is named, or the server has no such model.
        MissingDependencyError: If the server cannot be reached.
    """
    given = [name for name in ("base_url", "serve", "replay", "transformers") if getattr(source, name)]
    if len(given) != 1:
        raise InvalidInputError(
            f"answers come from one place, not from {', '.join(given) or 'none'}",
            hint="Give one of --base-url, --serve, --replay and --transformers.",
        )
    if source.replay is not None:
        yield ReplayEngine(resolve_path(source.replay))
        return
    if source.transformers is not None:
        from pipeline.evals.backends.transformers_chat import load_chat

        yield LocalEngine(source.model or source.transformers, load_chat(source.transformers))
        return
    with open_url(source) as url, open_clients(url, source) as (model, clients):
        yield HttpEngine(model, clients)


@contextmanager
def open_url(source: Source) -> Generator[str]:
    """Yield the base URL to ask, of a server started for the duration when ``serve`` names a model."""
    if source.serve is None:
        url = (source.base_url or "").rstrip("/")
        yield url if url.count("/") > 2 else url + "/v1"
        return
    if source.serve.startswith(_OLLAMA):
        yield Settings.load().ollama_url + "/v1"
        return
    found = find_servable(source.serve)
    adapters = (AdapterSpec(name="adapter", path=source.adapter),) if source.adapter else ()
    spec = ServerSpec(
        model_path=str(found.path),
        name=found.name,
        adapters=adapters,
        num_slots=source.concurrency,
        expose_raw=True,
    )
    with start_server(spec) as handle:
        yield handle.base_url


@contextmanager
def open_clients(url: str, source: Source) -> Generator[tuple[str, "queue.SimpleQueue[ChatClient]"]]:
    """Yield the model name and one client per concurrent request, after a check that the server has the model."""
    wanted = source.model or (source.serve or "").removeprefix(_OLLAMA) * (source.serve or "").startswith(
        _OLLAMA
    )
    with ChatClient(url, wanted) as scout:
        names = scout.list_models()
    model = wanted or (names[0] if names else "")
    if not {model, f"{model}:latest"} & set(names):
        raise InvalidInputError(
            f"{url} has no model {model!r}", hint=f"Use one of: {', '.join(names)}.", models=names
        )
    clients: queue.SimpleQueue[ChatClient] = queue.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(source.concurrency):
            clients.put(stack.enter_context(ChatClient(url, model)))
        yield model, clients


def _complete(
    client: ChatClient, messages: Sequence[JsonMessage], tools: Sequence[Tool], how: Decoding
) -> dict[str, Any]:
    if how.constrained:
        return _complete_constrained(client, messages, tools, how)
    body: dict[str, Any] = {
        "messages": list(messages),
        "max_tokens": how.max_tokens,
        "temperature": how.temperature,
        "seed": how.seed,
    }
    raw = client.chat(body | ({"tools": list(tools)} if tools else {}), stream=how.stream)
    choice: dict[str, Any] = raw["choices"][0]
    usage: Mapping[str, Any] = raw.get("usage") or {}
    return {
        "message": _clean(choice.get("message") or {}),
        "finish_reason": choice.get("finish_reason"),
        "retried": bool(raw.get("retried")),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
    }


def _complete_constrained(
    client: ChatClient, messages: Sequence[JsonMessage], tools: Sequence[Tool], how: Decoding
) -> dict[str, Any]:
    """Generate from the very prompt of the free run, under a grammar: llama.cpp servers only."""
    try:
        prompt = client.raw("/apply-template", {"messages": list(messages), "tools": list(tools)})["prompt"]
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{client.base_url} cannot decode under a grammar",
            hint="Use --serve, or a llama.cpp server that offers /apply-template and /completion.",
        ) from error
    raw = client.raw(
        "/completion",
        {
            "prompt": prompt,
            "grammar": build_call_grammar(tools),
            "n_predict": how.max_tokens,
            "temperature": how.temperature,
            "seed": how.seed,
        },
    )
    return {
        "text": str(raw.get("content", "")),
        "finish_reason": "length" if raw.get("stop_type") == "limit" else "stop",
        "prompt_tokens": raw.get("tokens_evaluated"),
        "completion_tokens": raw.get("tokens_predicted"),
    }


def _clean(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message that can be stored: half of a surrogate pair is legal JSON, but no text."""
    kept = {key: message[key] for key in ("role", "content", "tool_calls") if key in message}
    return _replace_surrogates(kept)


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {key: _replace_surrogates(part) for key, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_replace_surrogates(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    return value
