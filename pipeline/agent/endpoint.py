"""Which server an agent talks to: the given one, a running one of this workspace, or one started for the occasion."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

from pipeline.core.units import format_seconds
from pipeline.inference.endpoints import find_running
from pipeline.inference.model_folder import find_servable
from pipeline.inference.server import start_server
from pipeline.inference.server_spec import ServerSpec, WarmUp
from pipeline.task_api.store import TaskStore
from pipeline.task_api.tools import load_tools, system_prompt


class AgentEndpoint(NamedTuple):
    """A server that is ready."""

    base_url: str
    """OpenAI base URL."""
    model: str
    """Model name there."""
    warnings: list[str]
    """What to know about the model."""


@contextmanager
def open_endpoint(base_url: str | None, model: str, store: TaskStore) -> Generator[AgentEndpoint]:
    """Yield a server for the agent; one that was started here is stopped at the end.

    Args:
        base_url: Server to use as it is; None looks for one.
        model: Model name; without a running server that has it, a reference to a model folder or GGUF.
        store: Gives the day for the prompt the server is warmed with.

    Raises:
        InvalidInputError: If no server has the model and no such model is on this machine.
        OperationFailedError: If the model has not passed its gate, or the server does not start.
    """
    if base_url is not None:
        yield AgentEndpoint(base_url, model, [])
        return
    running = find_running(model)
    if running is not None:
        yield AgentEndpoint(running[1].base_url, model, [])
        return
    found = find_servable(model)
    warm_up = WarmUp(
        messages=({"role": "system", "content": system_prompt(store.today())},), tools=tuple(load_tools())
    )
    _say(f"Starting {found.path} ... (`llmops deploy serve` keeps it running between commands)")
    with start_server(ServerSpec(model_path=str(found.path), name=found.name, warm_up=warm_up)) as handle:
        _say(f"Ready in {format_seconds(handle.ready_seconds)}")
        no_tools = [] if handle.supports_tools else [f"the chat template of {found.name} knows no tools"]
        yield AgentEndpoint(handle.base_url, found.name, [*found.warnings, *no_tools])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
