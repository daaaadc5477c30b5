"""Cut stored conversations into turns to be predicted, each with the true history before it ("gold history").

A turn knows what the Task API would have done so far. It does not judge answers: see :mod:`pipeline.evals.scorers`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Example, Message, ToolCall
from pipeline.task_api.faults import execute
from pipeline.task_api.store import TaskStore

Kind = Literal["call", "ask", "talk", "reply"]
"""``call``: tools are called; ``ask`` and ``talk``: no call after a user message; ``reply``: text after a result."""

_HINT = "Write one with `llmops synth generate`; its rows show the format."


@dataclass(frozen=True, slots=True)
class Execution:
    """What calls did to a store."""

    results: list[dict[str, Any]]
    """One per call."""
    tasks: list[dict[str, Any]]
    """All tasks afterwards."""
    written_ids: set[int]
    """Tasks that were created, changed or deleted."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn of a conversation."""

    example: Example
    position: int
    """Index of the turn in ``example.messages``."""
    number: int
    """0 for the conversation's first assistant turn, then 1 ..."""
    kind: Kind

    @property
    def key(self) -> tuple[str, int]:
        """What identifies the turn in a case file."""
        return self.example.id, self.number

    @property
    def gold(self) -> Message:
        """The right answer."""
        return self.example.messages[self.position]

    @property
    def history(self) -> tuple[Message, ...]:
        """What the model sees."""
        return self.example.messages[: self.position]

    @property
    def exchange(self) -> tuple[Message, ...]:
        """The history from the last user message on."""
        last_user = max((i for i, m in enumerate(self.history) if m.role == "user"), default=0)
        return self.history[last_user:]

    @property
    def user_text(self) -> str:
        """The last user message."""
        return self.exchange[0].content or "" if self.exchange else ""

    @property
    def today(self) -> date:
        """The simulated day."""
        return date.fromisoformat(self.example.today)

    @property
    def digest(self) -> str:
        """Changes when what is asked or expected changes."""
        shown = [m.to_openai() for m in (*self.history, self.gold)]
        text = json.dumps([shown, self.example.initial_state, self.example.tags], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def execute(self, calls: Iterable[ToolCall]) -> Execution:
        """Run calls on the state before this turn."""
        with TaskStore.from_state(self.example.initial_state, self.today) as store:
            # Replayed from the start: a store made from a later snapshot would reuse the ids of deleted tasks.
            for message in self.history:
                for call in message.tool_calls:
                    execute(store, call, self.example.faults)
            num_before = len(store.write_log)
            results = [store.call(call.name, call.arguments) for call in calls]
            written = {task_id for _, task_id in store.write_log[num_before:]}
            return Execution(results=results, tasks=store.snapshot(), written_ids=written)


def cut_turns(example: Example) -> list[Turn]:
    """Return the assistant turns of a conversation."""
    positions = [i for i, message in enumerate(example.messages) if message.role == "assistant"]
    return [
        Turn(example, position, number, _kind(example, position)) for number, position in enumerate(positions)
    ]


def _kind(example: Example, position: int) -> Kind:
    gold, before = example.messages[position], example.messages[position - 1]
    if gold.tool_calls:
        return "call"
    if before.role == "tool":
        return "reply"
    is_about_asking = "ask" in example.tags or example.tags.get("kind") == "ask"
    return "ask" if is_about_asking and "?" in (gold.content or "") else "talk"


def read_cases(path: Path) -> list[Example]:
    """Read a case file.

    Raises:
        InvalidInputError: If it is missing or empty, a line is not a case, an id occurs twice, or a tool set is unknown.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read cases from {path}: {error}", hint=_HINT) from error
    cases: dict[str, Example] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        case = _parse_case(line, f"{path.name}:{number}")
        if case.id in cases:
            raise InvalidInputError(
                f"{path.name}:{number}: id {case.id!r} occurs twice", hint="Give each case its own."
            )
        cases[case.id] = case
    if not any(cut_turns(case) for case in cases.values()):
        raise InvalidInputError(f"{path} holds no case with an assistant turn", hint=_HINT)
    return list(cases.values())


def _parse_case(line: str, place: str) -> Example:
    try:
        case = Example.from_row(json.loads(line))
        date.fromisoformat(case.today)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:  # any JSON may stand there
        reason = _first_reason(error)
        raise InvalidInputError(f"{place} is not a case: {reason}", hint=_HINT, place=place) from error
    if case.tool_set != "task_api":
        raise InvalidInputError(
            f"{place}: unknown tool set {case.tool_set!r}",
            hint="Only 'task_api' can be evaluated.",
            place=place,
        )
    return case


def _first_reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return f"{type(error).__name__}: {error}"
