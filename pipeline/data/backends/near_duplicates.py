# pyright: basic
"""Search for equal and nearly equal rows: MinHash by datasketch, bands joined by DuckDB, every pair verified exactly.

128 permutations over xxh32 hashes of the shingles, 25 bands of 5: a pair at the threshold 0.8 is a candidate with
probability 1 - (1 - 0.8^5)^25 = 0.99995 (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4). Candidates are
decided by :func:`pipeline.data.deduplicate.find_similarity`. All state is in files below one folder.
"""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from datasketch import MinHash

from pipeline.data.backends.row_store import RowStore, find_matches
from pipeline.data.backends.work_tables import WorkTables, digest_columns
from pipeline.data.clusters import DisjointSets
from pipeline.data.deduplicate import MIN_SHINGLES, Fingerprint

NUM_PERMUTATIONS = 128
NUM_BANDS, BAND_HASHES = 25, 5
_BATCH_ROWS = 4096
_WALK_ROWS = 20_000
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: Knuth, TAOCP 3, 6.4


class Repeat(NamedTuple):
    """A row that says nearly what an earlier, kept row says."""

    row: int
    kept: int
    similarity: float


class DuplicateSearch:
    """Collects fingerprints row by row, then finds equal and similar rows among them; rows count from 0."""

    def __init__(self, tables: WorkTables, threshold: float, *, within_labels: bool) -> None:
        self.threshold = threshold
        self.num_rows = 0
        self._within_labels = within_labels
        self._tables = tables
        self._tables.run('CREATE TABLE digests ("row" UINTEGER, high UBIGINT, low UBIGINT)')
        self._tables.run('CREATE TABLE keys ("row" UINTEGER, key UBIGINT)')
        self._tables.run('CREATE TABLE repeats ("row" UINTEGER, first UINTEGER)')
        self._rows = RowStore(tables.folder)
        self._batch: list[tuple[Fingerprint, list[int]]] = []
        self._left_out = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.__exit__(kind, error, trace)

    def add(self, fingerprint: Fingerprint) -> None:
        """Take the next row."""
        self._batch.append((fingerprint, self._rows.add(fingerprint)))
        self.num_rows += 1
        if len(self._batch) == _BATCH_ROWS:
            self._store_batch()

    def finish(self) -> None:
        """Say that all rows are in."""
        self._store_batch()
        self._rows.finish()

    def find_equal(self) -> Generator[tuple[int, int]]:
        """Yield each row that equals an earlier one, with the first such row; :meth:`walk` then leaves it out."""
        self._tables.run(
            'INSERT INTO repeats SELECT "row", first FROM ('
            '  SELECT "row", min("row") OVER (PARTITION BY high, low) AS first FROM digests'
            ') WHERE "row" <> first'
        )
        yield from self._tables.stream('SELECT "row", first FROM repeats ORDER BY "row"')

    def leave_out(self, row: int) -> None:
        """Say during :meth:`walk` that the row just visited is no candidate for later rows."""
        self._left_out = row

    def walk(self) -> Generator[tuple[int, np.ndarray]]:
        """Visit in order all rows that share a band with another row; yield each with its earlier candidates."""
        tables = self._tables
        tables.run(
            "CREATE OR REPLACE TABLE buckets AS SELECT key, row_number() OVER () - 1 AS bucket,"
            "  (sum(size) OVER (ROWS UNBOUNDED PRECEDING) - size)::BIGINT AS start"
            '  FROM (SELECT key, count(*) AS size FROM keys ANTI JOIN repeats USING ("row")'
            "        GROUP BY key HAVING count(*) > 1)"
        )
        tables.run(
            'CREATE OR REPLACE TABLE entries AS SELECT "row", bucket, start FROM keys'
            '  ANTI JOIN repeats USING ("row") JOIN buckets USING (key) ORDER BY "row"'
        )
        # Each bucket has its stretch of `members`, filled from `start` as its rows are visited.
        members = _new_array(self._tables.folder / "members.bin", tables.count("entries"))
        filled = _new_array(self._tables.folder / "filled.bin", tables.count("buckets"))
        for first in range(0, self.num_rows, _WALK_ROWS):
            found = tables.columns(
                'SELECT "row", bucket, start FROM entries'
                f' WHERE "row" >= {first} AND "row" < {first + _WALK_ROWS} ORDER BY "row"'
            )
            rows, edges = np.unique(found["row"], return_index=True)
            stops = np.append(edges, len(found["row"]))[1:]
            for row, low, high in zip(rows.tolist(), edges.tolist(), stops.tolist(), strict=True):
                buckets, starts = found["bucket"][low:high], found["start"][low:high]
                counts = filled[buckets]
                yield row, _gather(members, starts, counts)
                if self._left_out != row:
                    members[starts + counts] = row
                    filled[buckets] = counts + 1

    def matches(self, row: int, candidates: np.ndarray) -> Generator[tuple[int, float]]:
        """Return the candidates that are near-duplicates of the row, with their exact similarity, in order."""
        return find_matches(self._rows, row, candidates, self.threshold)

    def find_near(self, on_row: Callable[[int], None]) -> Generator[Repeat]:
        """Yield each row that is a near-duplicate of an earlier row which is kept itself: the first such row."""
        for row, candidates in self.walk():
            on_row(row)
            match = next(self.matches(row, candidates), None)
            if match is not None:
                self.leave_out(row)
                yield Repeat(row, *match)

    def link(self, sets: DisjointSets, on_row: Callable[[int], None]) -> None:
        """Join the sets of all rows that are equal or near-duplicates, whichever came first."""
        for row, first in self.find_equal():
            sets.union(row, first)
        for row, candidates in self.walk():
            on_row(row)
            mine = sets.find(row)
            apart = [candidate for candidate in candidates.tolist() if sets.find(candidate) != mine]
            for candidate, _ in self.matches(row, np.array(apart, dtype=np.uint32)):
                sets.union(row, candidate)

    def _store_batch(self) -> None:
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        rows = np.arange(self.num_rows - len(batch), self.num_rows, dtype=np.uint32)
        digests = digest_columns([fingerprint.exact for fingerprint, _ in batch], "high", "low")
        self._tables.insert("digests", {"row": rows, **digests})
        places, keys = make_keys(batch, within_labels=self._within_labels)
        if len(places):
            owners = np.repeat(rows[places], NUM_BANDS)
            self._tables.insert("keys", {"row": owners, "key": np.ascontiguousarray(keys).reshape(-1)})


