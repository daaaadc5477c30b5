"""Does the assistant's text say only what user and tools gave? Ids, titles in quotes, dates, priorities, deeds.

A fact counts as known when the user said it or a result of the conversation shows it; an id beside a title must be that
title's id. What is not stated as a fact (style, offers, counts in prose) is left alone.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pipeline.core.messages import Example
from pipeline.synth.grounding import fold

FaultT = TypeVar("FaultT")
_ID = re.compile(
    r"(?:\btasks?\s+(?:no\.?\s*|number\s*|#\s*)?|#\s*|\bnumber\s+|\bno\.\s*|^\s*[-*•]\s*)(\d+)\b",
    re.MULTILINE | re.IGNORECASE,
)
_QUOTED = re.compile(r'"([^"\n]+)"')
_ISO = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_WRITTEN = re.compile(
    rf"\b{_MONTH} (\d{{1,2}})(?:st|nd|rd|th)?\b|\b(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?{_MONTH}\b"
)
_PRIORITY = re.compile(
    r"\b(low|medium|high)\b(?= priority|-priority|\)|, completed\))|priority[: ]+(low|medium|high)\b"
)
_DEED = re.compile(
    r"\b(created|added|updated|changed|moved|renamed|deleted|removed|completed|finished|done)\b"
)
_DENIAL = re.compile(
    r"\b(already|not|no|nothing|cannot|can't|couldn't|didn't|unable|failed|is in the past|does not|isn't)\b"
)
_NEAR = 40


def find_reply_faults(row: Example, make: Callable[..., FaultT]) -> list[FaultT]:
    """Return what is wrong with the assistant's texts; ``make`` takes kind, message and problem."""
    faults: list[FaultT] = []
    said = ""
    results: list[dict[str, Any]] = []
    exchange: list[dict[str, Any]] = []
    for i, message in enumerate(row.messages):
        if message.role == "user":
            said += f" {message.content}"
            exchange = []
        elif message.role == "tool":
            result = json.loads(message.content or "{}")
            results.append(result)
            exchange.append(result)
        elif message.role == "assistant" and message.content:
            found = _find(message.content, said, results, exchange)
            faults += [make(kind=kind, message=i, problem=problem) for kind, problem in found]
    return faults


def _find(
    text: str, said: str, results: list[dict[str, Any]], exchange: list[dict[str, Any]]
) -> Iterable[tuple[str, str]]:
    tasks = [task for result in results for task in _tasks_of(result)]
    known = fold(said + " " + " ".join(json.dumps(result, ensure_ascii=False) for result in results))
    known = known.replace('\\"', '"')
    bare, quotes = _without_titles(text, tasks, said)
    ids = [(match.start(1), int(match[1])) for match in _ID.finditer(bare)]
    # In the reply to a result only what this exchange is about can be meant; a question may look back.
    current = [task["id"] for result in exchange for task in _tasks_of(result)] if exchange else []
    named = set(map(int, re.findall(r"\d+", said))) | {task["id"] for task in tasks}
    wrong: list[int] = []
    for _, number in ids:
        is_named = re.search(rf"(?<!\d){number}(?!\d)", _texts_with_numbers(exchange, said))
        if number not in named or (exchange and number not in current and not is_named):
            wrong.append(number)
            yield "wrong_id_in_reply", f"task {number} is not what the results or the user's words are about"
    right = [(place, number) for place, number in ids if number not in wrong]
    yield from _find_wrong_titles(text, quotes, right, tasks, known)
    yield from _find_wrong_facts(bare.lower(), known, tasks)
    if exchange and all("error" in result for result in exchange):
        deed = _DEED.search(fold(bare))
        if deed and not _DENIAL.search(fold(bare)):
            yield "claims_undone_action", f"says {deed[0]!r}, but every call failed"


def _texts_with_numbers(exchange: list[dict[str, Any]], said: str) -> str:
    """Return the texts that may hold the number a reply is about: the user's and messages of failed calls."""
    return said + " " + " ".join(str(result.get("message", "")) for result in exchange)


def _tasks_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [*result.get("tasks", ()), *(result[key] for key in ("task", "deleted") if key in result)]


def _without_titles(text: str, tasks: list[dict[str, Any]], said: str) -> tuple[str, list[tuple[int, str]]]:
    """Return the text with titles, notes and quotes blanked, and (position, quote) of what stands in quotes."""
    quotes = [(match.start(1), match[1]) for match in _QUOTED.finditer(text)]
    known = {str(task[key]) for task in tasks for key in ("title", "description") if key in task}
    bare = text
    for value in sorted(known, key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)", re.IGNORECASE)
        bare = pattern.sub(lambda match: " " * len(match[0]), bare)
    return _QUOTED.sub(lambda match: " " * len(match[0]), bare), quotes


def _find_wrong_titles(
    text: str,
    quotes: list[tuple[int, str]],
    ids: list[tuple[int, int]],
    tasks: list[dict[str, Any]],
    known: str,
) -> Iterable[tuple[str, str]]:
    for position, quote in quotes:
        if fold(quote).strip(" .,!?") not in known:
            yield "wrong_title_in_reply", f"{quote!r} was neither said nor returned"
            continue
        owners = {task["id"] for task in tasks if task["title"].casefold() == quote.casefold()}
        line_start = text.rfind("\n", 0, position) + 1
        before = [number for place, number in ids if max(line_start, position - _NEAR) <= place < position]
        if owners and before and before[-1] not in owners:
            yield "wrong_id_in_reply", f"{quote!r} is not task {before[-1]}"


def _find_wrong_facts(bare: str, known: str, tasks: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for day in _ISO.findall(bare):
        if day not in known:
            yield "wrong_date_in_reply", f"{day} was neither said nor returned"
    days = {(int(day[5:7]), int(day[8:])) for day in _ISO.findall(known)}
    for match in _WRITTEN.finditer(_ISO.sub("", bare)):
        month, number = (match[1], match[2]) if match[1] else (match[4], match[3])
        if (_MONTHS.index(month) + 1, int(number)) not in days and match[0] not in known:
            yield "wrong_date_in_reply", f"{match[0]!r} was neither said nor returned"
    returned = {task.get("priority") for task in tasks}
    for match in _PRIORITY.finditer(bare):
        word = match[1] or match[2]
        if word not in returned and not re.search(rf"\b{word}\b", known):
            yield "wrong_priority_in_reply", f"{word} priority was neither said nor returned"
