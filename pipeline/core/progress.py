"""Progress of anything over two seconds: a bar with ETA on a terminal, a line now and then elsewhere.

With a run, the same numbers go to ``progress.json`` for whoever watches the job.
"""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipeline.core.files import write_json
from pipeline.core.runs import Run
from pipeline.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_FILE_INTERVAL_SECONDS = 1.0
_LINE_INTERVAL_SECONDS = 15.0


class Progress:
    """Context manager that shows how far one activity is.

    A resumed activity sets ``done`` before its first update, so that the ETA counts only what is done now.
    """

    def __init__(self, label: str, total: int, *, unit: str = "", run: Run | None = None) -> None:
        self.label, self.total, self.unit, self.run = label, total, unit, run
        self.done = 0
        self._note = ""
        self._started = time.monotonic()
        self._start_done: int | None = None
        self._last_file = 0.0
        self._last_line = self._started
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._open_bar()
        if self.run is not None:
            self._write_file(self.run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            took = format_seconds(time.monotonic() - self._started)
            print(f"{self.label}: done in {took} {self._note}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201
        if self.run is not None and kind is None:
            self._write_file(self.run)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Move forward by an amount."""
        self.update(self.done + amount, note)

    def update(self, done: int, note: str = "") -> None:
        """Set the position; ``note`` is shown beside it (loss, tokens/s ...)."""
        if self._start_done is None:
            self._start_done = self.done
        self.done, self._note = done, note
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif now - self._last_line >= _LINE_INTERVAL_SECONDS:
            self._last_line = now
            print(f"{self.label}: {self._position()} {note}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201
        if self.run is not None and now - self._last_file >= _FILE_INTERVAL_SECONDS:
            self._last_file = now
            self._write_file(self.run)

    def eta_seconds(self) -> float | None:
        """Seconds left at the mean pace so far, or None before the first step."""
        made = self.done - (self._start_done or 0)
        if made <= 0 or self.total <= 0:
            return None
        return (time.monotonic() - self._started) / made * max(0, self.total - self.done)

    def _position(self) -> str:
        numbers = (
            f"{format_bytes(self.done)} of {format_bytes(self.total)}"
            if self.unit == "bytes"
            else f"{self.done}/{self.total} {self.unit}".rstrip()
        )
        eta = self.eta_seconds()
        return numbers if eta is None else f"{numbers}, {format_seconds(eta)} left"

    def _write_file(self, run: Run) -> None:
        write_json(
            run.path / "progress.json",
            {
                "label": self.label,
                "done": self.done,
                "total": self.total,
                "unit": self.unit,
                "note": self._note,
                "elapsed_seconds": round(time.monotonic() - self._started, 1),
                "eta_seconds": None if (eta := self.eta_seconds()) is None else round(eta, 1),
                "updated_at": time.time(),
            },
        )

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        count = TextColumn("{task.percentage:>3.0f}%") if self.unit == "bytes" else MofNCompleteColumn()
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            count,
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(self.label, total=self.total, note="")
        self._bar.start()
