# pyright: basic
"""The cleaning of :mod:`pipeline.data.clean` as datatrove stages: many files, many processes, many machines.

    sign     a task per shard       judge rows; keep what they are compared by; spread keys over partitions
    equal    a task per partition   rows that equal an earlier one
    pair     a task per partition   near-duplicate pairs among the others that share a band, verified exactly
    decide   one task               keep-first in the order of shards and lines
    write    a task per shard       the rows that stay, and the drop list

Settings, row filter, fingerprints, bands and the decision about a pair are those of one machine, and so is the result.
A stage is a list with one step for any datatrove executor; tasks meet only in the files of the work folder, which all
machines must see. A row's number is ``shard * 2^32 + place``, so that numbers are in file order.
"""

import json
from collections.abc import Generator, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from pipeline.core.errors import PipelineError
from pipeline.core.files import open_atomic, write_json
from pipeline.data.backends.near_duplicates import NUM_BANDS, make_keys
from pipeline.data.backends.row_store import RowStore, find_matches
from pipeline.data.backends.work_tables import digest_columns
from pipeline.data.clean_passes import Drop
from pipeline.data.clean_rows import RowDrop, RowKept
from pipeline.data.clean_settings import CleanSettings
from pipeline.data.deduplicate import Fingerprint, Turns
from pipeline.data.reader import read_lines

ERROR_FILE = "error.json"
_BATCH_ROWS = 4096
_SHARD_SHIFT = 32
_PLACE_MASK = (1 << _SHARD_SHIFT) - 1
_KEY = np.dtype([("key", "<u8"), ("row", "<u8")])
_DIGEST = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u8")])
_PAIR = np.dtype([("row", "<u8"), ("partner", "<u8"), ("similarity", "<f8")])


def clean_shards(
    settings: CleanSettings, shards: list[Path], out: Path, work: Path, num_workers: int
) -> None:
    """Run all stages on this machine."""
    stages = build_stages(settings, shards, out, work)
    for number, (step, num_tasks) in enumerate(stages):
        LocalPipelineExecutor(
            [step], tasks=num_tasks, workers=num_workers, logging_dir=str(work / "logs" / str(number))
        ).run()


def build_stages(
    settings: CleanSettings, shards: list[Path], out: Path, work: Path
) -> list[tuple[PipelineStep, int]]:
    """Return each stage's step and number of tasks, in order; a stage needs all tasks of the one before."""
    num_partitions = len(shards)
    return [
        (SignStep(settings, shards, work, num_partitions), len(shards)),
        (EqualStep(work), num_partitions),
        (PairStep(settings.threshold, work), num_partitions),
        (DecideStep(work, len(shards)), 1),
        (WriteStep(shards, out, work), len(shards)),
    ]


class SignStep(PipelineStep):
    """Judge the rows of a shard and spread what they are compared by over the partitions."""

    type, name = "cleaning", "sign"

    def __init__(self, settings: CleanSettings, shards: list[Path], work: Path, num_partitions: int) -> None:
        super().__init__()
        self.settings, self.shards, self.work, self.num_partitions = settings, shards, work, num_partitions

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Do one shard."""
        folder = _shard_folder(self.work, rank)
        folder.mkdir(parents=True, exist_ok=True)
        compares = bool({"exact", "near"} & set(self.settings.steps))
        keys: list[np.ndarray] = []
        digests: list[np.ndarray] = []
        batch: list[tuple[Fingerprint, list[int]]] = []
        lines: list[int] = []
        with (
            RowStore(folder) as store,
            (folder / "rows.jsonl").open("wb") as rows,
            (folder / "drops.jsonl").open("w", encoding="utf-8") as drops,
        ):
            for row in self._judge(rank):
                if isinstance(row, RowDrop):
                    drops.write(json.dumps(row) + "\n")
                    continue
                rows.write(row.raw + b"\n")
                lines.append(row.line)
                if compares:
                    fingerprint = Fingerprint.of(row.conversation)
                    batch.append((fingerprint, store.add(fingerprint)))
                if len(batch) == _BATCH_ROWS:
                    self._collect(batch, _number(rank, len(lines) - len(batch)), keys, digests)
                    batch = []
        self._collect(batch, _number(rank, len(lines) - len(batch)), keys, digests)
        np.save(folder / "lines.npy", np.array(lines, dtype=np.uint64))
        self._spread("keys", rank, np.concatenate([np.empty(0, _KEY), *keys]), "key")
        self._spread("digests", rank, np.concatenate([np.empty(0, _DIGEST), *digests]), "low")

    def _judge(self, rank: int) -> Generator[RowKept | RowDrop]:
        row_filter = self.settings.make_filter()
        try:
            for line in read_lines(self.shards[rank]):
                yield row_filter.judge(line)
        except PipelineError as error:
            # Our errors do not survive the way between processes; whoever started the stages reads the file.
            message = f"{self.shards[rank].name}: {error}"
            write_json(self.work / ERROR_FILE, {"message": message, "hint": error.hint})
            raise RuntimeError(message) from None

    def _collect(
        self,
        batch: list[tuple[Fingerprint, list[int]]],
        first: int,
        keys: list[np.ndarray],
        digests: list[np.ndarray],
    ) -> None:
        if not batch:
            return
        rows = np.arange(first, first + len(batch), dtype=np.uint64)
        if "exact" in self.settings.steps:
            columns = digest_columns([fingerprint.exact for fingerprint, _ in batch], "high", "low")
            digests.append(_table(_DIGEST, row=rows, **columns))
        if "near" in self.settings.steps:
            places, found = make_keys(batch, within_labels=True)
            owners = np.repeat(rows[places], NUM_BANDS)
            keys.append(_table(_KEY, key=np.ascontiguousarray(found).reshape(-1), row=owners))

    def _spread(self, kind: str, rank: int, table: np.ndarray, column: str) -> None:
        partitions = table[column] % np.uint64(self.num_partitions)
        for partition in range(self.num_partitions):
            folder = _partition_folder(self.work, partition)
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{kind}-{rank:06d}.npy", table[partitions == partition])


class EqualStep(PipelineStep):
    """Find the equal rows of a partition."""

    type, name = "cleaning", "equal"

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work = work

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Do one partition."""
        folder = _partition_folder(self.work, rank)
        np.save(folder / "equal.npy", _find_equal(_load(folder, "digests", _DIGEST)))


