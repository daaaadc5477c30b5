"""A persona's wording of the assistant's turns: which line fits which situation, with facts from executed results only.

A reply is opening + facts + closing, or one whole line of talk; the lines are in ``personas/``. It changes no call, no
user turn and no fact; what the neutral reply states is stated, in other words.
"""

import json
import random
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message, ToolCall
from pipeline.synth.replies import (
    GAVE_UP,
    QUESTIONS,
    SMALL_TALK,
    Result,
    describe_task,
    list_item,
    nothing_found,
    several_found,
)

VALIDATION_STEP = 5
"""Every fifth line of a section of the train file words validation rows instead."""

_SECTION = re.compile(r"\[([a-z_ ]+)\]")
_EDGES = {
    "created": ("done", "done"),
    "updated": ("done", "done"),
    "deleted": ("done", "done"),
    "completed": ("completed", "completed"),
    "list": ("list", "list"),
    "empty": ("empty", "empty"),
    "not_found": ("error", "error"),
    "nothing_found": ("error", "error"),
    "already_completed": ("error", "error"),
    "past_due_date": ("error", "date"),
    "invalid_due_date": ("error", "date"),
    "gave_up": ("error", "again"),
    "several_found": ("ask", "ask"),
    **{f"ask_{name}": ("ask", "ask") for name in QUESTIONS},
}
"""Situation -> sections of its opening and closing."""
_QUESTION = {
    re.compile(re.escape(text).replace(r"\{id\}", r"(?P<id>\d+)")): f"ask_{name}"
    for name, text in QUESTIONS.items()
}
_TALK = {text: name for name, text in SMALL_TALK.items()}

Lines = dict[str, list[str]]
"""Section -> lines."""


def load_lines(persona: str, split: str) -> Lines:
    """Return the lines that word a split: train, validation or test.

    Raises:
        InvalidInputError: If the file lacks a section, or has one without lines.
    """
    name = f"{persona}_{'test' if split == 'test' else 'train'}.txt"
    sections: Lines = {}
    text = files("pipeline.synth").joinpath("personas", name).read_text(encoding="utf-8")
    lines: list[str] = []
    for line in text.splitlines():
        if match := _SECTION.fullmatch(line):
            lines = sections.setdefault(match[1], [])
        elif line and not line.startswith("#"):
            lines.append(line)
    if split != "test":
        is_held = split == "validation"
        sections = {
            section: [line for i, line in enumerate(found, start=1) if (i % VALIDATION_STEP == 0) == is_held]
            for section, found in sections.items()
        }
    wanted = {f"opening {o}" for o, _ in _EDGES.values()} | {f"closing {c}" for _, c in _EDGES.values()}
    if missing := sorted(s for s in {*wanted, "opening mixed", *_EDGES, *SMALL_TALK} if not sections.get(s)):
        raise InvalidInputError(f"{name} has no {', '.join(missing)} for {split}", hint="Add lines there.")
    return sections


