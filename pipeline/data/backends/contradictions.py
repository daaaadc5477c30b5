# pyright: basic
"""Search for contradictions: the same conversation so far, answered by different calls in different rows."""

from collections.abc import Generator

import numpy as np

from pipeline.data.backends.work_tables import WorkTables, digest_columns
from pipeline.data.deduplicate import Answer

_BATCH_ANSWERS = 16_384


class ContradictionSearch:
    """Collects the assistant turns of rows, then groups them by what came before."""

    def __init__(self, tables: WorkTables) -> None:
        self._tables = tables
        self._tables.run("CREATE TABLE answers (line UBIGINT, high UBIGINT, low UBIGINT, calls UBIGINT)")
        self._batch: list[tuple[int, Answer]] = []

    def add(self, line: int, answer: Answer) -> None:
        """Take an assistant turn of the row on that line."""
        self._batch.append((line, answer))
        if len(self._batch) == _BATCH_ANSWERS:
            self._store_batch()

    def find(self) -> Generator[list[int]]:
        """Yield for each contradiction the first line with every one of the different answers."""
        self._store_batch()
        found = self._tables.stream(
            "SELECT list(line ORDER BY line) FROM"
            "  (SELECT high, low, calls, min(line) AS line FROM answers GROUP BY high, low, calls)"
            " GROUP BY high, low HAVING count(*) > 1 ORDER BY min(line)"
        )
        for (lines,) in found:
            yield lines

    def _store_batch(self) -> None:
        if not self._batch:
            return
        lines = np.array([line for line, _ in self._batch], dtype=np.uint64)
        prefixes = digest_columns([answer.prefix for _, answer in self._batch], "high", "low")
        calls = digest_columns([answer.calls for _, answer in self._batch], "calls")
        self._tables.insert("answers", {"line": lines, **prefixes, **calls})
        self._batch = []
