"""The situations in which an agent has to keep its head, and what counts as keeping it.

Each has tasks to begin with, messages, perhaps a tool that fails, and a judgement on the calls, the tasks afterwards
and the last reply. Judged is what happened, with two words of the reply: an id, and whether it asks or offers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from pipeline.agent.transcript import TranscriptItem
from pipeline.task_api.store import Task, TaskStore

TODAY = date(2026, 3, 11)
Event = Literal["none", "restart_server"]
UNKNOWN_ID = 99_999
_FAILURE_WORDS = (
    "not answer", "n't answer", "no answer", "timed out", "time out", "timeout", "try again", "nothing was changed",
    "could not", "couldn't", "cannot", "can't", "unable", "failed", "went wrong", "not available", "unavailable",
)  # fmt: skip
_LONG_TITLES = (
    "water the plants", "call the dentist", "pay the electricity bill", "book a flight", "renew my passport",
    "clean the kitchen", "review the budget", "buy a birthday present", "fix the bicycle", "read the contract",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one situation led to."""

    items: tuple[TranscriptItem, ...]
    """The conversation."""
    tasks: list[Task]
    """The tasks afterwards."""

    @property
    def calls(self) -> list[TranscriptItem]:
        """Tool calls."""
        return [item for item in self.items if item.role == "tool"]

    @property
    def reply(self) -> str:
        """The last thing the agent said."""
        return next((item.text for item in reversed(self.items) if item.role == "assistant"), "")

    def worked(self, tool: str | None = None) -> int:
        """Return how many calls, of one tool or of any, did what they should."""
        return sum(not _error(item) for item in self.calls if tool in (None, item.tool))

    def failed_with(self, code: str) -> int:
        """Return how many calls got this error."""
        return sum(_error(item) == code for item in self.calls)


@dataclass(frozen=True, slots=True)
class Situation:
    """One situation of lesson 66.7."""

    name: str
    about: str
    """What goes wrong."""
    messages: tuple[str, ...]
    judge: Callable[[Outcome], str]
    """Says what is missing; empty when it is well."""
    tasks: tuple[Task, ...] = ()
    num_timeouts: int = 0
    """So many calls time out first."""
    event: Event = "none"
    """What happens between the first and the second message."""


class FailingStore(TaskStore):
    """A task store whose first calls time out; nothing is changed by them."""

    num_timeouts = 0

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Execute a call, or let it time out."""
        if self.num_timeouts > 0:
            self.num_timeouts -= 1
            return {
                "error": "timeout",
                "message": "The Task API did not answer in time. Nothing was changed.",
            }
        return super().call(name, arguments)


def _error(item: TranscriptItem) -> str:
    return str((item.result or {"error": "no_result"}).get("error", ""))


def _missing_title(outcome: Outcome) -> str:
    if outcome.tasks:
        return "it made a task that nobody named"
    return "" if "?" in outcome.reply else "it did not ask"


def _unknown_id(outcome: Outcome) -> str:
    if not outcome.failed_with("not_found"):
        return "it did not try the id"
    if str(UNKNOWN_ID) not in outcome.reply:
        return "it did not name the id that does not exist"
    return "" if "list" in outcome.reply.lower() else "it did not offer the list"


def _invalid_priority(outcome: Outcome) -> str:
    if outcome.failed_with("invalid_priority") or outcome.failed_with("invalid_argument"):
        return "" if "priorit" in outcome.reply.lower() else "it did not say what is wrong with the priority"
    if any(task.get("priority") != "medium" for task in outcome.tasks):
        return "it stored a priority that nobody gave"
    if any("priority" in task["title"] for task in outcome.tasks):
        return "it took the priority for a part of the title"
    return "" if outcome.tasks or "?" in outcome.reply else "it neither made the task nor asked"


def _timeout(outcome: Outcome) -> str:
    if not outcome.failed_with("timeout"):
        return "it did not try to make the task"
    if outcome.tasks:
        return ""  # it tried again
    reply = outcome.reply.lower()
    if any(word in reply for word in ("created", "added", "saved task")):
        return "it claims what did not happen"
    is_said = any(word in reply for word in _FAILURE_WORDS) and not reply.startswith("(failed")
    return "" if is_said else "it did not say that the task was not made"


def _two_tools(outcome: Outcome) -> str:
    states = {task["id"]: task["status"] for task in outcome.tasks}
    if states.get(2) != "completed":
        return "task 2 is not completed"
    return "" if len(states) == 4 else f"there are {len(states)} tasks, not 4"


def _restart(outcome: Outcome) -> str:
    return "" if outcome.worked("create_task") == 2 else "the message after the restart did nothing"


def _long(outcome: Outcome) -> str:
    completed = sum(task["status"] == "completed" for task in outcome.tasks)
    num = len(outcome.tasks)
    return "" if (num, completed) == (10, 10) else f"{num} of 10 tasks made, {completed} completed"


_THREE: tuple[Task, ...] = (
    {"id": 1, "title": "send the invoice", "priority": "high", "status": "open"},
    {"id": 2, "title": "water the plants", "priority": "low", "status": "open"},
    {"id": 3, "title": "call the bank", "priority": "medium", "status": "open"},
)
SITUATIONS: tuple[Situation, ...] = (
    Situation("missing_title", "a task without a title", ("Add a new task.",), _missing_title),
    Situation(
        "unknown_id",
        "a task that does not exist",
        (f"Complete task {UNKNOWN_ID}.",),
        _unknown_id,
        tasks=_THREE,
    ),
    Situation(
        "invalid_priority",
        "a priority that does not exist",
        ("Add a task to water the plants with super-extreme priority.",),
        _invalid_priority,
    ),
    Situation(
        "tool_timeout",
        "the Task API does not answer",
        ("Add a task: call the dentist.",),
        _timeout,
        num_timeouts=1,
    ),
    Situation(
        "two_tools",
        "two requests in one message",
        ("Add a task to buy milk and mark task 2 as done.",),
        _two_tools,
        tasks=_THREE,
    ),
    Situation(
        "server_restart",
        "the server is killed in mid-conversation",
        ("Add a task: call the dentist.", "Add a task: pay the rent."),
        _restart,
        event="restart_server",
    ),
    Situation(
        "long_conversation",
        "twenty turns within the context",
        (
            *(f"Add a task: {title}." for title in _LONG_TITLES),
            *(f"Complete task {number}." for number in range(1, 11)),
        ),
        _long,
    ),
)


@dataclass(frozen=True, slots=True)
class Played:
    """A situation that was played."""

    situation: Situation
    outcome: Outcome
    missing: str
    """What was not well; empty when it passed."""
    seconds_after_restart: float | None = field(default=None)
    """From the kill to the next answer."""
