"""``data.validate``: a verdict for every row of a JSON Lines file of any size, with line, place, reason and remedy.

The file is read once and never changed. A row has one error at most: the first that a reader of the row would meet.
Which rules there are: ``strict_json.py`` (bytes), ``conversation.py`` (shapes), ``rules.py`` (turns, calls, results).
"""

import hashlib
import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from pydantic import Field

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.extras import require
from pipeline.core.files import open_atomic
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.progress import Progress
from pipeline.core.settings import Settings
from pipeline.data.strict_json import cut

if TYPE_CHECKING:
    from pipeline.data.answers import Contradiction
    from pipeline.data.check import FoundError

MAX_SHOWN_ERRORS = 1000
_MAX_SHOWN_CONTRADICTIONS = 100
_BYTES_PER_PROCESS = 128 << 20  # below this a second process costs more than it saves


_NEXT_INVALID = "Mend or remove the lines, then validate again."


class DataValidateRequest(Request):
    """Which file to check."""

    file: WorkspacePath = Field(min_length=1)
    """JSON Lines file (plain, gzip or zstd) of messages, ShareGPT or Alpaca rows."""
    allow_final_calls: bool = False
    """Accept rows whose last turn is a call without a result; rows of a named tool_set always may end so."""
    processes: int = Field(default=0, ge=0, le=256)
    """Processes to use; 0 takes one per 128 MiB, at most one per core."""


class RowProblem(Part):
    """One broken row."""

    line: int
    """Physical line, from 1."""
    code: str
    """Kind of problem."""
    path: str
    """Field, as in messages[2].content; empty for the row as a whole."""
    message: str
    """What is wrong."""
    fix: str
    """What to do."""


class ContradictionPair(Part):
    """Two rows that answer the same conversation differently."""

    line: int
    """The later row."""
    first_line: int
    """The row whose answer came first."""


class DataValidateResult(Result):
    """The verdict."""

    file: str
    """What was checked."""
    num_rows: int
    """Lines that are not blank."""
    num_valid: int
    """Rows without an error."""
    num_invalid: int
    """Rows with an error."""
    errors_by_code: dict[str, int]
    """How many rows have each kind of problem."""
    errors: list[RowProblem]
    """The first 1,000 broken rows."""
    errors_file: str | None
    """JSON Lines file with all of them when there are more."""
    num_contradictions: int
    """Answers that differ from an earlier answer to the same conversation (a warning, not an error)."""
    contradictions: list[ContradictionPair]
    """The first 100 of them."""

    def is_negative(self) -> bool:
        """True when any row is invalid."""
        return self.num_invalid > 0


def validate_file(request: DataValidateRequest) -> DataValidateResult:
    """Check every row of a conversation file and explain each broken one by line, place and remedy.

    Raises:
        InvalidInputError: If the file cannot be used: missing, binary, damaged, empty, or changing while it is read.
        OperationFailedError: If a helper process dies.
    """
    require("msgspec", "xxhash", "jsonschema", "google-re2", extra="data")
    from pipeline.data.answers import AnswerIndex
    from pipeline.data.check import Outcome, check_source
    from pipeline.data.reader import open_source

    path = resolve_path(request.file)
    totals = Outcome()
    with AnswerIndex() as index, _ErrorLog(path) as log:
        with open_source(path) as source, Progress("validate", path.stat().st_size, unit="bytes") as progress:
            num_processes = request.processes or _choose_processes(progress.total)
            may_end_open = request.allow_final_calls
            for outcome in check_source(path, source, num_processes, allow_final_calls=may_end_open):
                log.add(outcome.errors, totals.num_lines)
                index.add(outcome.answers, totals.num_lines)
                totals.num_lines += outcome.num_lines
                totals.num_rows += outcome.num_rows
                totals.ignored_fields += outcome.ignored_fields
                progress.update(outcome.position)
        if not totals.num_rows:
            raise InvalidInputError(f"{request.file} has no rows", hint="Write one JSON object a line.")
        num_contradictions, contradictions = index.find(_MAX_SHOWN_CONTRADICTIONS)
    num_invalid = log.errors_by_code.total()
    return DataValidateResult(
        file=request.file,
        num_rows=totals.num_rows,
        num_valid=totals.num_rows - num_invalid,
        num_invalid=num_invalid,
        errors_by_code=dict(log.errors_by_code.most_common()),
        errors=[RowProblem.model_validate(error, from_attributes=True) for error in log.first],
        errors_file=str(log.file) if log.file else None,
        num_contradictions=num_contradictions,
        contradictions=[ContradictionPair(**pair._asdict()) for pair in contradictions],
        warnings=_describe_doubts(num_contradictions, contradictions, totals.ignored_fields),
        next_step=_NEXT_INVALID if num_invalid else f"llmops data preview {request.file}",
    )


def _choose_processes(size: int) -> int:
    return max(1, min(os.cpu_count() or 1, size // _BYTES_PER_PROCESS))


def _describe_doubts(
    num_contradictions: int, contradictions: "list[Contradiction]", ignored_fields: Counter[str]
) -> list[str]:
    warnings: list[str] = []
    if num_contradictions:
        first = contradictions[0]
        warnings.append(
            f"{num_contradictions} answers differ from an earlier answer to the same conversation, first line "
            f"{first.line} from line {first.first_line}: a model cannot learn both."
        )
    if ignored_fields:
        shown = ", ".join(f"{cut(name, 40)} ({count})" for name, count in ignored_fields.most_common(10))
        warnings.append(f"Fields of turns that training does not read, and how often they occur: {shown}.")
    return warnings


class _ErrorLog:
    """Keeps the first errors; once there are more, all of them go to a file that appears when it is complete."""

    def __init__(self, checked: Path) -> None:
        from msgspec import json

        digest = hashlib.sha256(str(checked.absolute()).encode()).hexdigest()[:8]
        self._target = Settings.load().runs_dir / "errors" / f"{checked.name}-{digest}.jsonl"
        self._files = ExitStack()
        self._stream: BinaryIO | None = None
        self._encode_lines = json.Encoder().encode_lines
        self.first: list[FoundError] = []
        self.errors_by_code: Counter[str] = Counter()

    @property
    def file(self) -> Path | None:
        """The file, when there is one."""
        return self._target if self._stream else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def add(self, errors: "list[FoundError]", lines_before: int) -> None:
        """Take the errors of a piece of the file; their line numbers count from its start."""
        for error in errors:
            error.line += lines_before
        self.errors_by_code.update([error.code for error in errors])
        room = MAX_SHOWN_ERRORS - len(self.first)
        self.first += errors[:room]
        if len(errors) > room and self._stream is None:
            self._stream = self._files.enter_context(open_atomic(self._target))
            self._write(self.first)
        if self._stream is not None:
            self._write(errors[room:])

    def _write(self, errors: "list[FoundError]") -> None:
        assert self._stream is not None
        try:
            self._stream.write(self._encode_lines(errors))
        except OSError as error:
            raise OperationFailedError(
                f"{self._target} cannot be written: {error.strerror}", hint="Free some space on its disk."
            ) from error


DATA_VALIDATE = Operation(
    name="data.validate",
    request=DataValidateRequest,
    result=DataValidateResult,
    run=validate_file,
    read_only=True,
    positional=("file",),
)