class PairStep(PipelineStep):
    """Find the near-duplicate pairs of a partition; what equals an earlier row goes anyway and makes no pair."""

    type, name = "cleaning", "pair"

    def __init__(self, threshold: float, work: Path) -> None:
        super().__init__()
        self.threshold, self.work = threshold, work

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Do one partition."""
        folder = _partition_folder(self.work, rank)
        keys = _load(folder, "keys", _KEY)
        keys = keys[~np.isin(keys["row"], _load_all(self.work, "equal")["row"])]
        rows = _Shards(self.work)
        pairs = [
            (row, candidate, similarity)
            for row, candidates in _list_candidates(keys)
            for candidate, similarity in find_matches(rows, row, candidates, self.threshold)
        ]
        np.save(folder / "near.npy", np.array(pairs, dtype=_PAIR))


class DecideStep(PipelineStep):
    """Decide in order which rows go: keep-first, and only for a partner that stays."""

    type, name = "cleaning", "decide"

    def __init__(self, work: Path, num_shards: int) -> None:
        super().__init__()
        self.work, self.num_shards = work, num_shards

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Do everything; there is one task."""
        equal = _load_all(self.work, "equal")
        partners = dict(zip(equal["row"].tolist(), equal["partner"].tolist(), strict=True))
        gone: dict[int, tuple[int, float]] = {}
        for row, partner, similarity in np.unique(
            _load_all(self.work, "near")
        ).tolist():  # by row, then partner
            if row not in gone and partner not in gone:
                gone[row] = (partner, similarity)
        decisions: list[list[list[Any]]] = [[] for _ in range(self.num_shards)]
        for row, first in partners.items():
            partner, similarity = gone.get(first, (first, 1.0))
            reason = "near_duplicate" if first in gone else "exact_duplicate"
            decisions[row >> _SHARD_SHIFT].append([row & _PLACE_MASK, reason, partner, similarity])
        for row, (partner, similarity) in gone.items():
            decisions[row >> _SHARD_SHIFT].append([row & _PLACE_MASK, "near_duplicate", partner, similarity])
        for shard, found in enumerate(decisions):
            path = _shard_folder(self.work, shard) / "repeats.json"
            path.write_text(json.dumps(sorted(found)), encoding="utf-8")


