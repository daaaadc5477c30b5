"""``data.report``: one page about a data set, in numbers: accuracy, consistency, coverage, diversity, leakage, PII, tokens.

Reads one file or a folder of splits and writes ``data_report.md``, ``.json``, ``.html`` and three pictures. Every measure is
that of the operation it names (`data validate`, `data decontaminate`, `data pii`, `data preview`); nothing is changed.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.files import sha256_file, write_atomic, write_json
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.pages import render_html
from pipeline.core.paths import WorkspacePath, WorkspaceRef, shown_path
from pipeline.core.paths import resolve_path as resolve_output
from pipeline.core.progress import Progress
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.data.clusters import DisjointSets
from pipeline.data.decontaminate_rows import Leakage, compare_files
from pipeline.data.deduplicate import DEFAULT_THRESHOLD, Fingerprint
from pipeline.data.report_facts import Axes, SplitCounter, SplitFacts, choose_axes, read_readable
from pipeline.data.report_text import render_markdown
from pipeline.data.scratch import open_scratch
from pipeline.data.sources import Sources
from pipeline.data.validate import DataValidateRequest, DataValidateResult, validate_file

if TYPE_CHECKING:
    from pipeline.rendering.backends.chat_text import ChatEncoder

SPLIT_FILES = {
    "train": ("train.jsonl",),
    "validation": ("validation.jsonl", "val.jsonl"),
    "test": ("test.jsonl",),
}
_AXES_ROWS = 1000  # rows that are looked at to choose what to map
_PAGES = ("data_report.md", "data_report.html", "data_report.json")
PICTURES = ("lengths.png", "coverage.png", "duplicates.png")


class Price(Part):
    """What training a token costs; there is no default, because prices change."""

    usd_per_million_tokens: float = Field(ge=0)
    """US dollars for a million tokens trained on once."""
    source: str = Field(min_length=1)
    """Where the price is from."""
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    """Day it was valid."""


class DataReportRequest(Request):
    """What to describe."""

    data: WorkspaceRef = Field(min_length=1)
    """One JSON Lines file, or a folder with `train.jsonl`, `validation.jsonl` (or `val.jsonl`) and `test.jsonl`."""
    out: WorkspacePath | None = None
    """Folder for the report; default is the run's own."""
    model: WorkspaceRef | None = None
    """Model whose tokenizer and chat template count the tokens; without it lengths are in characters."""
    max_length: int = Field(default=1024, ge=16, le=1_048_576)
    """Longest training row in tokens."""
    num_epochs: float = Field(default=1.0, gt=0, le=100)
    """Passes over the training rows, for the cost."""
    price: Price | None = None
    """Price of training as JSON: {"usd_per_million_tokens": ..., "source": ..., "date": ...}."""
    region: str = Field(default="US", pattern="^[A-Z]{2}$")
    """Country whose phone numbers may stand without a country code."""


class CoverageMap(Part):
    """Rows by two of their properties, all splits together."""

    rows: str
    """Property down the side: a tag, `tool` (the first called) or `turns` (of the user)."""
    columns: str
    """Property across."""
    row_names: list[str]
    """Values down the side."""
    column_names: list[str]
    """Values across."""
    counts: list[list[int]]
    """Rows in each cell."""
    num_empty: int
    """Cells without a row."""


class DataReportResult(Result):
    """Where the report is, and its facts."""

    report_markdown: str
    """The report."""
    report_html: str
    """The same as a page with its pictures inside."""
    report_json: str
    """The facts of this result, as a file."""
    splits: list[SplitFacts]
    """Each file."""
    leakage: dict[str, Leakage]
    """What training shares with every other split; broken rows are left out."""
    coverage: CoverageMap
    """Rows by two properties."""
    estimated_cost_usd: float | None
    """Tokens of the training split x epochs x price; null without a price or a model."""

    def is_negative(self) -> bool:
        """True when rows are broken, or training rows are in another split."""
        is_leaking = any(found.exact.num_test_rows for found in self.leakage.values())
        return is_leaking or any(split.num_valid < split.num_rows for split in self.splits)


