"""The passes of ``data.clean`` over a file: judge and collect rows, mark repeats, list drops, copy what stays.

Rows wait in a scratch folder and 23 bytes a row are held in memory, so that the file may be larger than memory.
"""

import heapq
import json
from array import array
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pipeline.core.extras import require
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.data.clean_rows import RowDrop, RowFilter, RowKept, judge_rows
from pipeline.data.collector import without_collector
from pipeline.data.deduplicate import Fingerprint, list_answers

if TYPE_CHECKING:
    from pipeline.data.answers import AnswerIndex
    from pipeline.data.backends.near_duplicates import DuplicateSearch

MAX_SHOWN = 20
_KEPT = -1


class Drop(NamedTuple):
    """One row that is left out."""

    line: int
    """Physical line, from 1."""
    reason: str
    """Code."""
    partner_line: int | None = None
    """Of a repeat: the line of the row that stays."""
    similarity: float | None = None
    """Of a repeat: exact Jaccard similarity with that row."""
    detail: str = ""
    """Of other drops: what is wrong."""


class CleanedRows:
    """The rows of one file with what becomes of each; those that pass the row-wise steps count from 0."""

    def __init__(self, scratch: Path) -> None:
        self.num_read = 0
        self.num_contradictions = 0
        self.contradictions: list[list[int]] = []
        """The first of them: an earlier line and one that goes on with other calls."""
        self._scratch = scratch
        self._own_drops = scratch / "drops.jsonl"
        self._rows = scratch / "rows.jsonl"
        self._lines = array("Q")
        self._partners = array("q")
        self._similarities = array("f")
        self._is_near = bytearray()
        self._is_changed = bytearray()

    @property
    def num_kept(self) -> int:
        """Rows that stay."""
        return sum(partner == _KEPT for partner in self._partners)

    @property
    def num_changed(self) -> int:
        """Rows that stay and were tidied."""
        pairs = zip(self._partners, self._is_changed, strict=True)
        return sum(is_changed for partner, is_changed in pairs if partner == _KEPT)

    def collect(self, source: Path, row_filter: RowFilter, threshold: float, run: Run) -> None:
        """Read a file once, judge every row, and find repeats and contradictions among those that pass.

        Raises:
            InvalidInputError: If the file cannot be used, or a row is none and the filter does not check the schema.
        """
        if not {"exact", "near"} & set(row_filter.steps):
            self._read(source, row_filter, None, None, run)
            return
        require("datasketch", "duckdb", "msgspec", "xxhash", extra="data")
        from pipeline.data.answers import AnswerIndex
        from pipeline.data.backends.near_duplicates import DuplicateSearch
        from pipeline.data.backends.work_tables import WorkTables

        with (
            WorkTables(self._scratch) as tables,
            DuplicateSearch(tables, threshold, within_labels=True) as repeats,
            AnswerIndex() as answers,
        ):
            with without_collector():
                self._read(source, row_filter, repeats, answers, run)
            repeats.finish()
            if "exact" in row_filter.steps:
                self._mark_equal(repeats)
            if "near" in row_filter.steps:
                self._mark_near(repeats, run)
            self.num_contradictions, found = answers.find(MAX_SHOWN)
            self.contradictions = [[pair.first_line, pair.line] for pair in found]

    def list_drops(self) -> Generator[Drop]:
        """Yield every row that goes, by line."""
        yield from heapq.merge(self._list_own_drops(), self._list_repeats(), key=lambda drop: drop.line)

    def copy_kept(self, target: BinaryIO) -> None:
        """Write the rows that stay, one a line."""
        with self._rows.open("rb") as rows:
            for partner, raw in zip(self._partners, rows, strict=True):
                if partner == _KEPT:
                    target.write(raw)

    def _read(
        self,
        source: Path,
        row_filter: RowFilter,
        repeats: "DuplicateSearch | None",
        answers: "AnswerIndex | None",
        run: Run,
    ) -> None:
        with self._rows.open("wb") as rows, self._own_drops.open("w", encoding="utf-8") as own_drops:
            for row in judge_rows(source, row_filter, label="read", run=run):
                self.num_read += 1
                if isinstance(row, RowDrop):
                    own_drops.write(json.dumps(row) + "\n")
                    continue
                rows.write(row.raw + b"\n")
                self._append(row)
                if repeats is not None:
                    repeats.add(Fingerprint.of(row.conversation))
                if answers is not None:
                    for answer in list_answers(row.conversation):
                        answers.add(array("Q", (*answer, row.line)), 0)

    def _append(self, row: RowKept) -> None:
        self._lines.append(row.line)
        self._partners.append(_KEPT)
        self._similarities.append(1.0)
        self._is_near.append(False)
        self._is_changed.append(row.is_changed)

    def _mark_equal(self, repeats: "DuplicateSearch") -> None:
        for row, first in repeats.find_equal():
            self._partners[row] = first

    def _mark_near(self, repeats: "DuplicateSearch", run: Run) -> None:
        with Progress("compare", repeats.num_rows, unit="rows", run=run) as progress:
            for match in repeats.find_near(progress.update):
                self._partners[match.row], self._similarities[match.row] = match.kept, match.similarity
                self._is_near[match.row] = True
        # What equals a row that went as a near-duplicate goes for the same reason, so that every partner stays.
        for row, partner in enumerate(self._partners):
            if partner != _KEPT and self._partners[partner] != _KEPT:
                self._partners[row] = self._partners[partner]
                self._similarities[row], self._is_near[row] = self._similarities[partner], True

    def _list_own_drops(self) -> Generator[Drop]:
        with self._own_drops.open(encoding="utf-8") as lines:
            for line in lines:
                own = RowDrop(*json.loads(line))
                yield Drop(own.line, own.reason, detail=own.detail)

    def _list_repeats(self) -> Generator[Drop]:
        for row, partner in enumerate(self._partners):
            if partner != _KEPT:
                reason = "near_duplicate" if self._is_near[row] else "exact_duplicate"
                similarity = round(self._similarities[row], 4)
                yield Drop(self._lines[row], reason, self._lines[partner], similarity)
