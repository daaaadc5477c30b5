"""Check lines: the quick path first, the slow path for the rest; in this process or in several, with the same outcome.

Helper processes (``check_worker.py``) are plain children that read ranges of the file named on their standard input and
end with it: they need no guard in the caller's script and outlive nobody.
"""

import json
import pickle
import subprocess
import sys
from array import array
from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from msgspec import Struct

from pipeline.core.errors import OperationFailedError
from pipeline.data.answers import note_reading, sort_by_line
from pipeline.data.collector import keep_freed_memory, without_collector
from pipeline.data.fast_path import FastPath
from pipeline.data.reader import BLANKS, Block, Source, Window, find_line_ranges, read_blocks
from pipeline.data.rules import find_ignored_fields, read_right_row
from pipeline.data.strict_json import RowError, json_error, parse_row

RANGE_BYTES = 16 << 20


class FoundError(Struct):
    """A broken row."""

    line: int
    code: str
    path: str
    message: str
    fix: str


@dataclass(slots=True)
class Outcome:
    """What was found in some consecutive lines; line numbers count from the first of them."""

    num_lines: int = 0
    num_rows: int = 0
    errors: list[FoundError] = field(default_factory=list[FoundError])
    answers: "array[int]" = field(default_factory=lambda: array("Q"))
    ignored_fields: Counter[str] = field(default_factory=Counter[str])
    position: int = 0
    """Where in the file reading has arrived, in bytes."""


class RowChecker:
    """Checks lines under one set of options."""

    def __init__(self, *, allow_final_calls: bool, use_fast_path: bool = True) -> None:
        keep_freed_memory()
        self._allow_final_calls = allow_final_calls
        self._fast_path = FastPath(allow_final_calls=allow_final_calls) if use_fast_path else None

    def check_block(self, block: Block, outcome: Outcome) -> None:
        """Check the lines of a block and add what is found."""
        if block.problem:
            outcome.num_lines += 1
            outcome.num_rows += 1
            _add_error(
                outcome, outcome.num_lines, json_error(block.problem, "the line is too long to be a row")
            )
            return
        lines = block.lines
        first_line = outcome.num_lines + 1
        answers: array[int] = array("Q")
        uncertain = (
            self._fast_path.find_uncertain(lines, first_line, answers)
            if self._fast_path
            else list(enumerate(lines, start=first_line))
        )
        num_noted, num_blank = len(answers), 0
        for line, raw in uncertain:
            if raw.strip(BLANKS):
                self._check_slowly(raw, line, outcome, answers)
            else:
                num_blank += 1
        outcome.answers.extend(answers if len(answers) == num_noted else sort_by_line(answers))
        outcome.num_lines += len(lines)
        outcome.num_rows += len(lines) - num_blank

    def _check_slowly(self, raw: bytes, line: int, outcome: Outcome, answers: "array[int]") -> None:
        try:
            row = parse_row(raw.removesuffix(b"\r"))
            reading = read_right_row(row, allow_final_calls=self._allow_final_calls)
        except RowError as error:
            _add_error(outcome, line, error)
            return
        outcome.ignored_fields.update(find_ignored_fields(row))
        note_reading(reading, line, answers)


def check_source(
    path: Path, source: Source, num_processes: int, *, allow_final_calls: bool
) -> Generator[Outcome]:
    """Yield the outcomes of an open file, piece by piece in order."""
    if num_processes > 1 and not source.is_compressed:
        with _Workers(path, num_processes, allow_final_calls=allow_final_calls) as workers:
            yield from workers.check(find_line_ranges(source.file, RANGE_BYTES))
        return
    checker = RowChecker(allow_final_calls=allow_final_calls)
    for block in read_blocks(source.stream):
        outcome = Outcome(position=source.file.tell())
        with without_collector():
            checker.check_block(block, outcome)
        yield outcome


def check_range(path: Path, start: int, stop: int, checker: RowChecker) -> Outcome:
    """Check the lines between two positions of a file."""
    outcome = Outcome(position=stop)
    with path.open("rb") as file, without_collector():
        file.seek(start)
        for block in read_blocks(Window(file, stop)):
            checker.check_block(block, outcome)
    return outcome


class _Workers:
    """Helper processes, each driven by a thread that waits for its answer."""

    def __init__(self, path: Path, num_processes: int, *, allow_final_calls: bool) -> None:
        options = json.dumps({"path": str(path), "allow_final_calls": allow_final_calls})
        command = [sys.executable, "-m", "pipeline.data.check_worker", options]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(num_processes)
        ]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(num_processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for process in self._processes:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()

    def check(self, ranges: Generator[tuple[int, int]]) -> Generator[Outcome]:
        """Yield the outcomes in order; only a few ranges are under way or waiting at any time."""
        waiting: deque[Future[Outcome]] = deque()
        for start, stop in ranges:
            waiting.append(self._threads.submit(self._ask, start, stop))
            if len(waiting) > 2 * len(self._processes):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _ask(self, start: int, stop: int) -> Outcome:
        process = self._idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{start} {stop}\n".encode())
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise OperationFailedError(
                "a helper process ended early", hint="Free some memory, or run with `--processes 1`."
            ) from error
        finally:
            self._idle.put(process)


def _add_error(outcome: Outcome, line: int, error: RowError) -> None:
    outcome.errors.append(FoundError(line, error.code, error.path, error.message, error.fix))