class WriteStep(PipelineStep):
    """Write the rows of a shard that stay, and its drop list."""

    type, name = "cleaning", "write"

    def __init__(self, shards: list[Path], out: Path, work: Path) -> None:
        super().__init__()
        self.shards, self.out, self.work = shards, out, work

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Do one shard."""
        folder, name = _shard_folder(self.work, rank), shard_name(self.shards[rank])
        lines = np.load(folder / "lines.npy").tolist()
        repeats = json.loads((folder / "repeats.json").read_text(encoding="utf-8"))
        drops = [
            self._describe(Drop(lines[place], reason, similarity=round(similarity, 4)), partner, rank)
            for place, reason, partner, similarity in repeats
        ]
        for raw in (folder / "drops.jsonl").read_text(encoding="utf-8").splitlines():
            own = RowDrop(*json.loads(raw))
            drops.append({"line": own.line, "reason": own.reason, "detail": own.detail})
        with open_atomic(self.out / f"{name}.drops.jsonl") as target:
            for drop in sorted(drops, key=lambda drop: drop["line"]):
                target.write(json.dumps(drop, ensure_ascii=False).encode("utf-8") + b"\n")
        leaving = {place for place, *_ in repeats}
        with open_atomic(self.out / f"{name}.jsonl") as target, (folder / "rows.jsonl").open("rb") as rows:
            for place, raw in enumerate(rows):
                if place not in leaving:
                    target.write(raw)

    def _describe(self, drop: Drop, partner: int, rank: int) -> dict[str, Any]:
        shard = partner >> _SHARD_SHIFT
        lines = np.load(_shard_folder(self.work, shard) / "lines.npy", mmap_mode="r")
        described = {
            "line": drop.line,
            "reason": drop.reason,
            "partner_line": int(lines[partner & _PLACE_MASK]),
            "similarity": drop.similarity,
        }
        return described if shard == rank else {**described, "partner_file": self.shards[shard].name}


def shard_name(path: Path) -> str:
    """Return the name of a shard without its endings."""
    name = path.name
    for ending in (".gz", ".zst", ".jsonl"):
        name = name.removesuffix(ending)
    return name


class _Shards:
    """The rows of all shards as one, by number."""

    def __init__(self, work: Path) -> None:
        self._open = cache(lambda shard: RowStore.open(_shard_folder(work, shard)))

    def turns(self, row: int) -> Turns:
        return self._open(row >> _SHARD_SHIFT).turns(row & _PLACE_MASK)

    def hashes(self, row: int) -> np.ndarray:
        return self._open(row >> _SHARD_SHIFT).hashes(row & _PLACE_MASK)

    def num_hashes(self, rows: np.ndarray) -> np.ndarray:
        return np.array([len(self.hashes(row)) for row in rows.tolist()], dtype=np.int64)


def _find_equal(digests: np.ndarray) -> np.ndarray:
    """Return every row whose digest an earlier row has, with the first such row."""
    digests = np.sort(digests, order=["high", "low", "row"])
    same = (digests["high"][1:] == digests["high"][:-1]) & (digests["low"][1:] == digests["low"][:-1])
    starts = np.flatnonzero(np.append(True, ~same)) if len(digests) else np.empty(0, dtype=np.int64)
    firsts = np.repeat(digests["row"][starts], np.diff(np.append(starts, len(digests))))
    repeats = firsts != digests["row"]
    ones = np.ones(int(repeats.sum()))
    return _table(_PAIR, row=digests["row"][repeats], partner=firsts[repeats], similarity=ones)


def _list_candidates(keys: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
    """Yield each row with the earlier rows that share a key with it."""
    keys = np.sort(keys, order=["key", "row"])
    starts = np.flatnonzero(np.append(True, keys["key"][1:] != keys["key"][:-1])) if len(keys) else []
    earlier: dict[int, list[np.ndarray]] = {}
    for start, stop in zip(starts, np.append(starts, len(keys))[1:].astype(np.int64), strict=True):
        bucket = keys["row"][start:stop]
        for place in range(1, len(bucket)):
            earlier.setdefault(int(bucket[place]), []).append(bucket[:place])
    for row in sorted(earlier):
        yield row, np.unique(np.concatenate(earlier[row]))


def _load(folder: Path, kind: str, dtype: np.dtype) -> np.ndarray:
    parts: Iterable[Path] = sorted(folder.glob(f"{kind}-*.npy"))
    return np.concatenate([np.empty(0, dtype), *(np.load(part) for part in parts)])


def _load_all(work: Path, kind: str) -> np.ndarray:
    folders = sorted(work.glob("partition-*"))
    return np.concatenate([np.empty(0, _PAIR), *(np.load(folder / f"{kind}.npy") for folder in folders)])


def _table(dtype: np.dtype, **columns: np.ndarray) -> np.ndarray:
    table = np.empty(len(columns["row"]), dtype)
    for name, values in columns.items():
        table[name] = values
    return table


def _number(shard: int, place: int) -> int:
    return (shard << _SHARD_SHIFT) + place


def _shard_folder(work: Path, shard: int) -> Path:
    return work / f"shard-{shard:06d}"


def _partition_folder(work: Path, partition: int) -> Path:
    return work / f"partition-{partition:06d}"
