"""Find contradictions: the same conversation up to an assistant turn, but a different answer.

Compared are the last turn of a row and every turn with calls. Each is noted as three 64-bit numbers: fingerprints of all
that was said before it (tools included, ids not) and of the answer, and the line. Past some number of notes they wait on
disk, in partitions by fingerprint, so that memory stays bounded for any number of rows.
"""

import heapq
import itertools
import tempfile
from array import array
from collections.abc import Generator, Iterable
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from xxhash import xxh3_64_intdigest as digest

from pipeline.core.extras import require
from pipeline.core.messages import Tool
from pipeline.data.turns import Reading

HELD_NOTES = 500_000
_PARTITION_BITS = 6
_SORTED_NOTES = 150_000  # from here on sorting them is worth importing numpy
_encode = msgspec.json.Encoder(order="sorted").encode


class Contradiction(NamedTuple):
    """Two rows that answer the same conversation differently."""

    line: int
    """The later row."""
    first_line: int
    """The row whose answer came first."""


def tools_fingerprint(tools: Iterable[Tool]) -> int:
    """Return where the fingerprints of conversations with these tools start."""
    return digest(_encode(list(tools)))


def spell(arguments: Any) -> str:
    """Return the arguments of a call in the one spelling of their value."""
    return _encode(arguments).decode()


def turn_text(content: str | None, calls: Iterable[tuple[str, str]]) -> str:
    """Return what a turn says, calls as name and spelling of the arguments; their ids say nothing."""
    spoken = [content or ""]
    for call in calls:
        spoken += call
    return "\x1e".join(spoken)


def note_answers(
    texts: list[str], call_turns: Iterable[int], tools: int, line: int, answers: "array[int]"
) -> None:
    """Note the answers of a row.

    Args:
        texts: What each turn says (:func:`turn_text`).
        call_turns: Positions of the turns with calls.
        tools: Fingerprint of the tools.
        line: Where the row stands.
        answers: Receives the notes.
    """
    for position in call_turns:
        if position < len(texts) - 1:
            prefix = digest("\x1d".join(texts[:position]).encode(), tools)
            answers.extend((prefix, digest(texts[position].encode()), line))
    answer = texts.pop()
    answers.extend((digest("\x1d".join(texts).encode(), tools), digest(answer.encode()), line))


def note_reading(reading: Reading, line: int, answers: "array[int]") -> None:
    """Note the answers of a row as it was read."""
    turns = reading.turns
    texts = [
        turn_text(turn.content, [(call.name, spell(call.arguments)) for call in turn.calls])
        if turn.calls
        else turn.content or ""
        for turn in turns
    ]
    call_turns = [position for position, turn in enumerate(turns) if turn.calls]
    note_answers(texts, call_turns, tools_fingerprint(reading.tools), line, answers)


def sort_by_line(answers: "array[int]") -> "array[int]":
    """Return notes in the order of their lines."""
    values = iter(answers)
    notes = sorted(zip(values, values, values, strict=True), key=itemgetter(2))
    return array("Q", itertools.chain.from_iterable(notes))


class AnswerIndex:
    """Collects the answers of a file in order and pairs the contradicting ones."""

    def __init__(self) -> None:
        self._held: array[int] = array("Q")
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, answers: "array[int]", lines_before: int) -> None:
        """Take the notes of a block of lines; their line numbers count from the block's start."""
        answers[2::3] = array("Q", [line + lines_before for line in answers[2::3]])
        self._held.extend(answers)
        if len(self._held) >= 3 * HELD_NOTES:
            self._spill()

    def find(self, max_shown: int) -> tuple[int, list[Contradiction]]:
        """Return how many answers contradict an earlier one, and the first of them by line."""
        if self._folder is not None:
            self._spill()
        count = itertools.count()
        pairs = (pair for answers in self._partitions() for pair in _pair(answers) if next(count) >= 0)
        shown = heapq.nsmallest(max_shown, pairs)
        return next(count), shown

    def _partitions(self) -> Generator["array[int]"]:
        if self._folder is None and len(self._held) < 3 * _SORTED_NOTES:
            yield self._held
            return
        require("numpy", extra="data")
        from pipeline.data.backends.note_tables import keep_repeated

        if self._folder is None:
            yield keep_repeated(self._held)
            return
        for path in Path(self._folder.name).iterdir():
            yield keep_repeated(path.read_bytes())

    def _spill(self) -> None:
        require("numpy", extra="data")
        from pipeline.data.backends.note_tables import partition_notes

        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="llmops-answers-")
        for number, part in enumerate(partition_notes(self._held, _PARTITION_BITS)):
            with (Path(self._folder.name) / str(number)).open("ab") as file:
                file.write(part)
        self._held = array("Q")


def _pair(answers: "array[int]") -> Generator[Contradiction]:
    first: dict[int, tuple[int, int]] = {}
    values = iter(answers)
    for prefix, answer, line in zip(values, values, values, strict=True):
        known_answer, known_line = first.setdefault(prefix, (answer, line))
        if known_answer != answer:
            yield Contradiction(line, known_line)
