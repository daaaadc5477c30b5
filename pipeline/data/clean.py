"""``data.clean``: drop repeats and unusable rows, tidy the rest, and list every drop with its reason.

Rows that the row-wise steps drop are never the kept partner of a repeat, so that no repeat goes with a row that goes
itself. The input is read once and never written to. Does not mend broken rows and does not decide between contradictions: it reports them.
"""

from collections import Counter
from pathlib import Path

from pydantic import Field

from pipeline.core.files import open_atomic
from pipeline.core.operation import Operation, Part, Result
from pipeline.core.paths import WorkspacePath, is_confined, resolve_path, shown_path
from pipeline.core.runs import Run
from pipeline.data.clean_passes import MAX_SHOWN, CleanedRows
from pipeline.data.clean_settings import CleanSettings
from pipeline.data.scratch import open_scratch
from pipeline.data.sources import Sources, no_rows_error


class DataCleanRequest(CleanSettings):
    """What to clean, and how."""

    file: WorkspacePath = Field(min_length=1)
    """JSON Lines file in any of the three formats."""
    out: WorkspacePath | None = None
    """File for the rows that stay; default is NAME.clean.jsonl beside the input. The drops are
    listed beside it in NAME.clean.drops.jsonl, or in the run when it is a dry one."""
    dry_run: bool = Field(default_factory=is_confined)
    """Only report. When left out: true for MCP callers, false on the command line and in Python."""


class CleanDrop(Part):
    """One row that was left out."""

    line: int
    """Physical line, from 1."""
    reason: str
    """exact_duplicate, near_duplicate, too_short, too_long, or the code of a schema problem."""
    partner_line: int | None = None
    """Of a repeat: the line of the row that stays."""
    similarity: float | None = None
    """Of a repeat: exact Jaccard similarity with that row."""
    detail: str = ""
    """Of other drops: what is wrong."""


class DataCleanResult(Result):
    """What stayed and what went."""

    run_id: str
    """Run directory."""
    dry_run: bool
    """True when no data file was written."""
    out: str | None
    """The cleaned file; none after a dry run."""
    drops_file: str
    """Every drop as one JSON line."""
    num_rows: int
    """Rows read."""
    num_kept: int
    """Rows that stay."""
    num_dropped: dict[str, int]
    """Drops by reason."""
    num_normalised: int
    """Kept rows whose text was tidied."""
    num_contradictions: int
    """Assistant turns whose calls differ from an earlier row's after the same conversation; all such rows stay."""
    contradictions: list[list[int]]
    """The first 20 of them: the earlier line and the later one."""
    drops: list[CleanDrop]
    """The first 20."""


def clean_file(request: DataCleanRequest, run: Run) -> DataCleanResult:
    """Drop repeated and unusable rows of a data file, tidy the rest, and list every drop with its reason.

    Raises:
        InvalidInputError: If the file cannot be used, or a row is none and the step `schema` is not taken.
        DoesNotFitError: If the disk cannot hold the work files.
    """
    source = resolve_path(request.file)
    out = resolve_path(request.out) if request.out else source.with_name(f"{_stem(source)}.clean.jsonl")
    drops_path = (run.artifacts if request.dry_run else out.parent) / f"{_stem(out)}.drops.jsonl"
    Sources(source).check_outputs(out, drops_path)
    row_filter = request.make_filter()
    with open_scratch(run, source.stat().st_size) as scratch:
        rows = CleanedRows(scratch)
        rows.collect(source, row_filter, request.threshold, run)
        if not rows.num_read:
            raise no_rows_error(source)
        num_dropped, shown = _write_drops(drops_path, rows)
        if not request.dry_run:
            with open_atomic(out) as target:
                rows.copy_kept(target)
    return DataCleanResult(
        run_id=run.id,
        dry_run=request.dry_run,
        out=None if request.dry_run else shown_path(out),
        drops_file=shown_path(drops_path),
        num_rows=rows.num_read,
        num_kept=rows.num_kept,
        num_dropped=num_dropped,
        num_normalised=rows.num_changed,
        num_contradictions=rows.num_contradictions,
        contradictions=rows.contradictions,
        drops=shown,
        warnings=_warn(request, rows),
        next_step="Write the cleaned file: the same command with --no-dry-run (dry_run: false)"
        if request.dry_run
        else f"Divide it: llmops data split {shown_path(out)} --out FOLDER",
    )


DATA_CLEAN = Operation(
    name="data.clean",
    request=DataCleanRequest,
    result=DataCleanResult,
    run=clean_file,
    long_running=True,
    destructive=True,
    positional=("file",),
)


def _stem(path: Path) -> str:
    """Return the name without .jsonl and a compression's ending."""
    name = path.name
    for ending in (".gz", ".zst", ".jsonl", ".json"):
        name = name.removesuffix(ending)
    return name or path.name


def _write_drops(path: Path, rows: CleanedRows) -> tuple[dict[str, int], list[CleanDrop]]:
    """Write the drop list; return the numbers by reason and the first drops."""
    counts: Counter[str] = Counter()
    shown: list[CleanDrop] = []
    with open_atomic(path) as target:
        for drop in rows.list_drops():
            described = CleanDrop.model_validate(drop._asdict())
            target.write(described.model_dump_json(exclude_defaults=True).encode("utf-8") + b"\n")
            counts[drop.reason] += 1
            if len(shown) < MAX_SHOWN:
                shown.append(described)
    return dict(counts.most_common()), shown


def _warn(request: DataCleanRequest, rows: CleanedRows) -> list[str]:
    warnings = request.list_doubts()
    if rows.num_contradictions:
        warnings.append(
            f"{rows.num_contradictions} turns have different calls after the same conversation as an earlier row;"
            " none was dropped: decide which is right (contradictions has their lines)"
        )
    if rows.num_read and not rows.num_kept:
        warnings.append("no row is left")
    return warnings
