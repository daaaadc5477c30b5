"""Hold the rows of a training file against those of a test file, for ``data.decontaminate`` and the data report.

The test rows are held in memory, the training rows pass by once.
"""

import random
import statistics
from array import array
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipeline.core.extras import require
from pipeline.core.operation import Part
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.data.clean_rows import RowKept, read_rows
from pipeline.data.copier import Answer, CopierScore, score_copies
from pipeline.data.deduplicate import Fingerprint, Turns
from pipeline.data.sources import no_rows_error

if TYPE_CHECKING:
    from pipeline.data.backends.near_duplicates import DuplicateSearch

_MAX_COPIED_ROWS = 2000  # each is compared with every training row
_HALF = 0.5


class RowOverlap(Part):
    """One training row that says what a test row says."""

    train_line: int
    """Physical line of the training file."""
    test_line: int
    """Physical line of the test file."""
    kind: Literal["exact", "near"]
    """Equal, or nearly."""
    similarity: float
    """Exact Jaccard similarity of word 3-grams."""


class OverlapCount(Part):
    """How many rows overlap, seen from both files."""

    num_test_rows: int
    """Test rows."""
    num_train_rows: int
    """Training rows."""


class NgramShare(Part):
    """Word 8-grams inside user and assistant turns."""

    num_test_rows: int
    """Test rows that share at least one with training."""
    num_half_rows: int
    """Test rows of whose 8-grams at least half occur in training."""
    num_counted_rows: int
    """Test rows that have any."""
    mean_share: float | None
    """Mean share, over the counted rows, of their 8-grams that occur in training."""


class Leakage(Part):
    """What two files share."""

    num_train_rows: int
    """Rows of the training file."""
    num_test_rows: int
    """Rows of the test file."""
    exact: OverlapCount
    """Equal conversations, system turns and tools aside."""
    near: OverlapCount
    """Near-duplicates that are not equal."""
    same_prompt: OverlapCount
    """The same words in all user turns, whatever the answers."""
    ngram: NgramShare
    """Shared 8-grams."""
    copier: CopierScore
    """What copying the nearest training row scores."""


class Comparison(NamedTuple):
    """What was found, in sum and in pairs."""

    leakage: Leakage
    """The numbers."""
    overlaps: list[RowOverlap]
    """One for each training row that overlaps, by line."""


def compare_files(
    train: Path, test: Path, *, threshold: float, seed: int, run: Run, scratch: Path
) -> Comparison:
    """Find what a training file shares with a test file.

    Raises:
        InvalidInputError: If a file cannot be used, or a row is no conversation.
    """
    require("datasketch", "duckdb", "xxhash", extra="data")
    from pipeline.data.backends.near_duplicates import DuplicateSearch
    from pipeline.data.backends.work_tables import WorkTables

    with WorkTables(scratch) as tables, DuplicateSearch(tables, threshold, within_labels=False) as search:
        comparer = _Comparer(read_rows(test, label="read test", run=run), search, seed)
        if not comparer.num_test_rows:
            raise no_rows_error(test)
        for row in read_rows(train, label="read training", run=run):
            comparer.add(row)
        if not comparer.num_train_rows:
            raise no_rows_error(train)
        near = list(comparer.find_near(run))
        return Comparison(comparer.sum_up(near), sorted([*comparer.exact, *near], key=lambda o: o.train_line))


