"""Operation ``agent.chat``: talk to the task agent in a terminal, or feed it lines through a pipe.

The conversation is shown on stderr, so that stdout stays one JSON result.
"""

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.agent.endpoint import AgentEndpoint, open_endpoint
from pipeline.agent.run import IN_MEMORY, open_store
from pipeline.agent.tool_calls import ToolCaller, is_yes
from pipeline.agent.transcript import TranscriptItem, describe_call
from pipeline.core.errors import MissingDependencyError, PipelineError
from pipeline.core.extras import require
from pipeline.core.files import write_jsonl
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.core.units import format_seconds
from pipeline.task_api.store import TaskStore

if TYPE_CHECKING:
    from pipeline.agent.backends.openai_agents import TaskAgent

_HELP = (
    "/tasks shows the tasks, /reset begins a new conversation, /quit ends; anything else goes to the agent."
)


class AgentChatRequest(Request):
    """Whom to talk to."""

    model: WorkspaceRef = "task-agent"
    """Model name on the server; when none is running, the model to start: a name below models/ or a path."""
    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """OpenAI-compatible server; default is a running `deploy serve`, else one for this conversation."""
    store: WorkspacePath = "tasks.db"
    """SQLite file of the tasks, or `:memory:`."""
    session: str | None = Field(default=None, pattern=r"^[\w.-]{1,64}$")
    """Name of a conversation to keep and to continue next time; default is a fresh one."""
    today: date | None = None
    """Fixed date, to repeat a conversation; default is the real one."""
    max_turns: int = Field(default=8, ge=1, le=50)
    """Most model calls for one message."""


class AgentChatResult(Result):
    """What was said and done."""

    items: tuple[TranscriptItem, ...]
    """The conversation; of a message that failed, the calls it had made."""
    num_messages: int
    """Messages that were answered."""
    num_failures: int
    """Messages that ended in an error."""
    store: str
    """Where the tasks are."""


def chat_with_agent(request: AgentChatRequest, run: Run) -> AgentChatResult:
    """Talk to the task agent, line by line, until /quit or the end of input.

    Raises:
        InvalidInputError: If there is no such model.
        MissingDependencyError: If the agent extra is not installed, or the server goes away.
    """
    require("openai-agents", extra="agent")
    with (
        open_store(request.store, request.today) as store,
        open_endpoint(request.base_url, request.model, store) as endpoint,
    ):
        conversation = _Conversation(request, endpoint, store)
        try:
            conversation.run()
        except KeyboardInterrupt:
            conversation.console.print("\n(interrupted)", style="dim")
        finally:
            rows = [item.model_dump(mode="json") for item in conversation.items]
            write_jsonl(run.artifacts / "transcript.jsonl", rows)
    return AgentChatResult(
        items=tuple(conversation.items),
        num_messages=conversation.num_answered,
        num_failures=conversation.num_failures,
        store=request.store,
        warnings=endpoint.warnings,
    )


class _Conversation:
    """The loop: read a line, do it, show it."""

    def __init__(self, request: AgentChatRequest, endpoint: AgentEndpoint, store: TaskStore) -> None:
        self._request, self._endpoint, self._store = request, endpoint, store
        from rich.console import Console

        self.console = Console(
            stderr=True, highlight=False, markup=False, emoji=False
        )  # what is shown is data, not markup
        self.items: list[TranscriptItem] = []
        self.num_answered = self.num_failures = 0
        self._in_reply = False

    def run(self) -> None:
        from pipeline.agent.backends.openai_agents import TaskAgent

        for warning in self._endpoint.warnings:
            self.console.print(f"warning: {warning}", style="yellow")
        self.console.print(f"{self._endpoint.model} on {self._endpoint.base_url}. {_HELP}", style="dim")
        with TaskAgent(
            self._endpoint.base_url,
            self._endpoint.model,
            ToolCaller(self._store, on_call=self._show_call, consent=self._ask_consent),
            max_turns=self._request.max_turns,
            session_path=_session_path(self._request.session),
            session_name=self._request.session or "chat",
        ) as agent:
            while (line := self._read_line()) is not None:
                if line == "/reset":
                    agent.reset()
                    self.console.print("A new conversation; the tasks are still there.", style="dim")
                elif line == "/tasks":
                    self._show_tasks()
                elif line.startswith("/"):
                    self.console.print(_HELP, style="dim")
                elif line:
                    self._ask(agent, line)

    def _read_line(self, prompt: str = "you> ") -> str | None:
        """Return the next line, or None at the end."""
        try:
            line = input(prompt).strip() if sys.stdin.isatty() else next(sys.stdin).strip()
        except (EOFError, StopIteration):
            return None
        if not sys.stdin.isatty():
            self.console.print(f"{prompt}{line}")
        return None if line in {"/quit", "/exit"} else line

    def _ask(self, agent: "TaskAgent", line: str) -> None:
        try:
            turn = agent.ask(line, self._show_text)
        except MissingDependencyError:
            raise  # without a server there is nothing left to talk to
        except PipelineError as error:
            self.num_failures += 1
            self._end_reply()
            self.console.print(f"error: {error} {error.hint}", style="red")
            return
        finally:  # the calls of a message that failed have changed the tasks too
            self.items.extend(agent.last_items)
        self.num_answered += 1
        self._end_reply()
        tokens = f"{turn.input_tokens} + {turn.output_tokens} tokens"
        self.console.print(f"       {format_seconds(turn.seconds)}, {tokens}", style="dim")

    def _show_text(self, text: str) -> None:
        if not self._in_reply:
            self.console.print("agent> ", style="bold", end="")
        self._in_reply = True
        self.console.print(text, style="bold", end="", soft_wrap=True)

    def _end_reply(self) -> None:
        if self._in_reply:
            self.console.print()
        self._in_reply = False

    def _ask_consent(self, question: str) -> bool:
        self._end_reply()
        return is_yes(self._read_line(f"  {question} [y/N] "))

    def _show_call(self, item: TranscriptItem) -> None:
        self._end_reply()
        failed = "error" in (item.result or {})
        self.console.print(f"  tool> {describe_call(item)}", style="yellow" if failed else "cyan")

    def _show_tasks(self) -> None:
        listed = self._store.list_tasks()
        for task in listed["tasks"]:
            due = f", due {task['due_date']}" if task.get("due_date") else ""
            self.console.print(
                f"  {task['id']:>4}  {task['title']}  ({task['status']}, {task['priority']}{due})"
            )
        self.console.print(f"  {listed['total']} tasks in {self._request.store}", style="dim")


def _session_path(session: str | None) -> str:
    if session is None:
        return IN_MEMORY
    folder: Path = Settings.load().runs_dir
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / "agent-sessions.db")


AGENT_CHAT = Operation(
    name="agent.chat",
    request=AgentChatRequest,
    result=AgentChatResult,
    run=chat_with_agent,
    long_running=True,
    surfaces=("cli",),
)
