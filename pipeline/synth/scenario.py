"""A conversation that is decided but not worded: who does what, in which state, and what each user turn has to say.

:func:`realise` puts somebody's words into it, executes every call and returns the finished row, or what to repair.
Arguments are what was typed: a title or date is taken from the user's own text, never from the plan.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

from pipeline.core.messages import Example, Message, ToolCall
from pipeline.core.operation import Part
from pipeline.synth.replies import Result, nothing_found, reply_to, several_found
from pipeline.task_api.faults import execute
from pipeline.task_api.store import Task, TaskStore
from pipeline.task_api.tools import system_prompt

VERBATIM = ("title", "noun", "due", "description", "search")
"""Mentions that must stand in the text word for word."""

CONTEXTS = {
    "": "",
    "created": "about the task that was created in the turn before, without naming it",
    "created_with_date": "about the task that was created with a due date in the turn before, without naming it",
    "correction": "corrects what was said in the turn before, as people do when they change their mind",
    "listed": "about the only task of the list that was just shown, without naming it",
}
"""Situations of a user turn, in plain words."""


class Need(Part):
    """What one user turn has to say."""

    bank: str
    """Kind of request, named after the phrase bank that words it."""
    mentions: dict[str, str] = {}
    """Slot -> what to name; titles, dates, notes and search words verbatim, numbers as digits."""
    implied: dict[str, str] = {}
    """What the words must make clear beyond that: action, status, what is left out ..."""
    prepositions: dict[str, list[str]] = {}
    """Slot of a date -> words that may stand before it."""
    context: str = ""
    """The situation in which it is said: a key of :data:`CONTEXTS`."""


class PlannedCall(Part):
    """One call that the assistant makes."""

    name: str
    """Tool."""
    arguments: dict[str, Any]
    """Arguments as planned."""
    fails: str = ""
    """Error code the Task API answers with; empty when it succeeds."""
    is_fault: bool = False
    """The failure is planned trouble of the Task API, not a consequence of the call."""


class Step(Part):
    """One user turn, one round of calls, or one reply."""

    need: Need | None = None
    """Of a user turn."""
    calls: list[PlannedCall] = []
    """Of a round of calls."""
    reply: Literal["", "report", "nothing_found", "several_found", "text"] = ""
    """How the assistant's text comes about."""
    text: str = ""
    """The assistant's text when it depends on no result."""


class Scenario(Part):
    """A decided conversation."""

    id: str
    """Unique in its set."""
    cell: dict[str, str]
    """Attributes and shape."""
    today: str
    """Simulated day."""
    initial_state: list[Task]
    """Tasks at the start."""
    steps: list[Step]
    """What happens, in order."""

    @property
    def needs(self) -> list[Need]:
        """The user turns."""
        return [step.need for step in self.steps if step.need]


class Repair(Part):
    """What is wrong with a wording."""

    kind: str
    """Name of the gate that it did not pass."""
    turn: int
    """User turn, from 1; 0 when it is about the whole."""
    problem: str
    """What is wrong and what would be right."""


class Realised(NamedTuple):
    """A finished row, or why there is none."""

    row: Example | None
    repairs: list[Repair]


def realise(scenario: Scenario, texts: Sequence[str], group: str, tags: Mapping[str, str]) -> Realised:
    """Put user texts into a scenario and execute it."""
    needs = scenario.needs
    if len(texts) != len(needs):
        problem = f"{len(needs)} user turns are wanted, {len(texts)} were given"
        return Realised(None, [Repair(kind="turns", turn=0, problem=problem)])
    typed: dict[str, str] = {}
    repairs: list[Repair] = []
    for number, (need, text) in enumerate(zip(needs, texts, strict=True), start=1):
        found, problems = find_mentions(need, text)
        typed |= found
        repairs += [Repair(kind="missing_mention", turn=number, problem=problem) for problem in problems]
    if repairs:
        return Realised(None, repairs)
    row, problem = _play(scenario, texts, typed, group, tags)
    return Realised(row, [Repair(kind="execution", turn=0, problem=problem)] if problem else [])


def find_mentions(need: Need, text: str) -> tuple[dict[str, str], list[str]]:
    """Return planned value -> what was typed, and what is missing from the text."""
    typed: dict[str, str] = {}
    problems: list[str] = []
    for slot, value in need.mentions.items():
        name = slot.rstrip("2")
        if name in VERBATIM:
            match = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) if value else None
            if match:
                typed[value] = match[0]
            elif value:
                problems.append(f"{name} {value!r} must stand in the text word for word")
        elif name == "id" and not re.search(rf"(?<!\d){value}(?!\d)", text):
            problems.append(f"the number {value} must be named")
    return typed, problems


def _play(
    scenario: Scenario, texts: Sequence[str], typed: Mapping[str, str], group: str, tags: Mapping[str, str]
) -> tuple[Example | None, str]:
    today = date.fromisoformat(scenario.today)
    messages = [Message(role="system", content=system_prompt(today))]
    faults: dict[str, str] = {}
    said = iter(texts)
    num_calls = 0
    made: list[ToolCall] = []
    results: list[Result] = []
    with TaskStore.from_state(scenario.initial_state, today) as store:
        for step in scenario.steps:
            if step.need:
                messages.append(Message(role="user", content=next(said)))
            elif step.reply:
                messages.append(Message(role="assistant", content=_reply(step, made, results)))
            else:
                made = []
                for planned in step.calls:
                    num_calls += 1
                    arguments = {k: _as_typed(v, typed) for k, v in planned.arguments.items()}
                    made.append(ToolCall(name=planned.name, arguments=arguments, id=f"call_{num_calls}"))
                    if planned.is_fault:
                        faults[f"call_{num_calls}"] = planned.fails
                messages.append(Message(role="assistant", tool_calls=tuple(made)))
                results = [execute(store, call, faults) for call in made]
                for call, planned, result in zip(made, step.calls, results, strict=True):
                    if result.get("error", "") != planned.fails:
                        return (
                            None,
                            f"{call.name} answers {json.dumps(result)}, planned was {planned.fails or 'success'}",
                        )
                    content = json.dumps(result, ensure_ascii=False)
                    messages.append(Message(role="tool", content=content, tool_call_id=call.id))
    row = Example(
        id=scenario.id,
        messages=tuple(messages),
        group=group,
        tags={**scenario.cell, **tags},
        today=scenario.today,
        initial_state=tuple(scenario.initial_state),
        faults=faults,
    )
    return row, ""


def _as_typed(value: Any, typed: Mapping[str, str]) -> Any:
    return typed.get(value, value) if isinstance(value, str) else value


def _reply(step: Step, calls: Sequence[ToolCall], results: Sequence[Result]) -> str:
    if step.reply == "report":
        return reply_to(calls, results)
    if step.reply == "nothing_found":
        return nothing_found(calls[0].arguments["search"])
    return several_found(results[0]) if step.reply == "several_found" else step.text
