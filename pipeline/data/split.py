"""``data.split``: train, validation and test files from one file, nothing similar on two sides.

Rows of one group (the same template, the same source row) and rows that are near-duplicates of each other, also by way
of others, stay together. The manifest is written last: while it is there, the files are whole and of one split.
"""

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.files import open_atomic, sha256_file, write_json
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path, shown_path
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.data.clean_rows import read_rows
from pipeline.data.clusters import DisjointSets
from pipeline.data.deduplicate import DEFAULT_THRESHOLD, Fingerprint
from pipeline.data.scratch import open_scratch
from pipeline.data.sources import Sources, no_rows_error
from pipeline.data.split_units import UNUSED, Unit, divide, find_sizes
from pipeline.data.strict_json import is_array

MANIFEST_FILE = "split.json"
_NO_STRATUM = "(none)"
_WIDE_MISS_RATIO = 0.1

SideName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]


class DataSplitRequest(Request):
    """What to divide, and into what."""

    file: WorkspacePath = Field(min_length=1)
    """JSON Lines file in any of the three formats."""
    out: WorkspacePath = Field(min_length=1)
    """Folder for the three files and split.json; files of these names are replaced, others stay."""
    ratios: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default=[0.8, 0.1, 0.1], min_length=3, max_length=3
    )
    """Shares of train, validation and test; met as well as whole groups allow."""
    counts: list[Annotated[int, Field(ge=0)]] = Field(default=[], max_length=3)
    """Exact rows of train, validation and test, such as 400,50,50, instead of ratios; more rows are left over."""
    names: list[SideName] = Field(default=["train", "validation", "test"], min_length=3, max_length=3)
    """File names without .jsonl, such as task_api_train,task_api_val,task_api_test."""
    group_by: list[str] = ["group", "template", "source"]
    """Fields (of the row or its tags) whose equal values stay on one side; rows without them are free."""
    stratify_by: list[str] = ["intent", "tags"]
    """Fields (of the row or its tags) whose mix is kept alike on all sides; the first that a row has counts."""
    near_duplicates: bool = True
    """Keep near-duplicates on one side too."""
    threshold: float = Field(default=DEFAULT_THRESHOLD, ge=0.5, le=1)
    """Similarity from which rows are near-duplicates."""
    seed: int = 0
    """Same seed and file, same split."""

    @model_validator(mode="after")
    def _check_sides(self) -> "DataSplitRequest":
        if len(set(self.names)) != 3:
            raise ValueError("names: the three names must differ")
        if self.counts and (len(self.counts) != 3 or not sum(self.counts)):
            raise ValueError("counts: give three numbers that are not all 0")
        if not sum(self.ratios):
            raise ValueError("ratios: not all may be 0")
        return self


class SplitSide(Part):
    """One of the three files."""

    path: str
    """Where it is; empty when no rows were asked for, and then there is no file."""
    num_rows: int
    """Rows in it."""
    num_groups: int
    """Units that could not be torn apart: groups, clusters of near-duplicates, or single rows."""
    strata: dict[str, int]
    """Rows by stratum."""
    sha256: str
    """Digest of the file, if there is one."""


class DataSplitResult(Result):
    """How the rows were divided."""

    run_id: str
    """Run directory."""
    num_rows: int
    """Rows of the input."""
    num_unused: int
    """Rows beyond the counts asked for, in none of the files."""
    num_units: int
    """Units that could not be torn apart."""
    largest_unit: int
    """Rows of the largest."""
    sides: dict[str, SplitSide]
    """The files by name."""
    manifest: str
    """split.json: input, seed, settings and the digests."""