def report_data(request: DataReportRequest, run: Run) -> DataReportResult:
    """Write a data report: accuracy, consistency, coverage, diversity, leakage, personal data, tokens and cost.

    Raises:
        InvalidInputError: If there is no data to describe, or the model is unusable.
    """
    require("matplotlib", *(["transformers"] if request.model else []), extra="train")
    require("datasketch", "duckdb", "xxhash", "phonenumbers", "python-stdnum", extra="data")
    files = find_splits(request.data)
    folder = resolve_output(request.out) if request.out else run.artifacts
    sources = Sources(*files.values())
    sources.check_outputs(*(folder / name for name in (*PICTURES, *_PAGES)))
    axes = _choose_axes(files.values())
    encoder = _load_encoder(request.model)
    counters = {name: SplitCounter(axes, encoder, request.max_length, request.region) for name in files}
    with open_scratch(run, 2 * sum(path.stat().st_size for path in files.values())) as scratch:
        splits = [
            _describe_split(name, path, counters[name], request, run=run, scratch=scratch)
            for name, path in files.items()
        ]
        readable = {
            split.name: path
            for split in splits
            if (path := _keep_readable(files[split.name], _new_folder(scratch, f"rows-{split.name}"), split))
        }
        leakage = _find_leakage(readable, run, scratch)
    sources.check_unchanged()
    result = DataReportResult(
        report_markdown=shown_path(folder / _PAGES[0]),
        report_html=shown_path(folder / _PAGES[1]),
        report_json=shown_path(folder / _PAGES[2]),
        splits=splits,
        leakage=leakage,
        coverage=_map_coverage(axes, counters.values()),
        estimated_cost_usd=_estimate_cost(splits[0], request),
        warnings=_warnings(splits, leakage, request),
        next_step=f"llmops train run {request.data}",
    )
    _write(result, request, folder, counters)
    return result


def find_splits(data: str) -> dict[str, Path]:
    """Return the files to describe by split name, training first.

    Raises:
        InvalidInputError: If a folder holds none of the usual names.
    """
    path = resolve_path(data)
    if path.is_file():
        return {path.name.split(".")[0]: path}
    found = {split: _find_split(path, names) for split, names in SPLIT_FILES.items()}
    files = {split: file for split, file in found.items() if file is not None}
    if not files:
        raise InvalidInputError(
            f"{data} has no train.jsonl, validation.jsonl or test.jsonl",
            hint="Name a JSON Lines file, or make splits with `llmops data split`.",
        )
    return files


