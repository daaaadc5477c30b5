# pyright: basic
"""Rows on disk as what they are compared by, and the exact decision about pairs of them.

A row is its packed turns and its sorted 32-bit shingle hashes. The hashes only sort out, many rows at once, what cannot be
similar enough; :func:`pipeline.data.deduplicate.find_similarity` decides on the words.
"""

from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np
from xxhash import xxh32_intdigest

from pipeline.data.deduplicate import Fingerprint, Turns, find_similarity

_VERIFY_ROWS = 1024
_HASH_SLACK = 0.02  # two shingles of a row may share a 32-bit hash; the exact decision comes after


class Rows(Protocol):
    """Rows by number."""

    def turns(self, row: int) -> Turns:
        """Return the words of a row."""
        ...

    def hashes(self, row: int) -> np.ndarray:
        """Return its shingle hashes, sorted, each once."""
        ...

    def num_hashes(self, rows: np.ndarray) -> np.ndarray:
        """Return how many hashes each row has."""
        ...


class RowStore:
    """Rows of one file, numbered from 0 in the order they were added; below ``folder`` until that is removed."""

    def __init__(self, folder: Path) -> None:
        self._turns = _Records(folder / "turns")
        self._hashes = _Records(folder / "hashes")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as closing:  # on a full disk closing one may fail
            closing.callback(self._turns.close)
            closing.callback(self._hashes.close)

    @classmethod
    def open(cls, folder: Path) -> "RowStore":
        """Open the rows that another process finished."""
        store = cls(folder)
        store._turns.open()
        store._hashes.open()
        return store

    def add(self, fingerprint: Fingerprint) -> list[int]:
        """Append a row and return the hashes of its shingles."""
        hashes = list(map(xxh32_intdigest, map(str.encode, fingerprint.shingles)))
        self._turns.append(fingerprint.turns.pack())
        self._hashes.append(np.array(sorted(set(hashes)), dtype=np.uint32).tobytes())
        return hashes

    def finish(self) -> None:
        """Say that all rows are in; they can be read from now on."""
        for records in (self._turns, self._hashes):
            records.close()
            records.open()

    def turns(self, row: int) -> Turns:
        """Return the words of a row."""
        return Turns.unpack(self._turns.read(row).tobytes())

    def hashes(self, row: int) -> np.ndarray:
        """Return its shingle hashes, sorted, each once."""
        return self._hashes.read(row).view(np.uint32)

    def num_hashes(self, rows: np.ndarray) -> np.ndarray:
        """Return how many hashes each row has."""
        return self._hashes.sizes(rows) // np.dtype(np.uint32).itemsize


def find_matches(
    rows: Rows, row: int, candidates: np.ndarray, threshold: float
) -> Generator[tuple[int, float]]:
    """Yield the candidates that are near-duplicates of the row, with their exact similarity, in order."""
    turns: Turns | None = None
    for first in range(0, len(candidates), _VERIFY_ROWS):
        likely = _find_likely(rows, row, candidates[first : first + _VERIFY_ROWS], threshold - _HASH_SLACK)
        for candidate in likely.tolist():
            turns = turns or rows.turns(row)
            similarity = find_similarity(turns, rows.turns(candidate), threshold)
            if similarity is not None:
                yield candidate, similarity


def _find_likely(rows: Rows, row: int, candidates: np.ndarray, bar: float) -> np.ndarray:
    """Return the candidates whose hashes have at least that Jaccard index with the row's."""
    mine = rows.hashes(row)
    sizes = rows.num_hashes(candidates)
    close = np.minimum(sizes, len(mine)) >= bar * np.maximum(sizes, len(mine))
    candidates, sizes = candidates[close], sizes[close]
    if not len(candidates):
        return candidates
    theirs = np.concatenate([rows.hashes(candidate) for candidate in candidates.tolist()])
    places = np.minimum(np.searchsorted(mine, theirs), len(mine) - 1)
    starts = np.cumsum(sizes) - sizes
    common = np.add.reduceat((mine[places] == theirs).astype(np.int64), starts)
    return candidates[common >= bar * (sizes + len(mine) - common)]


class _Records:
    """Byte strings of any length in a file, appended in order and read by number."""

    def __init__(self, path: Path) -> None:
        self._content_path, self._ends_path = path.with_suffix(".bin"), path.with_suffix(".ends")
        self._content: BinaryIO | None = None
        self._ends: BinaryIO | None = None
        self._length = 0
        self._bytes = self._starts = np.empty(0, dtype=np.uint8)

    def append(self, record: bytes) -> None:
        if self._content is None or self._ends is None:
            self._content, self._ends = self._content_path.open("wb"), self._ends_path.open("wb")
            self._ends.write(bytes(8))
        self._length += len(record)
        self._content.write(record)
        self._ends.write(self._length.to_bytes(8, "little"))

    def close(self) -> None:
        with ExitStack() as closing:
            for file in (self._content, self._ends):
                if file is not None:
                    closing.callback(file.close)

    def open(self) -> None:
        if self._ends_path.exists():
            self._starts = np.asarray(np.memmap(self._ends_path, dtype="<u8", mode="r"))
        if self._content_path.exists() and self._content_path.stat().st_size:
            self._bytes = np.asarray(np.memmap(self._content_path, dtype=np.uint8, mode="r"))

    def read(self, number: int) -> np.ndarray:
        return self._bytes[int(self._starts[number]) : int(self._starts[number + 1])]

    def sizes(self, numbers: np.ndarray) -> np.ndarray:
        return (self._starts[numbers + 1] - self._starts[numbers]).astype(np.int64)