def split_file(request: DataSplitRequest, run: Run) -> DataSplitResult:
    """Divide a data file into train, validation and test so that nothing similar is on two sides.

    Raises:
        InvalidInputError: If the file cannot be used, a row is no conversation, or whole groups cannot make the counts.
    """
    source, folder = resolve_path(request.file), resolve_path(request.out)
    sources = Sources(source)
    paths = {name: folder / f"{name}.jsonl" for name in request.names}
    sources.check_outputs(*paths.values(), folder / MANIFEST_FILE)
    with open_scratch(run, source.stat().st_size) as scratch:
        rows = _read(source, request, scratch, run)
        units = rows.make_units()
        sizes = request.counts or find_sizes(len(rows.sets), request.ratios)
        if sum(sizes) > len(rows.sets):
            raise InvalidInputError(
                f"{sum(sizes)} rows are asked for, {shown_path(source)} has {len(rows.sets)}",
                hint="Ask for smaller counts.",
            )
        input_sha256 = sha256_file(source)
        sources.check_unchanged()
        division = divide(units, sizes, request.seed, exactly=bool(request.counts))
        side_of_row = array("b", (division.sides[unit] for unit in rows.unit_of_row))
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
        _write_sides(list(paths.values()), side_of_row, scratch / "rows.jsonl")
    sides = {
        name: _describe_side(path, side, rows, division.sides, side_of_row)
        for side, (name, path) in enumerate(paths.items())
    }
    result = DataSplitResult(
        run_id=run.id,
        num_rows=len(rows.sets),
        num_unused=side_of_row.count(UNUSED),
        num_units=len(units),
        largest_unit=max(unit.size for unit in units),
        sides=sides,
        manifest=shown_path(folder / MANIFEST_FILE),
        warnings=[
            *rows.warnings,
            *_warn_of_empty(request.counts or request.ratios, sides),
            *_warn(sizes, sides, is_stratified=division.is_stratified),
        ],
        next_step=_next_step(sides),
    )
    facts = {"input_sha256": input_sha256, **request.model_dump(mode="json")}
    write_json(folder / MANIFEST_FILE, {**facts, **result.model_dump(mode="json", exclude={"next_step"})})
    return result


DATA_SPLIT = Operation(
    name="data.split",
    request=DataSplitRequest,
    result=DataSplitResult,
    run=split_file,
    long_running=True,
    destructive=True,
    positional=("file",),
)


class _Rows:
    """What the division needs to know of the rows, by number from 0."""

    def __init__(self) -> None:
        self.sets = DisjointSets()
        self.strata: dict[str, int] = {}
        self.stratum_of_row = array("I")
        self.unit_of_row = array("I")
        self.warnings: list[str] = []
        self._groups: dict[str, dict[str, int]] = {}
        self._group_of_row: dict[str, array[int]] = {}

    def add(self, fields: dict[str, Any], request: DataSplitRequest) -> None:
        row = self.sets.add()
        stratum = next(
            (text for name in request.stratify_by if (text := _name_stratum(_look_up(fields, name)))),
            _NO_STRATUM,
        )
        self.stratum_of_row.append(self.strata.setdefault(stratum, len(self.strata)))
        for name in request.group_by:
            if value := _name_group(_look_up(fields, name)):
                first = self._groups.setdefault(name, {}).setdefault(value, row)
                links = self._group_of_row.setdefault(name, array("I", range(row)))
                links.extend(range(len(links), row))
                links.append(first)

    def join_groups(self) -> None:
        """Join the rows of a group; a field that says the same of all rows cannot divide them and is left aside."""
        for name, links in self._group_of_row.items():
            if len(self._groups[name]) == 1 and len(links) == len(self.sets) > 1 and not any(links):
                self.warnings.append(f"all rows have the same {name!r}, so it was not used for grouping")
                continue
            for row, first in enumerate(links):
                self.sets.union(row, first)

    def make_units(self) -> list[Unit]:
        self.unit_of_row = self.sets.number()
        sizes: Counter[int] = Counter(self.unit_of_row)
        strata: list[Counter[int]] = [Counter() for _ in sizes]
        for unit, stratum in zip(self.unit_of_row, self.stratum_of_row, strict=True):
            strata[unit][stratum] += 1
        return [Unit(sizes[unit], strata[unit]) for unit in range(len(sizes))]


