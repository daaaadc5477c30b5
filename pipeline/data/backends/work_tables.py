# pyright: basic
"""Work tables on disk: columns of numbers that are joined or grouped in bounded memory by DuckDB.

DuckDB spills to the folder when a join outgrows its memory. Text never comes here: rows are numbers and digests.
"""

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import duckdb
import numpy as np

from pipeline.core.errors import DoesNotFitError

MEMORY_LIMIT = "1GB"
_DISK_ERRORS = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.FatalException)
_BATCH_ROWS = 65_536


class WorkTables:
    """A DuckDB database in a folder, which also takes other work files and which its owner removes."""

    def __init__(self, folder: Path, memory_limit: str = MEMORY_LIMIT) -> None:
        """Make the database.

        Raises:
            DoesNotFitError: If the disk cannot hold it, now or when the block ends.
        """
        self.folder = folder
        settings = {
            "memory_limit": memory_limit,
            "temp_directory": str(folder / "spill"),
            "preserve_insertion_order": False,
        }
        try:
            self._connection = duckdb.connect(folder / "tables.duckdb", config=settings)
        except _DISK_ERRORS as error:
            raise _does_not_fit(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(*_DISK_ERRORS):  # what closing cannot write is not needed any more
            self._connection.close()
        if isinstance(error, _DISK_ERRORS):
            raise _does_not_fit(error) from error

    def run(self, query: str) -> None:
        """Execute a statement."""
        self._connection.execute(query)

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        found = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return found[0] if found else 0

    def insert(self, table: str, batch: dict[str, np.ndarray]) -> None:
        """Append columns of equal length."""
        self._connection.register("batch", batch)
        self._connection.execute(f"INSERT INTO {table} SELECT * FROM batch")
        self._connection.unregister("batch")

    def columns(self, query: str) -> dict[str, np.ndarray]:
        """Return the whole answer of a query as columns."""
        return cast("dict[str, np.ndarray]", self._connection.execute(query).fetchnumpy())

    def stream(self, query: str) -> Generator[tuple[Any, ...]]:
        """Yield the rows of an answer without holding them all; one stream at a time does not disturb statements."""
        cursor = self._connection.cursor().execute(query)
        while rows := cursor.fetchmany(_BATCH_ROWS):
            yield from rows


def _does_not_fit(error: Exception) -> DoesNotFitError:
    return DoesNotFitError(
        f"the work tables cannot be written: {str(error).splitlines()[0]}",
        hint="Free some space on the disk of runs/, or set LLMOPS_WORKSPACE to a folder on a larger one.",
    )


def digest_columns(digests: Sequence[bytes], *names: str) -> dict[str, np.ndarray]:
    """Return 16-byte digests as two columns of 64-bit numbers."""
    halves = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    return {name: halves[:, position] for position, name in enumerate(names)}
