"""``data.inspect``: what is in a conversation file: formats, rows, turns, roles, lengths, fields, and issues by kind.

Reads the whole file, one line at a time, and changes nothing. It counts broken rows by kind; ``data.validate`` names
each of them.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator
from itertools import chain, zip_longest
from typing import Any

from pydantic import Field

from pipeline.core.extras import require
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path
from pipeline.core.progress import Progress
from pipeline.core.refs import resolve_path as resolve_model
from pipeline.data.conversation import OWN_FIELDS
from pipeline.data.reader import Line, open_source, split_lines
from pipeline.data.rules import check_reading, find_ignored_fields
from pipeline.data.sources import no_rows_error
from pipeline.data.strict_json import RowError, cut, json_error, parse_row, strip_unshowable
from pipeline.data.turns import Reading, read_row

MAX_SAMPLES = 5
MAX_SAMPLE_CHARACTERS = 300
_MAX_NAMES = 50


class DataInspectRequest(Request):
    """What to look at."""

    file: WorkspacePath = Field(min_length=1)
    """JSON Lines file (plain, gzip or zstd) of messages, ShareGPT or Alpaca rows."""
    model: WorkspaceRef = ""
    """Model whose tokenizer counts the lengths: starter name, folder, or `file:PATH`; without one they are bytes."""


class LengthBin(Part):
    """Rows of about one length."""

    longest: int
    """Upper end, a power of two; the lower end is above half of it."""
    num_rows: int
    """Rows in between."""


class RowLengths(Part):
    """How much text the rows hold: what is said and called, without the words of any chat template."""

    unit: str
    """`tokens` or `bytes` (UTF-8)."""
    tokenizer: str
    """The model whose tokenizer counted; empty for bytes."""
    total: int
    """All rows together."""
    shortest: int
    """Shortest row."""
    median: int
    """Half of the rows are as long or shorter."""
    p95: int
    """95 % of the rows are as long or shorter."""
    longest: int
    """Longest row."""
    histogram: list[LengthBin]
    """Rows by length."""


class IssueCount(Part):
    """One kind of problem."""

    code: str
    """Its name, as in `data validate`."""
    num_rows: int
    """Rows that have it."""
    first_line: int
    """The first of them."""
    message: str
    """What is wrong there."""


class DataInspectResult(Result):
    """What is in the file."""

    file: str
    """What was looked at."""
    format: str
    """`messages`, `sharegpt`, `alpaca`, `mixed`, or `unknown` when no row could be read."""
    rows_by_format: dict[str, int]
    """Readable rows of each format."""
    num_rows: int
    """Lines that are not blank."""
    num_invalid: int
    """Rows that `data validate` would refuse."""
    num_turns: int
    """Turns of all readable rows, system turns included."""
    turns_by_role: dict[str, int]
    """Turns of each role."""
    rows_by_num_turns: dict[int, int]
    """Readable rows by how many turns they have."""
    num_rows_with_tools: int
    """Rows that declare tools or name a tool set."""
    calls_by_tool: dict[str, int]
    """Calls of each tool, the 50 most frequent."""
    other_fields: dict[str, int]
    """Fields beside the conversation and the rows that have them, the 50 most frequent."""
    lengths: RowLengths | None
    """None when no row could be read."""
    issues: list[IssueCount]
    """Problems by kind, the most frequent first."""
    untrusted_samples: list[str]
    """At most five rows, their first 300 characters without control characters: data, never instructions."""


def inspect_file(request: DataInspectRequest) -> DataInspectResult:
    """Look into a conversation file: formats, turns, roles, tools, lengths, issues by kind and a few sample rows.

    Raises:
        InvalidInputError: If the file or the tokenizer cannot be used.
    """
    path = resolve_path(request.file)
    counts = _Counts(_load_measure(request.model))
    with open_source(path) as source, Progress("inspect", path.stat().st_size, unit="bytes") as progress:
        for line in split_lines(source.stream):
            counts.add(line)
            progress.update(source.file.tell())
    if not counts.num_rows:
        raise no_rows_error(path)
    formats = dict(counts.formats.most_common())
    return DataInspectResult(
        file=request.file,
        format="mixed" if len(formats) > 1 else next(iter(formats), "unknown"),
        rows_by_format=formats,
        num_rows=counts.num_rows,
        num_invalid=sum(issue.num_rows for issue in counts.issues.values()),
        num_turns=counts.roles.total(),
        turns_by_role=dict(counts.roles.most_common()),
        rows_by_num_turns=dict(sorted(counts.num_turns.items())),
        num_rows_with_tools=counts.num_rows_with_tools,
        calls_by_tool=_most_common(counts.calls),
        other_fields=_most_common(counts.other_fields),
        lengths=_describe_lengths(counts.lengths, request.model),
        issues=sorted(counts.issues.values(), key=lambda issue: (-issue.num_rows, issue.code)),
        untrusted_samples=counts.choose_samples(),
        warnings=_describe_doubts(counts, formats),
        next_step=f"llmops data validate {request.file}",
    )


def _load_measure(model: str) -> Callable[[str], int]:
    if not model:
        return lambda text: len(text.encode())
    require("tokenizers", extra="train")
    from pipeline.data.backends.token_counts import load_counter

    return load_counter(resolve_model(model))


class _Counts:
    """What has been seen so far: counts by name and by length, a few samples, never rows."""

    def __init__(self, measure: Callable[[str], int]) -> None:
        self._measure = measure
        self._samples: dict[str, list[str]] = {}
        self.num_rows = 0
        self.num_rows_with_tools = 0
        self.formats: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        self.num_turns: Counter[int] = Counter()
        self.calls: Counter[str] = Counter()
        self.other_fields: Counter[str] = Counter()
        self.ignored_fields: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.issues: dict[str, IssueCount] = {}

    def add(self, line: Line) -> None:
        """Take a line."""
        self.num_rows += 1
        try:
            if line.problem:
                raise json_error(line.problem, "the line is too long to be a row")
            self._add_row(parse_row(line.raw))
        except RowError as error:
            before = self.issues.get(error.code)
            self.issues[error.code] = IssueCount(
                code=error.code,
                num_rows=before.num_rows + 1 if before else 1,
                first_line=before.first_line if before else line.number,
                message=before.message if before else error.message,
            )

    def _add_row(self, row: dict[str, Any]) -> None:
        try:
            reading = read_row(row)
        except RowError:
            self._sample("unknown", row)
            raise
        self._sample(reading.format, row)
        self.formats[reading.format] += 1
        self.roles.update([turn.role for turn in reading.turns])
        self.num_turns[len(reading.turns)] += 1
        self.num_rows_with_tools += bool(reading.tools)
        self.calls.update([call.name for turn in reading.turns for call in turn.calls])
        self.other_fields.update(
            [key for key in row.keys() - OWN_FIELDS[reading.format] if row[key] is not None]
        )
        self.ignored_fields.update(find_ignored_fields(row))
        self.lengths[self._measure("\n".join(_texts(reading)))] += 1
        check_reading(row, reading, allow_final_calls=False)

    def _sample(self, kind: str, row: dict[str, Any]) -> None:
        samples = self._samples.setdefault(kind, [])
        if len(samples) < MAX_SAMPLES:
            samples.append(strip_unshowable(json.dumps(row, ensure_ascii=False))[:MAX_SAMPLE_CHARACTERS])

    def choose_samples(self) -> list[str]:
        """Return up to five rows, some of every format."""
        in_turn = chain.from_iterable(zip_longest(*self._samples.values()))
        return [sample for sample in in_turn if sample is not None][:MAX_SAMPLES]


def _texts(reading: Reading) -> Generator[str]:
    for turn in reading.turns:
        yield turn.content or ""
        for call in turn.calls:
            yield f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}"


def _most_common(counter: Counter[str]) -> dict[str, int]:
    return {cut(name, 80): count for name, count in counter.most_common(_MAX_NAMES)}


def _describe_lengths(lengths: Counter[int], model: str) -> RowLengths | None:
    if not lengths:
        return None
    bins: Counter[int] = Counter()
    for length, num_rows in lengths.items():
        bins[1 << max(0, length - 1).bit_length()] += num_rows
    return RowLengths(
        unit="tokens" if model else "bytes",
        tokenizer=model,
        total=sum(length * num_rows for length, num_rows in lengths.items()),
        shortest=min(lengths),
        median=_percentile(lengths, 50),
        p95=_percentile(lengths, 95),
        longest=max(lengths),
        histogram=[LengthBin(longest=longest, num_rows=bins[longest]) for longest in sorted(bins)],
    )


def _percentile(lengths: Counter[int], percent: int) -> int:
    """Return the nearest-rank percentile: the shortest length that so many per cent of the rows do not exceed."""
    wanted = -(-lengths.total() * percent // 100)
    seen = 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= wanted:
            return length
    return max(lengths)


def _describe_doubts(counts: _Counts, formats: dict[str, int]) -> list[str]:
    warnings: list[str] = []
    if len(formats) > 1:
        shares = ", ".join(f"{count} {name}" for name, count in formats.items())
        warnings.append(f"The file mixes formats: {shares}. `llmops data convert` makes one of them.")
    if counts.ignored_fields:
        names = ", ".join(_most_common(counts.ignored_fields))
        warnings.append(f"Training does not read these fields of turns: {cut(names, 200)}.")
    return warnings


DATA_INSPECT = Operation(
    name="data.inspect",
    request=DataInspectRequest,
    result=DataInspectResult,
    run=inspect_file,
    read_only=True,
    positional=("file",),
)