def _read(source: Path, request: DataSplitRequest, scratch: Path, run: Run) -> _Rows:
    """Read all rows, put them aside, and join what belongs together."""
    rows = _Rows()
    with ExitStack() as stack:
        kept = stack.enter_context((scratch / "rows.jsonl").open("wb"))
        search = None
        if request.near_duplicates:
            require("datasketch", "duckdb", "xxhash", extra="data")
            from pipeline.data.backends.near_duplicates import DuplicateSearch
            from pipeline.data.backends.work_tables import WorkTables

            tables = stack.enter_context(WorkTables(scratch))
            search = stack.enter_context(DuplicateSearch(tables, request.threshold, within_labels=False))
        for row in read_rows(source, label="read", run=run):
            kept.write(row.raw + b"\n")
            rows.add(row.conversation.extra, request)
            if search is not None:
                search.add(Fingerprint.across_labels(row.conversation))
        if not len(rows.sets):
            raise no_rows_error(source)
        rows.join_groups()
        if search is not None:
            search.finish()
            with Progress("compare", search.num_rows, unit="rows", run=run) as progress:
                search.link(rows.sets, progress.update)
    return rows


def _look_up(fields: dict[str, Any], name: str) -> Any:
    """Return the value of a field of the row, or of its tags; None when there is none."""
    value: Any = fields.get(name)
    tags: Any = fields.get("tags")
    if value is None and isinstance(tags, dict):
        value = tags.get(name)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return value  # pyright: ignore[reportUnknownVariableType] - any JSON


def _name_stratum(value: Any) -> str:
    """Return texts, whole numbers and lists as text, else nothing: numbers and objects may be different in each row."""
    return _name_group(value) if isinstance(value, list | str | int) else ""


def _name_group(value: Any) -> str:
    """Return a text that is equal for equal values; empty when there is none: null, or an empty text, list or object."""
    if value is None or value == {}:
        return ""
    if is_array(value):
        return " ".join(sorted(map(_spell, value)))
    return _spell(value)


def _spell(value: Any) -> str:
    if isinstance(value, str | int):
        return str(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _write_sides(paths: list[Path], side_of_row: "array[int]", rows: Path) -> None:
    with ExitStack() as stack:
        targets = [stack.enter_context(open_atomic(path)) for path in paths]
        for side, raw in zip(side_of_row, stack.enter_context(rows.open("rb")), strict=True):
            if side != UNUSED:
                targets[side].write(raw)
    for path in paths:
        if not path.stat().st_size:
            path.unlink()  # an empty file would be refused by whoever reads it


def _describe_side(
    path: Path, side: int, rows: _Rows, sides: list[int], side_of_row: "array[int]"
) -> SplitSide:
    names = list(rows.strata)
    strata = Counter(
        names[stratum] for stratum, at in zip(rows.stratum_of_row, side_of_row, strict=True) if at == side
    )
    return SplitSide(
        path=shown_path(path) if strata else "",
        num_rows=strata.total(),
        num_groups=sides.count(side),
        strata={name: strata[name] for name in names if strata[name]},
        sha256=sha256_file(path) if strata else "",
    )


def _warn_of_empty(wanted: Sequence[float], sides: dict[str, SplitSide]) -> list[str]:
    return [
        f"{name} has no rows and no file: the input has too few rows or groups; add some, or give {name} a larger share"
        for share, (name, side) in zip(wanted, sides.items(), strict=True)
        if share and not side.num_rows
    ]


def _next_step(sides: dict[str, SplitSide]) -> str:
    """Return the command that holds training against test, if both files are there."""
    train, _, test = (side.path for side in sides.values())
    return f"Check it: llmops data decontaminate {train} {test}" if train and test else ""


def _warn(sizes: list[int], sides: dict[str, SplitSide], *, is_stratified: bool) -> list[str]:
    warnings = [
        f"{name} has {side.num_rows} rows instead of {size}, because groups stay whole"
        for size, (name, side) in zip(sizes, sides.items(), strict=True)
        if side.num_rows and abs(side.num_rows - size) > max(1, _WIDE_MISS_RATIO * size)
    ]
    if not is_stratified:
        warnings.append("the counts could only be met by leaving the strata aside")
    return warnings
