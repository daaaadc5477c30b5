"""Operations ``deploy.list``, ``deploy.status`` and ``deploy.stop``: servers of this workspace, from their run directories."""

import os
import signal
from typing import Literal

import psutil

from pipeline.core.errors import InvalidInputError
from pipeline.core.jobs import stop_process_tree, wait_for_end
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.runs import Run, RunState, list_runs
from pipeline.inference.client import open_http
from pipeline.inference.endpoints import Endpoint, find_running, read_endpoint

_HEALTH_SECONDS = 3.0
_STOP_SECONDS = 10.0


class DeployListRequest(Request):
    """Which servers to list."""

    all: bool = False
    """Also those that have ended."""


class ServerRow(Part):
    """One server."""

    run_id: str
    """Name of its run directory."""
    state: RunState
    """`succeeded` is a server that was stopped in order, or a model handed to Ollama."""
    engine: Literal["embedded", "ollama"]
    """What computes."""
    base_url: str
    """OpenAI base URL."""
    models: list[str]
    """Names in requests."""


class DeployListResult(Result):
    """Servers, newest first."""

    servers: list[ServerRow]
    """Running ones; all of them when asked for."""


def list_servers(request: DeployListRequest) -> DeployListResult:
    """List the servers of this workspace, newest first."""
    rows = [_row(run, endpoint) for run in list_runs() if (endpoint := read_endpoint(run)) is not None]
    rows = [row for row in rows if request.all or row.state == "running"]
    return DeployListResult(
        servers=rows, next_step="" if rows else "llmops deploy serve --model models/task-agent"
    )


class DeployStatusRequest(Request):
    """Which server to ask."""

    run_id: str = ""
    """Run id or an unambiguous part of it; default is the newest running server."""


class DeployStatusResult(ServerRow, Result):
    """One server, asked just now."""

    healthy: bool
    """It answered."""
    num_restarts: int
    """How often its process died and was started again."""

    def is_negative(self) -> bool:
        """True when the server does not answer."""
        return not self.healthy


def check_server(request: DeployStatusRequest) -> DeployStatusResult:
    """Ask a server whether it answers.

    Raises:
        InvalidInputError: If there is no such server, or none is running.
    """
    run, endpoint = find_server(request.run_id)
    healthy = _answers(endpoint)
    step = f'llmops agent run "..." --base-url {endpoint.base_url} --model {endpoint.models[0]}'
    return DeployStatusResult(
        **_row(run, endpoint).model_dump(),
        healthy=healthy,
        num_restarts=endpoint.num_restarts,
        next_step=step if healthy else f"llmops jobs logs {run.id}",
    )


class DeployStopRequest(Request):
    """Which server to stop."""

    run_id: str = ""
    """Run id or an unambiguous part of it; default is the newest running server."""


class DeployStopResult(Result):
    """What became of it."""

    run_id: str
    """The server's run."""
    state: RunState
    """`succeeded` when it ended in order."""
    was_running: bool
    """False when there was nothing to stop."""


def stop_server(request: DeployStopRequest) -> DeployStopResult:
    """Stop a server of this workspace.

    Raises:
        InvalidInputError: If there is no such server, none is running, or it is Ollama's.
    """
    run, endpoint = find_server(request.run_id)
    if endpoint.engine == "ollama":
        raise InvalidInputError(
            "the model lives in Ollama, which is not ours to stop",
            hint=f"Run `ollama rm {endpoint.models[0]}`.",
        )
    was_running = run.state() == "running"
    if was_running:
        _terminate(run)
    return DeployStopResult(run_id=run.id, state=run.state(), was_running=was_running)


def _terminate(run: Run) -> None:
    process = psutil.Process(run.manifest()["pid"])
    if process.pid == os.getpid():
        raise InvalidInputError("a server cannot stop itself", hint="Stop it from another terminal.")
    # Only the supervisor gets the signal: it ends its child in order and writes the result.
    process.send_signal(signal.SIGTERM)
    wait_for_end(run, _STOP_SECONDS)
    if run.state() == "running":
        stop_process_tree(process)


def find_server(run_id: str) -> tuple[Run, Endpoint]:
    """Return the server of a run id, or the newest running one for an empty id.

    Raises:
        InvalidInputError: If there is no such server, or none is running.
    """
    if not run_id:
        found = find_running()
        if found is None:
            raise InvalidInputError("no server is running", hint="Run `llmops deploy serve` to start one.")
        return found
    run = Run.open(run_id)
    endpoint = read_endpoint(run)
    if endpoint is None:
        raise InvalidInputError(
            f"{run.id} is not a server that became ready", hint="Run `llmops deploy list --all`."
        )
    return run, endpoint


def _row(run: Run, endpoint: Endpoint) -> ServerRow:
    return ServerRow(
        run_id=run.id,
        state=run.state(),
        engine=endpoint.engine,
        base_url=endpoint.base_url,
        models=endpoint.models,
    )


def _answers(endpoint: Endpoint) -> bool:
    import httpx  # here, because it takes 0.15 s that the MCP server would pay at its start

    path = "/health" if endpoint.engine == "embedded" else "/api/version"
    url = endpoint.base_url.removesuffix("/v1") + path
    with open_http(url, api_key="", timeout_seconds=_HEALTH_SECONDS) as http:
        try:
            return http.get(url).is_success
        except httpx.TransportError:
            return False


DEPLOY_LIST = Operation(
    name="deploy.list", request=DeployListRequest, result=DeployListResult, run=list_servers, read_only=True
)
DEPLOY_STATUS = Operation(
    name="deploy.status",
    request=DeployStatusRequest,
    result=DeployStatusResult,
    run=check_server,
    read_only=True,
    positional=("run_id",),
)
DEPLOY_STOP = Operation(
    name="deploy.stop",
    request=DeployStopRequest,
    result=DeployStopResult,
    run=stop_server,
    positional=("run_id",),
)
