"""The gates of a row, in the order in which they are tried: form, order, clock, execution, grounding, reply, language.

Needs no model and no optional library. Each finding names its kind and the message it is about. Does not judge style.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from pipeline.core.messages import Example, Message
from pipeline.core.operation import Part
from pipeline.synth.grounding import Said, find_ungrounded
from pipeline.synth.replay import find_differences
from pipeline.synth.reply_facts import find_reply_faults
from pipeline.task_api.tools import check_arguments

MAX_CHARACTERS = 2000
MAX_EMOJI = 2
_MAX_FOREIGN_SHARE = 0.2
_SYSTEM_DAY = re.compile(r"[Tt]oday is (\d{4}-\d{2}-\d{2})")
_FOLLOWS = {
    "system": {""},
    "user": {"", "system", "assistant"},
    "assistant": {"user", "tool"},
    "tool": {"assistant", "tool"},
}
"""Role -> roles of the message before."""


class RowFault(Part):
    """One reason not to use a row."""

    kind: str
    """Name of the gate."""
    message: int
    """Position in `messages`, from 0; -1 for the whole row."""
    problem: str
    """What is wrong."""


def find_faults(row: Example) -> list[RowFault]:
    """Return everything that is wrong with a row; no list for a right one has an entry."""
    faults = [*_check_order(row.messages), *_check_calls(row), *_check_clock(row)]
    if faults:
        return faults  # the rest would only repeat them
    faults += _check_execution(row)
    faults += _check_grounding(row)
    faults += find_reply_faults(row, RowFault) if not faults else []
    return faults + list(_check_language(row.messages))


def _check_order(messages: Sequence[Message]) -> Iterable[RowFault]:
    before = ""
    open_ids: list[str | None] = []
    for i, message in enumerate(messages):
        if before not in _FOLLOWS[message.role]:
            yield RowFault(
                kind="turn_order", message=i, problem=f"{message.role} after {before or 'nothing'}"
            )
        if message.role == "tool":
            if message.tool_call_id in open_ids:
                open_ids.remove(message.tool_call_id)
            else:
                yield RowFault(kind="turn_order", message=i, problem=f"no open call {message.tool_call_id}")
        elif open_ids:
            yield RowFault(kind="turn_order", message=i, problem=f"call {open_ids[0]} has no result")
            open_ids = []
        open_ids += [call.id for call in message.tool_calls]
        before = message.role
    if before != "assistant":
        yield RowFault(
            kind="turn_order", message=len(messages) - 1, problem="the last turn is not the assistant's"
        )


def _check_calls(row: Example) -> Iterable[RowFault]:
    for i, message in enumerate(row.messages):
        for call in message.tool_calls:
            if problem := check_arguments(call.name, call.arguments):
                yield RowFault(kind="schema", message=i, problem=problem)


def _check_clock(row: Example) -> Iterable[RowFault]:
    first = row.messages[0]
    shown = _SYSTEM_DAY.search(first.content or "") if first.role == "system" else None
    if shown and shown[1] != row.today:
        problem = f"the system prompt says {shown[1]}, the row was made on {row.today}"
        yield RowFault(kind="stale_date", message=0, problem=problem)


def _check_execution(row: Example) -> Iterable[RowFault]:
    positions = {m.tool_call_id: i for i, m in enumerate(row.messages) if m.role == "tool"}
    for difference in find_differences(row):
        call_id = difference.split()[0]
        yield RowFault(kind="result_mismatch", message=positions.get(call_id, -1), problem=difference)


def _check_grounding(row: Example) -> Iterable[RowFault]:
    user: list[str] = []
    shown: list[str] = []
    for i, message in enumerate(row.messages):
        if message.role == "user":
            user.append(message.content or "")
        elif message.role == "tool":
            shown.append(message.content or "")
        said = Said("\n".join(user), "\n".join(shown), date.fromisoformat(row.today))
        for call in message.tool_calls:
            for kind, problem in find_ungrounded(call.arguments, said):
                yield RowFault(kind=kind, message=i, problem=f"{call.name}: {problem}")


def _check_language(messages: Sequence[Message]) -> Iterable[RowFault]:
    for i, message in enumerate(messages):
        text = message.content or ""
        if message.role not in {"user", "assistant"} or not text:
            continue
        if problem := text_problem(text, message.role):
            yield RowFault(kind=problem[0], message=i, problem=problem[1])


def text_problem(text: str, role: str) -> tuple[str, str] | None:
    """Return (kind, problem) when a text is too long, not in Latin letters, or full of emoji."""
    if len(text) > MAX_CHARACTERS:
        return "length", f"{len(text)} characters, at most {MAX_CHARACTERS}"
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum(not unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if letters and foreign > _MAX_FOREIGN_SHARE * len(letters):
        return "language", f"{foreign} of {len(letters)} letters are not Latin"
    emoji = sum(unicodedata.category(letter) == "So" for letter in text)
    if role == "assistant" and emoji > MAX_EMOJI:
        return "emoji", f"{emoji} emoji, at most {MAX_EMOJI}"
    return None


def label_of(row: Example) -> list[Any]:
    """Return what a row teaches: the calls of its first assistant turn after the last user turn, and before."""
    return [
        [(call.name, sorted(call.arguments.items())) for call in m.tool_calls]
        for m in row.messages
        if m.tool_calls
    ]
