"""A folder for work files below a run: removed at the end, and by the next attempt when the process was killed."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.files import require_disk
from pipeline.core.runs import Run

_BYTES_PER_SOURCE_BYTE = 4  # the rows, their words, their hashed shingles, and DuckDB's tables


@contextmanager
def open_scratch(run: Run, source_bytes: int) -> Generator[Path]:
    """Yield an empty folder of the run for the duration.

    Raises:
        DoesNotFitError: If the disk cannot hold work files for so large a source.
    """
    require_disk(run.path, _BYTES_PER_SOURCE_BYTE * source_bytes, "Comparing rows")
    folder = run.path / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