def make_keys(
    batch: Sequence[tuple[Fingerprint, list[int]]], *, within_labels: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the rows that are long enough for MinHash, and one key per such row and band."""
    long = [place for place, (_, hashes) in enumerate(batch) if len(hashes) >= MIN_SHINGLES]
    if not long:
        return np.empty(0, dtype=np.int64), np.empty((0, NUM_BANDS), dtype=np.uint64)
    labels = [batch[place][0].label if within_labels else bytes(16) for place in long]
    keys = band_keys(sign([batch[place][1] for place in long]), digest_columns(labels, "label")["label"])
    return np.array(long), keys


def sign(hashes: list[list[int]]) -> np.ndarray:
    """Return the MinHash signature of each list of 32-bit shingle hashes, a row each."""
    # The shingles are hashed already (the verification needs the hashes too), so that datasketch's hash is `int`.
    signatures = MinHash.generator(hashes, num_perm=NUM_PERMUTATIONS, hashfunc=int)
    return np.stack([signature.hashvalues for signature in signatures])


def band_keys(signatures: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return one 64-bit number per row and band: equal for equal labels and hashes, else as good as never."""
    bands = signatures[:, : NUM_BANDS * BAND_HASHES].astype(np.uint64).reshape(-1, NUM_BANDS, BAND_HASHES)
    keys = (labels[:, None] ^ np.arange(1, NUM_BANDS + 1, dtype=np.uint64)[None, :]) * _MIX
    for position in range(BAND_HASHES):
        keys = (keys ^ (keys >> np.uint64(29)) ^ bands[:, :, position]) * _MIX
    return keys ^ (keys >> np.uint64(32))


def _gather(members: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    pieces = [
        members[start : start + count]
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
        if count
    ]
    return np.unique(np.concatenate(pieces)) if pieces else np.empty(0, dtype=np.uint32)


def _new_array(path: Path, length: int) -> np.ndarray:
    """Return zeros in a file, so that the system may take their memory away."""
    return np.asarray(np.memmap(path, dtype=np.uint32, mode="w+", shape=(max(length, 1),)))