class _Comparer:
    """The test rows, and what the training rows so far share with them."""

    def __init__(self, tests: Iterable[RowKept], search: "DuplicateSearch", seed: int) -> None:
        from pipeline.data.backends.overlap import NearestRows, NgramOverlap

        self.exact: list[RowOverlap] = []
        self._search = search
        self._test_lines = array("Q")
        self._train_lines = array("Q")
        self._test_of_digest: dict[bytes, list[int]] = {}
        self._test_of_prompt: dict[tuple[str, ...], list[int]] = {}
        self._tests_hit: dict[str, set[int]] = {"exact": set(), "near": set(), "prompt": set()}
        self._num_prompts_hit = 0
        self._exact_rows: set[int] = set()
        turns_of_test: list[Turns] = []
        answers: list[Answer] = []
        for test, row in enumerate(tests):
            fingerprint = Fingerprint.across_labels(row.conversation)
            self._search.add(fingerprint)
            self._test_lines.append(row.line)
            self._test_of_digest.setdefault(fingerprint.exact, []).append(test)
            self._test_of_prompt.setdefault(_prompt(fingerprint.turns), []).append(test)
            turns_of_test.append(fingerprint.turns)
            answers.append(Answer.of(row.conversation))
        chosen = sorted(random.Random(seed).sample(range(len(answers)), min(len(answers), _MAX_COPIED_ROWS)))
        self._ngrams = NgramOverlap([_spoken(turns) for turns in turns_of_test])
        self._nearest = NearestRows([_prompt(turns_of_test[test]) for test in chosen])
        self._right = [answers[test] for test in chosen]
        self._copied: list[Answer | None] = [None] * len(chosen)

    @property
    def num_test_rows(self) -> int:
        return len(self._test_lines)

    @property
    def num_train_rows(self) -> int:
        return len(self._train_lines)

    def add(self, row: RowKept) -> None:
        """Take the next training row."""
        fingerprint = Fingerprint.across_labels(row.conversation)
        number = len(self._train_lines)
        self._train_lines.append(row.line)
        self._search.add(fingerprint)
        self._ngrams.add(_spoken(fingerprint.turns))
        prompt = _prompt(fingerprint.turns)
        nearer = self._nearest.add(number, prompt)
        if len(nearer):
            answer = Answer.of(row.conversation)
            for test in nearer.tolist():
                self._copied[test] = answer
        if tests := self._test_of_prompt.get(prompt):
            self._tests_hit["prompt"].update(tests)
            self._num_prompts_hit += 1
        if tests := self._test_of_digest.get(fingerprint.exact):
            self._tests_hit["exact"].update(tests)
            self._exact_rows.add(number)
            line = self._test_lines[tests[0]]
            self.exact.append(RowOverlap(train_line=row.line, test_line=line, kind="exact", similarity=1))

    def find_near(self, run: Run) -> Generator[RowOverlap]:
        """Yield for each training row that nearly equals test rows the most similar of them."""
        search, num_tests = self._search, self.num_test_rows
        search.finish()
        with Progress("compare", search.num_rows, unit="rows", run=run) as progress:
            for row, candidates in search.walk():
                progress.update(row)
                if row < num_tests:
                    continue
                search.leave_out(row)
                if row - num_tests in self._exact_rows:
                    continue
                matches = list(search.matches(row, candidates))
                if matches:
                    self._tests_hit["near"].update(test for test, _ in matches)
                    test, similarity = max(matches, key=lambda match: match[1])
                    yield RowOverlap(
                        train_line=self._train_lines[row - num_tests],
                        test_line=self._test_lines[test],
                        kind="near",
                        similarity=round(similarity, 4),
                    )

    def sum_up(self, near: Sequence[RowOverlap]) -> Leakage:
        """Return the numbers when all training rows were seen."""
        shares = [share for share in self._ngrams.shares() if share is not None]
        hit = self._tests_hit
        return Leakage(
            num_train_rows=len(self._train_lines),
            num_test_rows=self.num_test_rows,
            exact=OverlapCount(num_test_rows=len(hit["exact"]), num_train_rows=len(self._exact_rows)),
            near=OverlapCount(num_test_rows=len(hit["near"]), num_train_rows=len(near)),
            same_prompt=OverlapCount(num_test_rows=len(hit["prompt"]), num_train_rows=self._num_prompts_hit),
            ngram=NgramShare(
                num_test_rows=sum(share > 0 for share in shares),
                num_half_rows=sum(share >= _HALF for share in shares),
                num_counted_rows=len(shares),
                mean_share=round(statistics.fmean(shares), 4) if shares else None,
            ),
            copier=score_copies(self._right, self._copied, self._nearest.similarity.tolist()),
        )


def _prompt(turns: Turns) -> tuple[str, ...]:
    """Return the words of all user turns."""
    return tuple(
        word for role, words in zip(turns.roles, turns.words, strict=True) if role == "user" for word in words
    )


def _spoken(turns: Turns) -> list[tuple[str, ...]]:
    """Return the words of what people and the assistant say, by turn; tool results repeat by nature."""
    return [
        words for role, words in zip(turns.roles, turns.words, strict=True) if role in {"user", "assistant"}
    ]
