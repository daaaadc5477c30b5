"""Operation ``agent.web``: the task agent on a page of this machine, with its calls and the tasks in view.

Loopback only and without a login: it is for the person at this machine. The HTTP part is in ``web_app.py``.
"""

import sys
import threading
import time
from datetime import date

from pydantic import Field

from pipeline.agent.endpoint import open_endpoint
from pipeline.agent.run import open_store
from pipeline.core.extras import require
from pipeline.core.files import write_jsonl
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef
from pipeline.core.runs import Run
from pipeline.core.stopping import stop_on_signal


class AgentWebRequest(Request):
    """Whom to talk to, and where."""

    model: WorkspaceRef = "task-agent"
    """Model name on the server; when none is running, the model to start: a name below models/ or a path."""
    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """OpenAI-compatible server; default is a running `deploy serve`, else one for this page."""
    store: WorkspacePath = "tasks.db"
    """SQLite file of the tasks, or `:memory:`."""
    port: int = Field(default=8090, ge=0, le=65535)
    """Port on 127.0.0.1; 0 takes a free one."""
    today: date | None = None
    """Fixed date, to repeat a conversation; default is the real one."""
    max_turns: int = Field(default=8, ge=1, le=50)
    """Most model calls for one message."""


class AgentWebResult(Result):
    """What was served."""

    url: str
    """Where the page was."""
    num_messages: int
    """Messages that were answered."""
    served_seconds: float
    """How long it ran."""


def serve_agent_page(request: AgentWebRequest, run: Run) -> AgentWebResult:
    """Show the task agent on a local page, with its tool calls and the tasks live, until Ctrl-C.

    Raises:
        InvalidInputError: If there is no such model, or the port is taken.
        MissingDependencyError: If the agent or serve extra is not installed.
    """
    require("openai-agents", extra="agent")
    require("starlette", "uvicorn", extra="serve")
    from pipeline.agent.web_app import AgentPage, serve_page

    started = time.monotonic()
    with (
        stop_on_signal() as stop,
        open_store(request.store, request.today) as store,
        open_endpoint(request.base_url, request.model, store) as endpoint,
        AgentPage(endpoint.base_url, endpoint.model, store, max_turns=request.max_turns) as page,
        serve_page(page, request.port) as url,
    ):
        for warning in endpoint.warnings:
            _say(f"warning: {warning}")
        _say(f"Open {url} in a browser. Stop with Ctrl-C.")
        _wait(stop)
    write_jsonl(run.artifacts / "transcript.jsonl", [item.model_dump(mode="json") for item in page.items])
    return AgentWebResult(
        url=url,
        num_messages=page.num_answered,
        served_seconds=round(time.monotonic() - started, 3),
        warnings=endpoint.warnings,
    )


def _wait(stop: threading.Event) -> None:
    while not stop.wait(0.2):  # in short pieces: a signal handler runs only between them
        pass


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


AGENT_WEB = Operation(
    name="agent.web",
    request=AgentWebRequest,
    result=AgentWebResult,
    run=serve_agent_page,
    long_running=True,
    surfaces=("cli",),
)
