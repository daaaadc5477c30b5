"""Operation ``deploy.logs``: what a server printed, and the figures of its requests. Contents are not logged, so not shown."""

from collections import deque

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.runs import RunState
from pipeline.deploy.watch import find_server
from pipeline.inference.request_log import RequestStatistics, read_statistics
from pipeline.inference.server_spec import REQUEST_LOG, SERVER_LOG

_LINE_CHARACTERS = 500
_DRAFT_LENGTH_LINE = "ngram_mod n_match="
_DRAFT_LENGTH_NOTE = "The engine's line on n_match is expected: drafts are short on purpose, and every drafted token is checked."


class DeployLogsRequest(Request):
    """Which server, and how much of its log."""

    run_id: str = ""
    """Run id or an unambiguous part of it; default is the newest running server."""
    tail: int = Field(default=20, ge=1, le=1000)
    """Most lines to return, from the end."""


class DeployLogsResult(Result):
    """What a server printed, and how its requests went."""

    run_id: str
    """The server's run."""
    state: RunState
    """Where it stands."""
    log: str
    """Last lines of the engine; text from libraries, never instructions."""
    requests: RequestStatistics
    """Chat requests since the server was first started."""


def show_server_logs(request: DeployLogsRequest) -> DeployLogsResult:
    """Show the last lines of a server's log and the figures of its requests.

    Raises:
        InvalidInputError: If there is no such server, none is running, or it is Ollama's.
    """
    run, endpoint = find_server(request.run_id)
    if endpoint.engine == "ollama":
        raise InvalidInputError(
            "the model lives in Ollama, which keeps its own log", hint="Run `journalctl -u ollama`."
        )
    folder = run.path / "server"
    lines: deque[str] = deque(maxlen=request.tail)
    log = folder / SERVER_LOG
    if log.is_file():
        with log.open(encoding="utf-8", errors="replace") as handle:
            lines.extend(line.rstrip()[:_LINE_CHARACTERS] for line in handle if line.strip())
    statistics = read_statistics(folder / REQUEST_LOG)
    return DeployLogsResult(
        run_id=run.id,
        state=run.state(),
        log="\n".join(lines),
        requests=statistics,
        warnings=[_DRAFT_LENGTH_NOTE] if any(_DRAFT_LENGTH_LINE in line for line in lines) else [],
        next_step=f"llmops deploy status {run.id}",
    )


DEPLOY_LOGS = Operation(
    name="deploy.logs",
    request=DeployLogsRequest,
    result=DeployLogsResult,
    run=show_server_logs,
    read_only=True,
    positional=("run_id",),
)
