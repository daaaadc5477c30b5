"""``data.pii``: report personal data in every text of every row, or replace it by surrogates.

Looks at all strings and long numbers of a row: turns, arguments, results that are JSON, tool descriptions and all other
fields. Samples are masked; a finding is never echoed whole. Rows keep their shape: JSON inside a text stays valid, and the
same thing becomes the same surrogate everywhere in its row.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Set
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.files import open_atomic, sha256_file
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef
from pipeline.core.paths import resolve_path as resolve_output
from pipeline.core.pii_patterns import Finding, find_pii
from pipeline.core.progress import Progress
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.data.conversation import RowError, parse_row
from pipeline.data.pii_surrogates import Surrogates, replace_in_text, surrogate_number
from pipeline.data.reader import Line, read_lines
from pipeline.data.sources import Sources, no_rows_error
from pipeline.data.strict_json import is_array, is_object, json_error, parse_json_text

MAX_SAMPLES = 50
_MAX_SHOWN_LINES = 10
_SMALLEST_NUMBER = 10**9  # fewer than ten digits are ids and amounts, hardly ever a phone or card number
# Also what escapes an escape: JSON in a text of JSON in a text.
_ESCAPE = re.compile(r'\\+(?:u[0-9a-fA-F]{4}|["/bfnrt])?')
Find = Callable[[str], list[Finding]]


class DataPiiRequest(Request):
    """Where to look, and what to do."""

    data: WorkspaceRef = Field(min_length=1)
    """JSON Lines file."""
    out: WorkspacePath | None = None
    """Write the rows with surrogates here; without it the findings are only reported."""
    region: str = Field(default="US", pattern="^[A-Z]{2}$")
    """Country whose phone numbers may stand without a country code."""
    detector: Literal["patterns", "presidio"] = "patterns"
    """`patterns` finds what has a checksum or a number plan; `presidio` adds names and places (extra `pii`)."""


class PiiSample(Part):
    """One finding."""

    line: int
    """Line in the file, from 1."""
    path: str
    """Field in the row."""
    kind: str
    """What it is."""
    masked: str
    """Its first two characters and its length."""


class DataPiiResult(Result):
    """What was found."""

    num_rows: int
    """Rows read."""
    num_rows_with_findings: int
    """Rows with at least one finding."""
    num_unreadable: int
    """Lines that are no JSON object and could not be searched."""
    findings: dict[str, int]
    """Findings by kind."""
    samples: list[PiiSample]
    """The first 50 findings, masked."""
    out: str | None
    """File with surrogates, if one was asked for."""
    sha256: str | None
    """Its digest."""

    def is_negative(self) -> bool:
        """True when personal data is there and stays there, or a line could not be searched."""
        return self.num_unreadable > 0 or (self.out is None and bool(self.findings))


class RowScan:
    """Finds, and where asked replaces, what is personal in one row."""

    def __init__(self, find: Find) -> None:
        self.found: list[tuple[str, Finding, str]] = []
        self._find = find
        self._surrogates = Surrogates()

    def scan_row(self, row: dict[str, Any]) -> Any:
        """Return the row with surrogates.

        Raises:
            RowError: If it nests deeper than can be searched: JSON texts inside JSON texts inside others.
        """
        try:
            return self.scan(row)
        except RecursionError as error:
            raise json_error("too_deep", "the row is nested too deep, JSON texts included") from error

    def scan(self, value: Any, path: str = "") -> Any:
        """Return the value with surrogates; the findings are in ``found``."""
        if is_object(value):
            made: dict[str, Any] = {}
            for key, inner in value.items():
                name, where = self._scan_key(key, path, made.keys() | value.keys())
                made[name] = self.scan(inner, where)  # one call a level: rows may have 512
            return made
        if is_array(value):
            items: list[Any] = []
            for position, inner in enumerate(value):
                items.append(self.scan(inner, f"{path}[{position}]"))
            return items
        return self._scan_text(value, path) if isinstance(value, str) else self._scan_number(value, path)

    def _scan_number(self, value: Any, path: str) -> Any:
        if not isinstance(value, int) or abs(value) < _SMALLEST_NUMBER:
            return value
        text = str(value)
        findings = [f for f in self._find(text) if f.end - f.start == len(text)]
        self.found += [(path, finding, text) for finding in findings]
        return surrogate_number(value, findings, self._surrogates) if findings else value

    def _scan_key(self, key: str, path: str, taken: Set[str]) -> tuple[str, str]:
        """Return the key with surrogates, and the path of its value."""
        num_before = len(self.found)
        name = self._scan_text(key, path)
        if len(self.found) == num_before:
            return name, f"{path}.{key}" if path else key
        while name in taken:
            name += "_"
        return name, path  # paths are shown in samples and must not hold what was found

    def _scan_text(self, text: str, path: str) -> str:
        if text.lstrip()[:1] in {"{", "["} and (inner := _parse(text)) is not None:
            # Inside JSON text an escape could be taken for a part of a finding: its values are searched instead.
            num_before = len(self.found)
            scanned = self.scan(inner, path)
            return json.dumps(scanned, ensure_ascii=False) if len(self.found) > num_before else text
        # JSON also stands in fences, tags and lines: the n of its \n is no part of the address after it. Line breaks are
        # part of no pattern, and positions stay.
        searched = _ESCAPE.sub(lambda escape: "\n" * len(escape.group()), text) if "\\" in text else text
        findings = self._find(searched)
        self.found += [(path, finding, text[finding.start : finding.end]) for finding in findings]
        return replace_in_text(text, findings, self._surrogates) if findings else text


def scan_pii(request: DataPiiRequest, run: Run | None = None) -> DataPiiResult:
    """Report personal data in every text of a file, or replace it by consistent surrogates.

    Raises:
        InvalidInputError: If the file is unusable, or a line is broken and was to be rewritten.
        MissingDependencyError: If the detector asked for is not installed.
    """
    require("phonenumbers", "python-stdnum", extra="data")
    source = resolve_path(request.data)
    out = resolve_output(request.out) if request.out else None
    Sources(source).check_outputs(*([out] if out else []))
    find = _choose_detector(request)
    tally = PiiTally()
    with (
        open_atomic(out) if out else nullcontext() as handle,
        Progress("pii", source.stat().st_size, unit="bytes", run=run) as progress,
    ):
        for line in read_lines(source):
            _scan_line(line, find, tally, handle, source)
            progress.advance(len(line.raw) + 1)
        if not tally.num_rows:
            raise no_rows_error(source)
    return DataPiiResult(
        num_rows=tally.num_rows,
        num_rows_with_findings=tally.num_rows_with_findings,
        num_unreadable=tally.num_unreadable,
        findings=dict(tally.findings),
        samples=tally.samples,
        out=request.out,
        sha256=sha256_file(out) if out else None,
        warnings=_warnings(tally, request),
        next_step=_next_step(tally, request),
    )


class PiiTally:
    """Counts over all rows, and the first findings, masked."""

    def __init__(self) -> None:
        self.num_rows = self.num_rows_with_findings = self.num_unreadable = 0
        self.unreadable_lines: list[int] = []
        self.findings: Counter[str] = Counter()
        self.samples: list[PiiSample] = []

    def add_unreadable(self, line: int) -> None:
        """Count a line that could not be searched."""
        self.num_rows += 1
        self.num_unreadable += 1
        if self.num_unreadable <= _MAX_SHOWN_LINES:
            self.unreadable_lines.append(line)

    def add(self, line: int, scan: RowScan) -> None:
        """Count the findings of a row."""
        self.num_rows += 1
        self.num_rows_with_findings += bool(scan.found)
        self.findings.update(finding.kind for _, finding, _ in scan.found)
        for path, finding, text in scan.found[: MAX_SAMPLES - len(self.samples)]:
            self.samples.append(PiiSample(line=line, path=path, kind=finding.kind, masked=mask(text)))


def mask(text: str) -> str:
    """Return the first two characters and the length: enough to find the place, too little to use."""
    return f"{text[:2]}... ({len(text)} characters)"


def _scan_line(line: Line, find: Find, tally: PiiTally, handle: BinaryIO | None, source: Path) -> None:
    try:
        if line.problem:
            raise json_error(line.problem, "the line is too long")
        row = parse_row(line.raw)
        scan = RowScan(find)
        replaced = scan.scan_row(row)
    except RowError as error:
        if handle is not None:
            raise InvalidInputError(
                f"{source.name}:{line.number}: {error.message} ({error.code})",
                hint=f"{error.fix} Nothing was written.",
            ) from error
        tally.add_unreadable(line.number)
        return
    tally.add(line.number, scan)
    if handle is not None:
        # A row without findings stays as it is, byte for byte.
        raw = json.dumps(replaced, ensure_ascii=False).encode("utf-8") if scan.found else line.raw
        handle.write(raw + b"\n")


def _choose_detector(request: DataPiiRequest) -> Find:
    def find_patterns(text: str) -> list[Finding]:
        return find_pii(text, request.region)

    if request.detector == "patterns":
        return find_patterns
    require("presidio-analyzer", extra="pii")
    from pipeline.data.backends.presidio_names import load_name_finder

    find_names = load_name_finder()

    def find_all(text: str) -> list[Finding]:
        certain = find_patterns(text)
        added = [f for f in find_names(text) if all(f.end <= c.start or f.start >= c.end for c in certain)]
        return sorted([*certain, *added], key=lambda finding: finding.start)

    return find_all


def _parse(text: str) -> Any:
    try:
        return parse_json_text(text)
    except RowError:
        return None


def _warnings(tally: PiiTally, request: DataPiiRequest) -> list[str]:
    found: list[str] = []
    if tally.num_unreadable:
        lines = ", ".join(map(str, tally.unreadable_lines))
        more = " ..." if tally.num_unreadable > _MAX_SHOWN_LINES else ""
        found.append(
            f"{tally.num_unreadable} lines are not JSON objects and were not searched: {lines}{more}"
        )
    if request.detector == "patterns":
        found.append(
            "names and postal addresses have no form to check and are not searched for; see detector"
        )
    return found


def _next_step(tally: PiiTally, request: DataPiiRequest) -> str:
    if request.out:
        return f"llmops data validate {request.out}"
    stem = Path(request.data).stem
    return f"llmops data pii {request.data} --out {stem}.clean.jsonl" if tally.findings else ""


DATA_PII = Operation(
    name="data.pii",
    request=DataPiiRequest,
    result=DataPiiResult,
    run=scan_pii,
    long_running=True,
    destructive=True,
    positional=("data",),
)
