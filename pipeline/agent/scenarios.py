"""Operation ``agent.scenarios``: does the agent keep its head when something goes wrong? Seven situations, executed.

Starts the model itself, under supervision, because one situation kills the server. What counts is in ``situations.py``.
"""

import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.agent.situations import SITUATIONS, TODAY, FailingStore, Outcome, Played, Situation
from pipeline.agent.tool_calls import ToolCaller
from pipeline.agent.transcript import TranscriptItem
from pipeline.core.errors import InvalidInputError, OperationFailedError, PipelineError
from pipeline.core.extras import require
from pipeline.core.files import write_jsonl
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.inference.model_folder import find_servable
from pipeline.inference.server import ServerHandle, supervise
from pipeline.inference.server_spec import ServerSpec, WarmUp
from pipeline.task_api.tools import load_tools, system_prompt

if TYPE_CHECKING:
    from pipeline.agent.backends.openai_agents import TaskAgent

_START_SECONDS = 300.0
_RECOVERY_SECONDS = 5.0  # issue 8: the next request works within 5 s


class AgentScenariosRequest(Request):
    """Which model, in which situations."""

    model: WorkspaceRef = "models/task-agent"
    """Model folder or GGUF file."""
    names: tuple[str, ...] = ()
    """Situations to play; default is all."""


class ScenarioVerdict(Part):
    """One situation."""

    name: str
    """Its name."""
    about: str
    """What goes wrong in it."""
    passed: bool
    """The agent kept its head."""
    reason: str
    """What was missing; empty when it passed."""
    num_calls: int
    """Tool calls."""
    reply: str
    """The last reply, at most 300 characters."""
    seconds_after_restart: float | None = None
    """From the kill of the server to the next answer."""


class AgentScenariosResult(Result):
    """How the agent did."""

    model: str
    """Model name."""
    num_passed: int
    """Situations passed."""
    num_scenarios: int
    """Situations played."""
    scenarios: list[ScenarioVerdict]
    """One by one."""

    def is_negative(self) -> bool:
        """Some situation was not passed."""
        return self.num_passed < self.num_scenarios


def play_scenarios(request: AgentScenariosRequest, run: Run) -> AgentScenariosResult:
    """Put the agent into situations that go wrong, and judge calls, tasks and replies.

    Raises:
        InvalidInputError: If there is no such model or situation.
        OperationFailedError: If the server does not start.
        MissingDependencyError: If the agent or serve extra is not installed.
    """
    require("openai-agents", extra="agent")
    wanted = _choose(request.names)
    model = find_servable(request.model)
    warm_up = WarmUp(
        messages=({"role": "system", "content": system_prompt(TODAY)},), tools=tuple(load_tools())
    )
    spec = ServerSpec(model_path=str(model.path), name=model.name, warm_up=warm_up)
    played: list[Played] = []
    with (
        _supervised(spec, run) as server,
        Progress("situations", len(wanted), unit="situations", run=run) as progress,
    ):
        for situation in wanted:
            played.append(_play(situation, server, model.name))
            progress.advance(1)
    rows = [
        {"name": p.situation.name, "item": item.model_dump(mode="json")}
        for p in played
        for item in p.outcome.items
    ]
    write_jsonl(run.artifacts / "transcripts.jsonl", rows)
    verdicts = [_describe(one) for one in played]
    return AgentScenariosResult(
        model=model.name,
        num_passed=sum(verdict.passed for verdict in verdicts),
        num_scenarios=len(verdicts),
        scenarios=verdicts,
        warnings=model.warnings,
        next_step="Add rows for what failed and train again; `llmops agent chat` to look closer.",
    )


def _choose(names: Sequence[str]) -> list[Situation]:
    known = {situation.name: situation for situation in SITUATIONS}
    if unknown := sorted(set(names) - known.keys()):
        raise InvalidInputError(f"unknown situations {unknown}", hint=f"Choose from {', '.join(known)}.")
    return [known[name] for name in names] if names else list(SITUATIONS)


class _Server:
    """A supervised server: where it is, and how to kill it."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.handle: ServerHandle | None = None
        self.error: BaseException | None = None

    def on_ready(self, handle: ServerHandle, num_restarts: int) -> None:
        self.handle = handle
        self.ready.set()

    def wait(self) -> ServerHandle:
        if not self.ready.wait(_START_SECONDS) or self.handle is None:
            raise self.error or OperationFailedError(
                "the server did not start", hint="See the run's server.log."
            )
        return self.handle

    def kill(self) -> None:
        """Kill the server without a word; the supervisor starts it again."""
        handle = self.wait()
        self.ready.clear()
        os.kill(handle.pid, signal.SIGKILL)


@contextmanager
def _supervised(spec: ServerSpec, run: Run) -> Generator[_Server]:
    stop, server = threading.Event(), _Server()

    def keep() -> None:
        try:
            supervise(spec, run.path / "server", stop, server.on_ready)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            server.error = error
            server.ready.set()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        server.wait()
        yield server
    finally:
        stop.set()
        thread.join(timeout=30)


def _play(situation: Situation, server: _Server, model: str) -> Played:
    from pipeline.agent.backends.openai_agents import TaskAgent

    items: list[TranscriptItem] = []
    seconds: float | None = None
    with FailingStore.from_state(situation.tasks, TODAY) as store:
        store.num_timeouts = situation.num_timeouts
        with TaskAgent(server.wait().base_url, model, ToolCaller(store)) as agent:
            for index, message in enumerate(situation.messages):
                started = time.monotonic()
                if index == 1 and situation.event == "restart_server":
                    server.kill()
                    seconds = _ask_until_answered(agent, message, items, started)
                else:
                    _ask(agent, message, items)
        outcome = Outcome(items=tuple(items), tasks=store.snapshot())
    missing = situation.judge(outcome)
    if seconds is not None and seconds > _RECOVERY_SECONDS and not missing:
        missing = f"the next request took {seconds:.1f} s after the kill"
    return Played(situation, outcome, missing, seconds)


def _ask(agent: "TaskAgent", message: str, items: list[TranscriptItem]) -> bool:
    """Send a message; a failure is part of the conversation."""
    try:
        items.extend(agent.ask(message).items)
    except PipelineError as error:
        items.append(TranscriptItem(role="user", text=message))
        items.append(TranscriptItem(role="assistant", text=f"(failed: {error})"))
        return False
    return True


def _ask_until_answered(
    agent: "TaskAgent", message: str, items: list[TranscriptItem], started: float
) -> float:
    """Send a message again and again, as a person would, until the server is back; return the seconds."""
    while not _ask(agent, message, items):
        if time.monotonic() - started > _START_SECONDS:
            break
        time.sleep(0.2)
    return round(time.monotonic() - started, 2)


def _describe(played: Played) -> ScenarioVerdict:
    return ScenarioVerdict(
        name=played.situation.name,
        about=played.situation.about,
        passed=not played.missing,
        reason=played.missing,
        num_calls=len(played.outcome.calls),
        reply=played.outcome.reply[:300],
        seconds_after_restart=played.seconds_after_restart,
    )


AGENT_SCENARIOS = Operation(
    name="agent.scenarios",
    request=AgentScenariosRequest,
    result=AgentScenariosResult,
    run=play_scenarios,
    long_running=True,
    positional=("model",),
)
