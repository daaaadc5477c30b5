"""Find contradictions: the same conversation up to an assistant turn, but a different answer.

Every assistant turn is noted as three 64-bit numbers: a fingerprint of all that was said before it (tools included, ids
not), that fingerprint continued over the answer, and the line. Past some number of turns they wait on disk, sorted into
partitions by fingerprint, so that memory stays bounded for any number of rows.
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

from pipeline.core.messages import Role, Tool
from pipeline.data.turns import Reading

HELD_TURNS = 100_000
_NUM_PARTITIONS = 256
_encode = msgspec.json.Encoder(order="sorted").encode
ROLE_SEEDS: dict[Role, int] = {"system": 1, "user": 2, "assistant": 4, "tool": 8}
"""A turn's fingerprint is the 64-bit xxh3 of its text with the fingerprint of what precedes, xor this, as seed."""
ASSISTANT_SEED = ROLE_SEEDS["assistant"]
_PARTITION_SHIFT = 56  # the top eight bits of a fingerprint


class Contradiction(NamedTuple):
    """Two rows that answer the same conversation differently."""

    line: int
    """The later row."""
    first_line: int
    """The row whose answer came first."""


def tools_fingerprint(tools: Iterable[Tool]) -> int:
    """Return where the fingerprints of conversations with these tools start."""
    return digest(_encode(list(tools)))


def turn_text(content: str | None, calls: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """Return what a turn says, calls as name and arguments in one spelling; their ids say nothing."""
    spoken = [content or ""]
    for name, arguments in calls:
        spoken += name, _encode(arguments).decode()
    return "\x1e".join(spoken)


def note_answers(reading: Reading, line: int, answers: "array[int]") -> None:
    """Note every assistant turn of a row."""
    prefix = tools_fingerprint(reading.tools)
    for turn in reading.turns:
        text = (
            turn_text(turn.content, [call[:2] for call in turn.calls]) if turn.calls else turn.content or ""
        )
        answer = digest(text.encode(), prefix ^ ROLE_SEEDS[turn.role])
        if turn.role == "assistant":
            answers.extend((prefix, answer, line))
        prefix = answer


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
        if len(self._held) >= 3 * HELD_TURNS:
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
        if self._folder is None:
            yield self._held
            return
        for path in Path(self._folder.name).iterdir():
            answers: array[int] = array("Q")
            answers.frombytes(path.read_bytes())
            yield answers

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="llmops-answers-")
        parts: list[array[int]] = [array("Q") for _ in range(_NUM_PARTITIONS)]
        values = iter(self._held)
        for prefix, answer, line in zip(values, values, values, strict=True):
            parts[prefix >> _PARTITION_SHIFT].extend((prefix, answer, line))
        for number, part in enumerate(parts):
            with (Path(self._folder.name) / str(number)).open("ab") as file:
                part.tofile(file)
        self._held = array("Q")


def _pair(answers: "array[int]") -> Generator[Contradiction]:
    first: dict[int, tuple[int, int]] = {}
    values = iter(answers)
    for prefix, answer, line in zip(values, values, values, strict=True):
        known_answer, known_line = first.setdefault(prefix, (answer, line))
        if known_answer != answer:
            yield Contradiction(line, known_line)
