"""Near-duplicate removal by ``data clean``: what it finds, what it loses, what it costs.

Run ``python benchmarks/bench_deduplicate.py [--rows 200000] [--speed-rows 20000] [--runs 5]``. Makes two-turn rows with
planted copies (0 to 8 words changed) and traps (one of 50 openings, another answer), finds every pair with an exact
Jaccard index of at least 0.8 by a join of its own (prefix filter, Chaudhuri, Ganti, Kaushik: ICDE 2006), and holds the
drop list of ``llmops data clean --steps exact,near`` against it. The cost is CPU seconds (user and system, all threads, imports included) of a child
process; the baseline, in turn with it, signs the same shingles with ``MinHash.update()`` one by one and looks each row up
in ``MinHashLSH(params=(25, 5))``, without verifying. Exits 1 when a target is missed.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

THRESHOLD = 0.8
MIN_RECALL, MIN_PRECISION, MIN_RATIO = 0.93, 0.99, 4.0
_NUM_OPENINGS = 50
_COPY_SHARE, _TRAP_SHARE = 0.12, 0.03
_WORD = re.compile(r"[a-z0-9]+")


class Cost(NamedTuple):
    """What a child process took."""

    cpu_seconds: float
    peak_mb: float


class Quality(NamedTuple):
    """The drop list against the truth."""

    num_dropped: int
    num_expected: int
    recall: float
    precision: float
    num_lost: int
    num_traps_dropped: int


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--speed-rows", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--baseline", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.baseline:
        run_baseline(options.baseline)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> int:
    """Make both files, run everything, and return the exit status."""
    rows, traps = make_rows(options.rows)
    write(folder / "rows.jsonl", rows)
    write(folder / "few.jsonl", rows[: options.speed_rows])
    cost = run_clean(folder, "rows")
    quality = judge(rows, traps, folder / "rows.clean.drops.jsonl")
    ours: list[Cost] = []
    baselines: list[Cost] = []
    for _ in range(options.runs):
        ours.append(run_clean(folder, "few"))
        baselines.append(run_child([sys.executable, __file__, "--baseline", str(folder / "few.jsonl")]))
    fast, slow = median(ours), median(baselines)
    per_row = (cost.peak_mb - fast.peak_mb) * 1e6 / max(1, options.rows - options.speed_rows)
    print(f"rows {options.rows}, of {(folder / 'rows.jsonl').stat().st_size / 1e6:.0f} MB")
    print(f"{'dropped / by exact keep-first':<44}{quality.num_dropped} / {quality.num_expected}")
    print(f"{'recall (aim 0.93)':<44}{quality.recall:.4f}")
    print(f"{'precision (aim 0.99)':<44}{quality.precision:.4f}")
    print(f"{'lost: dropped without a kept exact partner':<44}{quality.num_lost}")
    print(f"{'traps dropped, of ' + str(len(traps)):<44}{quality.num_traps_dropped}")
    print(f"{'CPU s, rows a CPU s':<44}{cost.cpu_seconds:.1f}, {options.rows / cost.cpu_seconds:.0f}")
    print(f"{'peak memory, and bytes per further row':<44}{cost.peak_mb:.0f} MB, {per_row:.0f}")
    print(f"rows {options.speed_rows}, median of {options.runs} runs in turn")
    print(f"{'CPU s: data clean / update() and LSH':<44}{fast.cpu_seconds:.2f} / {slow.cpu_seconds:.2f}")
    print(f"{'ratio (aim 4)':<44}{slow.cpu_seconds / fast.cpu_seconds:.1f}")
    is_met = (
        quality.recall >= MIN_RECALL
        and quality.precision >= MIN_PRECISION
        and not quality.num_lost
        and not quality.num_traps_dropped
        and slow.cpu_seconds / fast.cpu_seconds >= MIN_RATIO
    )
    return 0 if is_met else 1


def make_rows(num_rows: int) -> tuple[list[tuple[str, str]], set[int]]:
    """Return two-turn rows in a shuffled order, and which of them are traps."""
    source = random.Random(2026)
    vocabulary = [
        "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(3, 9))) for _ in range(20_000)
    ]
    openings = [source.choices(vocabulary, k=20) for _ in range(_NUM_OPENINGS)]
    num_copies, num_traps = int(num_rows * _COPY_SHARE), int(num_rows * _TRAP_SHARE)
    originals = [
        (
            source.choices(vocabulary, k=source.randint(8, 30)),
            source.choices(vocabulary, k=source.randint(15, 60)),
        )
        for _ in range(num_rows - num_copies - num_traps)
    ]
    labelled = [(user, answer, False) for user, answer in originals]
    for _ in range(num_copies):
        user, answer = source.choice(originals)
        words = [*user, *answer]
        for _ in range(source.randint(0, 8)):
            words[source.randrange(len(words))] = source.choice(vocabulary)
        labelled.append((words[: len(user)], words[len(user) :], False))
    for _ in range(num_traps):
        labelled.append((source.choice(openings), source.choices(vocabulary, k=40), True))
    source.shuffle(labelled)
    rows = [(" ".join(user), " ".join(answer)) for user, answer, _ in labelled]
    return rows, {number for number, (_, _, is_trap) in enumerate(labelled) if is_trap}


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write rows as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        for user, answer in rows:
            turns = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")


def shingle(row: tuple[str, str]) -> set[str]:
    """Return the word 3-grams of both turns; written a second time here so that a slip in the tool shows."""
    words = ["<user>", *_WORD.findall(row[0].lower()), "<assistant>", *_WORD.findall(row[1].lower())]
    return {" ".join(words[start : start + 3]) for start in range(len(words) - 2)}


def find_pairs(sets: list[set[str]]) -> Generator[tuple[int, int]]:
    """Yield every pair (later, earlier) with a Jaccard index of at least the threshold, complete.

    Two sets can only reach it when they share one of the rarest elements of each: the first n - ceil(t n) + 1.
    """
    frequency = Counter(element for elements in sets for element in elements)
    index: dict[str, list[int]] = defaultdict(list)
    for number, elements in enumerate(sets):
        ordered = sorted(elements, key=lambda element: (frequency[element], element))
        prefix = ordered[: len(ordered) - -(-len(ordered) * 8 // 10) + 1]
        for other in sorted({other for element in prefix for other in index[element]}):
            common = len(elements & sets[other])
            if 10 * common >= 8 * (len(elements) + len(sets[other]) - common):
                yield number, other
        for element in prefix:
            index[element].append(number)


def judge(rows: list[tuple[str, str]], traps: set[int], drops_file: Path) -> Quality:
    """Compare a drop list with the truth."""
    partners: dict[int, set[int]] = defaultdict(set)
    for later, earlier in find_pairs([shingle(row) for row in rows]):
        partners[later].add(earlier)
    expected: set[int] = set()
    for number in range(len(rows)):
        if partners.get(number, set()) - expected:
            expected.add(number)
    drops: list[dict[str, Any]] = [
        json.loads(line) for line in drops_file.read_text(encoding="utf-8").splitlines()
    ]
    kept_partner = {drop["line"] - 1: drop["partner_line"] - 1 for drop in drops}
    dropped = set(kept_partner)
    return Quality(
        num_dropped=len(dropped),
        num_expected=len(expected),
        recall=len(dropped & expected) / len(expected),
        precision=sum(bool(partners.get(row)) for row in dropped) / len(dropped),
        num_lost=sum(
            kept in dropped or kept not in partners.get(row, set()) for row, kept in kept_partner.items()
        ),
        num_traps_dropped=len(dropped & traps),
    )


def run_clean(folder: Path, stem: str) -> Cost:
    """Clean a file as a user would."""
    command = [sys.executable, "-m", "pipeline", "data", "clean", f"{stem}.jsonl", "--steps", "exact,near"]
    return run_child(command, LLMOPS_WORKSPACE=str(folder))


def run_child(command: list[str], **environment: str) -> Cost:
    """Run a command and return what it took."""
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def median(costs: list[Cost]) -> Cost:
    """Return the medians of both columns."""
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def run_baseline(path: Path) -> None:
    """Deduplicate the way datasketch's introduction shows it: one ``update()`` a shingle, one query a row."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=128, params=(25, 5))
    for number, row in enumerate(read(path)):
        signature = MinHash(num_perm=128)
        for element in shingle(row):
            signature.update(element.encode("utf-8"))
        if not index.query(signature):
            index.insert(number, signature)


def read(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the rows that :func:`write` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            user, answer = json.loads(line)["messages"]
            yield user["content"], answer["content"]


if __name__ == "__main__":
    sys.exit(main())
