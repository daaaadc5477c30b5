"""Operation ``agent.run``: one message to the task agent, with everything it did in the result."""

import sys
from datetime import date

from pydantic import Field

from pipeline.agent.endpoint import open_endpoint
from pipeline.agent.tool_calls import ToolCaller, ask_on_terminal
from pipeline.agent.transcript import AgentTurn, TranscriptItem, describe_call
from pipeline.core.extras import require
from pipeline.core.files import write_jsonl
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path
from pipeline.core.runs import Run
from pipeline.task_api.store import TaskStore

IN_MEMORY = ":memory:"


class AgentRunRequest(Request):
    """What to ask, and of whom."""

    text: str = Field(min_length=1, max_length=20_000)
    """What you would say to the agent."""
    model: WorkspaceRef = "task-agent"
    """Model name on the server; when none is running, the model to start: a name below models/ or a path."""
    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """OpenAI-compatible server; default is a running `deploy serve`, else one for this call."""
    store: WorkspacePath = "tasks.db"
    """SQLite file of the tasks, or `:memory:`."""
    today: date | None = None
    """Fixed date, to repeat a conversation; default is the real one."""
    max_turns: int = Field(default=8, ge=1, le=50)
    """Most model calls."""
    allow_deletes: bool = False
    """Let it delete tasks unasked; else the terminal is asked, and without one the answer is no."""


class AgentRunResult(Result, AgentTurn):
    """What the agent did and said."""

    model: str
    """Model name."""
    base_url: str
    """Server that answered."""
    store: str
    """Where the tasks are."""


def run_agent(request: AgentRunRequest, run: Run) -> AgentRunResult:
    """Send one message to the task agent and return its tool calls and reply.

    Raises:
        InvalidInputError: If there is no such model.
        MissingDependencyError: If the agent extra is not installed, or the server does not answer.
        DoesNotFitError: If the message is longer than the model's context.
        OperationFailedError: If the agent does not come to an end.
    """
    require("openai-agents", extra="agent")
    with (
        open_store(request.store, request.today) as store,
        open_endpoint(request.base_url, request.model, store) as endpoint,
    ):
        from pipeline.agent.backends.openai_agents import TaskAgent

        consent = _agree if request.allow_deletes else ask_on_terminal
        tools = ToolCaller(store, on_call=_show_call, consent=consent)
        with TaskAgent(endpoint.base_url, endpoint.model, tools, max_turns=request.max_turns) as agent:
            try:
                turn = agent.ask(request.text)
            finally:  # also of a failure: the calls made before it have changed the tasks
                rows = [item.model_dump(mode="json") for item in agent.last_items]
                write_jsonl(run.artifacts / "transcript.jsonl", rows)
    return AgentRunResult(
        **turn.model_dump(),
        model=endpoint.model,
        base_url=endpoint.base_url,
        store=request.store,
        warnings=[*endpoint.warnings, *_list_refusals(turn)],
        next_step="llmops agent chat",
    )


def open_store(path: str, today: date | None) -> TaskStore:
    """Open the task store of a request."""
    return TaskStore(IN_MEMORY if path == IN_MEMORY else resolve_path(path), clock=today)


def _agree(question: str) -> bool:
    return True


def _list_refusals(turn: AgentTurn) -> list[str]:
    return [
        f"not done: {describe_call(item)}; pass --allow-deletes to let it delete"
        for item in turn.items
        if (item.result or {}).get("error") == "not_confirmed"
    ]


def _show_call(item: TranscriptItem) -> None:
    print(describe_call(item), file=sys.stderr, flush=True)  # noqa: T201


AGENT_RUN = Operation(
    name="agent.run",
    request=AgentRunRequest,
    result=AgentRunResult,
    run=run_agent,
    long_running=True,
    positional=("text",),
)