class PersonaVoice:
    """Words replies; deals every line of a section before it deals one again."""

    def __init__(self, lines: Lines, rng: random.Random) -> None:
        self._lines, self._rng = lines, rng
        self._decks: Lines = {}

    def reword(self, messages: Sequence[Message], position: int) -> str:
        """Return the persona's words for the assistant's text at a position.

        Raises:
            ValueError: If the text is none of the neutral phrasings.
        """
        text = messages[position].content or ""
        if messages[position - 1].role != "tool":
            return self._talk(text)
        start = max(i for i in range(position) if messages[i].tool_calls)
        calls = messages[start].tool_calls
        results = [_result_of(message) for message in messages[start + 1 : position]]
        return self._report(text, calls, results)

    def _deal(self, section: str) -> str:
        if not self._decks.get(section):
            deck = list(self._lines[section])
            self._rng.shuffle(deck)
            self._decks[section] = deck
        return self._decks[section].pop()

    def _deal_fact(self, section: str, *, in_row: bool) -> str:
        """Deal a sentence; among others the number comes before the title, or it would seem to be the one before it."""
        for _ in self._lines[section]:
            line = self._deal(section)
            if not in_row or "{title}" not in line or line.find("{id}") < line.find("{title}"):
                return line
        return next(line for line in self._lines[section] if line.find("{id}") < line.find("{title}"))

    def _frame(self, situation: str, facts: str) -> str:
        opening, closing = _EDGES[situation]
        gap = "\n" if facts.split("\n")[-1].startswith("- ") else " "
        return f"{self._deal(f'opening {opening}')} {facts}{gap}{self._deal(f'closing {closing}')}"

    def _talk(self, text: str) -> str:
        if text in _TALK:
            return self._deal(_TALK[text])
        for pattern, situation in _QUESTION.items():
            if match := pattern.fullmatch(text):
                return self._frame(situation, self._fill(situation, match.groupdict()))
        raise ValueError(f"no situation has the reply {text!r}")

    def _report(self, text: str, calls: Sequence[ToolCall], results: Sequence[Result]) -> str:
        if text == GAVE_UP:
            return self._frame("gave_up", self._deal("gave_up"))
        if len(calls) > 1:
            return self._report_all(calls, results)
        call, result = calls[0], results[0]
        if call.name == "list_tasks" and text == nothing_found(call.arguments.get("search", "")):
            return self._frame("nothing_found", self._fill("nothing_found", call.arguments))
        if call.name == "list_tasks" and result["total"] and text == several_found(result):
            facts = self._fill("several_found", result) + _items(result) + "\n" + self._deal("ask_task_id")
            return self._frame("several_found", facts)
        situation, facts = self._facts(call, result)
        return self._frame(situation, facts)

    def _report_all(self, calls: Sequence[ToolCall], results: Sequence[Result]) -> str:
        told = [self._facts(call, result, in_row=True) for call, result in zip(calls, results, strict=True)]
        refused = next((situation for situation, _ in told if _EDGES[situation][0] == "error"), "")
        closing = _EDGES[refused][1] if refused else "done"
        gap = "\n" if any("\n" in facts for _, facts in told) else " "
        parts = [self._deal("opening mixed"), *(facts for _, facts in told), self._deal(f"closing {closing}")]
        return gap.join(parts)

    def _facts(self, call: ToolCall, result: Result, *, in_row: bool = False) -> tuple[str, str]:
        """Return the situation that a result makes, and the sentence that states it."""
        arguments = call.arguments
        if "error" in result:
            code: str = result["error"]
            values = {"id": arguments.get("task_id"), "words": arguments.get("due_date")}
            return code, self._fill(code, values)
        if "tasks" in result:
            status = f"{arguments['status']} " if "status" in arguments else ""
            if not result["total"]:
                return "empty", self._fill("empty", {"status": status})
            noun = "task" if result["total"] == 1 else "tasks"
            counted = f"{result['total']} {status}{noun}"
            return "list", self._fill("list", {"counted": counted}) + _items(result)
        situation = {"create_task": "created", "update_task": "updated", "complete_task": "completed"}.get(
            call.name, "deleted"
        )
        task: dict[str, Any] = result.get("task") or result["deleted"]
        values = dict(task)
        if situation in {"created", "updated"}:
            values |= {"facts": describe_task(task), "state": task["status"]}
        return situation, self._fill(situation, values, in_row=in_row)

    def _fill(self, section: str, values: dict[str, Any], *, in_row: bool = False) -> str:
        # Not str.format: a title may hold braces.
        return re.sub(
            r"\{(\w+)\}", lambda match: str(values[match[1]]), self._deal_fact(section, in_row=in_row)
        )


def _result_of(message: Message) -> Result:
    return json.loads(message.content or "{}")


def _items(result: Result) -> str:
    return "".join(f"\n{list_item(task)}" for task in result["tasks"])