def _find_split(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the file of one split: of its usual name, or the only one that ends in it (`task_api_train.jsonl`)."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
        if len(prefixed := sorted(folder.glob(f"*_{name}"))) == 1:
            return prefixed[0]
    return None


def _choose_axes(files: Iterable[Path]) -> Axes:
    return choose_axes(
        [row.conversation for path in files for row in islice(read_readable(path), _AXES_ROWS)]
    )


def _load_encoder(model: str | None) -> "ChatEncoder | None":
    if model is None:
        return None
    from pipeline.rendering.backends.chat_text import ChatEncoder

    return ChatEncoder.from_folder(resolve_path(model))


def _describe_split(
    name: str, path: Path, counter: SplitCounter, request: DataReportRequest, *, run: Run, scratch: Path
) -> SplitFacts:
    verdict = validate_file(DataValidateRequest(file=str(path)))
    with Progress(f"describe {name}", 2 * verdict.num_rows, unit="rows", run=run) as progress:
        for row in read_readable(path):
            counter.add(row)
            progress.advance()
        clusters = _find_clusters(path, _new_folder(scratch, f"clusters-{name}"), progress)
    num_rows = sum(counter.groups.values())
    return SplitFacts(
        name=name,
        file=shown_path(path),
        sha256=sha256_file(path),
        **_accuracy(verdict),
        num_turns=dict(counter.turns),
        num_calls=counter.num_calls,
        num_arguments=counter.num_arguments,
        num_grounded=counter.num_grounded,
        num_system_texts=len(counter.system_texts),
        num_groups=len(counter.groups) or None,
        largest_group_share=counter.groups.most_common(1)[0][1] / num_rows if num_rows else None,
        diversity=counter.diversity(),
        cluster_sizes=clusters,
        pii=dict(counter.pii.findings),
        tokens=counter.tokens(request.model),
    )


def _accuracy(verdict: DataValidateResult) -> dict[str, Any]:
    names = ("num_rows", "num_valid", "errors_by_code", "num_contradictions")
    return {name: getattr(verdict, name) for name in names}


def _keep_readable(path: Path, folder: Path, facts: SplitFacts) -> Path | None:
    """Return a file of the rows that are conversations, or None: broken rows must not hide what the others share."""
    if facts.num_valid == facts.num_rows:
        return path
    kept = folder / path.name
    num_kept = 0
    with kept.open("wb") as handle:
        for row in read_readable(path):
            handle.write(row.raw + b"\n")
            num_kept += 1
    return kept if num_kept else None


def _find_clusters(path: Path, folder: Path, progress: Progress) -> dict[int, int]:
    """Return how many clusters of rows that clean would take for repeats there are of each size."""
    from pipeline.data.backends.near_duplicates import DuplicateSearch
    from pipeline.data.backends.work_tables import WorkTables

    sets = DisjointSets()
    with (
        WorkTables(folder) as tables,
        DuplicateSearch(tables, DEFAULT_THRESHOLD, within_labels=True) as search,
    ):
        for row in read_readable(path):
            search.add(Fingerprint.of(row.conversation))
            sets.add()
            progress.advance()
        search.finish()
        search.link(sets, lambda _: None)
    sizes = Counter(Counter(sets.number()).values())
    return {size: count for size, count in sorted(sizes.items()) if size > 1}


def _find_leakage(files: dict[str, Path], run: Run, scratch: Path) -> dict[str, Leakage]:
    found: dict[str, Leakage] = {}
    for name in files if "train" in files else ():
        if name != "train":
            folder = _new_folder(scratch, f"leakage-{name}")
            comparison = compare_files(
                files["train"], files[name], threshold=DEFAULT_THRESHOLD, seed=0, run=run, scratch=folder
            )
            found[name] = comparison.leakage
    return found


def _new_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def _map_coverage(axes: Axes, counters: Iterable[SplitCounter]) -> CoverageMap:
    cells: Counter[tuple[str, str]] = Counter()
    for counter in counters:
        cells.update(counter.cells)
    rows, columns = sorted({row for row, _ in cells}), sorted({column for _, column in cells})
    counts = [[cells[row, column] for column in columns] for row in rows]
    return CoverageMap(
        rows=axes.rows,
        columns=axes.columns,
        row_names=rows,
        column_names=columns,
        counts=counts,
        num_empty=sum(count == 0 for row in counts for count in row),
    )


def _estimate_cost(first: SplitFacts, request: DataReportRequest) -> float | None:
    if request.price is None or first.tokens is None:
        return None
    return first.tokens.num_tokens * request.num_epochs * request.price.usd_per_million_tokens / 1e6


def _warnings(
    splits: Sequence[SplitFacts], leakage: dict[str, Leakage], request: DataReportRequest
) -> list[str]:
    found: list[str] = []
    for split in splits:
        if broken := split.num_rows - split.num_valid:
            found.append(
                f"{split.name}: {broken} {'row is' if broken == 1 else 'rows are'} broken; `llmops data validate {split.file}` explains each"
            )
        if split.pii:
            found.append(
                f"{split.name}: {sum(split.pii.values())} pieces of personal data (`llmops data pii`)"
            )
        if split.tokens and split.tokens.num_refused:
            found.append(
                f"{split.name}: training refuses {split.tokens.num_refused} rows (`llmops data preview`)"
            )
    for name, measured in leakage.items():
        if measured.exact.num_test_rows:
            found.append(f"{measured.exact.num_test_rows} rows of {name} are in the training split")
    if request.price is not None and request.model is None:
        found.append("no cost: name a model, so that tokens can be counted")
    return found


def _write(
    result: DataReportResult, request: DataReportRequest, folder: Path, counters: dict[str, SplitCounter]
) -> None:
    from pipeline.data.backends.report_plots import draw_clusters, draw_coverage, draw_lengths

    folder.mkdir(parents=True, exist_ok=True)
    unit = "tokens" if request.model else "characters"
    limit = request.max_length if request.model else None
    draw_lengths(
        {name: list(counter.lengths) for name, counter in counters.items()}, unit, limit, folder / PICTURES[0]
    )
    draw_coverage(result.coverage.model_dump(), folder / PICTURES[1])
    draw_clusters({split.name: split.cluster_sizes for split in result.splits}, folder / PICTURES[2])
    price = request.price.model_dump() if request.price else None
    text = render_markdown(
        {
            **result.model_dump(mode="json"),
            "data": request.data,
            "price": price,
            "num_epochs": request.num_epochs,
            "max_length": request.max_length,
            "lengths": {name: sorted(counter.lengths) for name, counter in counters.items()},
            "unit": unit,
        }
    )
    write_json(folder / "data_report.json", {**result.model_dump(mode="json"), "price": price})
    write_atomic(folder / "data_report.md", text)
    write_atomic(folder / "data_report.html", render_html(text, folder))


DATA_REPORT = Operation(
    name="data.report",
    request=DataReportRequest,
    result=DataReportResult,
    run=report_data,
    long_running=True,
    destructive=True,
    positional=("data",),
)
