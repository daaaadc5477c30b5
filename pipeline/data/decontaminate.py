"""``data.decontaminate``: what a training file shares with a test file, and the training file without it.

Equal conversations (system turns and tools aside), near-duplicates, word 8-grams (the unit of Brown et al.,
arXiv:2005.14165, appendix C, is 13 words; turns here are shorter), and what copying the nearest training row scores. The
test file is held in memory, the training file is not. Neither file is written to.
"""

from pydantic import Field

from pipeline.core.files import open_atomic
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path, shown_path
from pipeline.core.runs import Run
from pipeline.data.clean_rows import read_rows
from pipeline.data.decontaminate_rows import Leakage, RowOverlap, compare_files
from pipeline.data.deduplicate import DEFAULT_THRESHOLD
from pipeline.data.scratch import open_scratch
from pipeline.data.sources import Sources

_MAX_SHOWN = 20
_ALARMING_SHARE = 0.5


class DataDecontaminateRequest(Request):
    """Which training file to hold against which test file."""

    train: WorkspacePath = Field(min_length=1)
    """JSON Lines file that is trained on."""
    test: WorkspacePath = Field(min_length=1)
    """JSON Lines file that is tested with, held in memory."""
    out: WorkspacePath | None = None
    """File for the training rows that neither equal nor nearly equal a test row; without it nothing is removed."""
    threshold: float = Field(default=DEFAULT_THRESHOLD, ge=0.5, le=1)
    """Jaccard similarity of word 3-grams from which two rows are near-duplicates."""
    seed: int = 0
    """For drawing the test rows of the copier when there are more than 2,000."""


class DataDecontaminateResult(Result):
    """Whether the test is a test."""

    run_id: str
    """Run directory."""
    leakage: Leakage
    """What was found in the training file as it is."""
    overlaps: list[RowOverlap]
    """The first 20 equal and nearly equal pairs."""
    overlaps_file: str
    """All of them, one JSON line each."""
    out: str | None
    """The training file without those rows."""
    num_removed: int
    """Training rows that are not in it."""

    def is_negative(self) -> bool:
        """True when the training file holds test rows and they were not removed."""
        return self.leakage.exact.num_test_rows > 0 and self.out is None


def decontaminate_file(request: DataDecontaminateRequest, run: Run) -> DataDecontaminateResult:
    """Find what a training file shares with a test file: equal rows, near-duplicates, 8-grams, copied answers.

    Raises:
        InvalidInputError: If a file cannot be used, or a row is no conversation.
    """
    train, test = resolve_path(request.train), resolve_path(request.test)
    out = resolve_path(request.out) if request.out else None
    sources = Sources(train, test)
    sources.check_outputs(*([out] if out else []))
    with open_scratch(run, train.stat().st_size + test.stat().st_size) as scratch:
        comparison = compare_files(
            train, test, threshold=request.threshold, seed=request.seed, run=run, scratch=scratch
        )
        sources.check_unchanged()
        overlaps_path = run.artifacts / "overlaps.jsonl"
        with open_atomic(overlaps_path) as target:
            for overlap in comparison.overlaps:
                target.write(overlap.model_dump_json().encode("utf-8") + b"\n")
        removed = {overlap.train_line for overlap in comparison.overlaps}
        if out:
            with open_atomic(out) as target:
                for row in read_rows(train, label="write", run=run):
                    if row.line not in removed:
                        target.write(row.raw + b"\n")
                sources.check_unchanged()  # a changed line would not be the one that was compared
    leakage = comparison.leakage
    return DataDecontaminateResult(
        run_id=run.id,
        leakage=leakage,
        overlaps=list(comparison.overlaps[:_MAX_SHOWN]),
        overlaps_file=shown_path(overlaps_path),
        out=shown_path(out) if out else None,
        num_removed=len(removed) if out else 0,
        warnings=_warn(leakage),
        next_step="" if out or not removed else "Remove them: the same command with --out FILE",
    )


DATA_DECONTAMINATE = Operation(
    name="data.decontaminate",
    request=DataDecontaminateRequest,
    result=DataDecontaminateResult,
    run=decontaminate_file,
    long_running=True,
    destructive=True,
    positional=("train", "test"),
)


def _warn(leakage: Leakage) -> list[str]:
    warnings: list[str] = []
    if leakage.exact.num_test_rows:
        warnings.append(f"{leakage.exact.num_test_rows} test rows are in the training file as they are")
    if leakage.near.num_test_rows:
        warnings.append(f"{leakage.near.num_test_rows} test rows have near-duplicates in the training file")
    if leakage.same_prompt.num_test_rows:
        warnings.append(
            f"{leakage.same_prompt.num_test_rows} test rows have the words of a training row in all user turns"
        )
    copier = leakage.copier
    if copier.num_right_calls > _ALARMING_SHARE * copier.num_rows_with_calls:
        warnings.append(
            f"copying the nearest training row gives the right calls for {copier.num_right_calls} of"
            f" {copier.num_rows_with_calls} test rows with calls: a good score on this test proves little"
        )
    return warnings
