"""Estimated against measured memory, by source; and the start of ``llmops vram estimate`` against bare Python.

Run ``python benchmarks/bench_vram.py [--rows] [--runs N]``. The measured rows are ``tests/assets/vram_measured.jsonl``:
published numbers, those of the `calibration` split were seen while the overhead factors were chosen, those of the
`holdout` split were not. Errors are (estimate - measured) / measured. Prints CPU seconds as medians, variants in turn.
Exits 1 when a target is missed on the clean rows of the hold-out.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.vram.estimator import estimate_once, read_model
from pipeline.vram.fields import Fields
from pipeline.vram.registry import find_gpu

ROWS = Path(__file__).resolve().parent.parent / "tests" / "assets" / "vram_measured.jsonl"
MEAN_ERROR, BIAS, SHORTFALL, START_RATIO = 0.08, 0.04, 0.15, 4.0
_REQUEST = {"model": "meta-llama/Llama-3.1-8B", "method": "qlora", "gpu": "T4"}


class Outcome(NamedTuple):
    """One measured row and its estimate."""

    row: dict[str, Any]
    error: float
    error_of_high: float


def main() -> int:
    """Print the tables; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", action="store_true", help="print every row")
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    outcomes = [compare(json.loads(line)) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    if arguments.rows:
        for outcome in outcomes:
            print_row(outcome)
    missed = print_table(outcomes)
    missed += print_start(arguments.runs)
    for text in missed:
        print(f"MISSED: {text}")
    return 1 if missed else 0


def compare(row: dict[str, Any]) -> Outcome:
    """Estimate a measured row."""
    fields = Fields(**row["request"])
    gpu = find_gpu(fields.gpu) if fields.gpu else None
    estimate = estimate_once(fields, read_model(fields), gpu)
    found = getattr(estimate, row["metric"])
    measured = row["measured_bytes"]
    return Outcome(row, found.expected / measured - 1, found.high / measured - 1)


def print_row(outcome: Outcome) -> None:
    """Print one row with both errors."""
    request = outcome.row["request"]
    name = request.get("model") or request["config"]["model_type"]
    kind = f"{request.get('method', '')} {request.get('quantization', '')}".strip()
    shape = f"{request.get('micro_batch_size', 1)} x {request['max_length']}"
    measured = outcome.row["measured_bytes"] / 2**30
    print(
        f"{outcome.error:+7.1%} {outcome.error_of_high:+7.1%} {measured:7.2f} GiB {outcome.row['metric']:9} "
        f"{request.get('stack', '')} {name} {kind} {shape}"
    )


def print_table(outcomes: list[Outcome]) -> list[str]:
    """Print errors by source and return the targets that were missed."""
    groups: dict[tuple[str, str, str, bool], list[Outcome]] = {}
    for outcome in outcomes:
        row = outcome.row
        groups.setdefault((row["split"], row["source"], row["metric"], row["clean"]), []).append(outcome)
    print(f"{'split':12} {'source':58} {'metric':9} rows  mean |error|    bias   worst  worst of upper bound")
    for (split, source, metric, clean), group in groups.items():
        print(f"{split:12} {source + ('' if clean else ' *'):58} {metric:9} {describe(group)}")
    print("* not clean: rounded, ragged or under-described rows; not scored")
    clean = [outcome for outcome in outcomes if outcome.row["clean"] and outcome.row["split"] == "holdout"]
    print(f"{'holdout':12} {'all clean rows':58} {'':9} {describe(clean)}")
    errors = [outcome.error for outcome in clean]
    missed: list[str] = []
    if statistics.mean(map(abs, errors)) > MEAN_ERROR:
        missed.append(f"mean error above {MEAN_ERROR:.0%}")
    if abs(statistics.mean(errors)) > BIAS:
        missed.append(f"bias above {BIAS:.0%}")
    if min(outcome.error_of_high for outcome in clean) < -SHORTFALL:
        missed.append(f"an upper bound more than {SHORTFALL:.0%} too low")
    return missed


def describe(group: list[Outcome]) -> str:
    """Return the columns of one line."""
    errors = [outcome.error for outcome in group]
    worst = max(errors, key=abs)
    lowest = min(outcome.error_of_high for outcome in group)
    mean, bias = statistics.mean(map(abs, errors)), statistics.mean(errors)
    return f"{len(group):4} {mean:13.1%} {bias:+7.1%} {worst:+7.1%} {lowest:+21.1%}"


def print_start(num_runs: int) -> list[str]:
    """Print the start of the command against bare Python."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(_REQUEST, file)
        file.flush()
        command = str(Path(sys.executable).parent / "llmops")
        variants = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "llmops vram estimate --request FILE": [command, "vram", "estimate", "--request", file.name],
            "the same with flags (checked by pydantic)": [
                command,
                "vram",
                "estimate",
                *(part for key, value in _REQUEST.items() for part in (f"--{key}", value)),
            ],
        }
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(num_runs):
            for name, arguments in variants.items():
                taken[name].append(cpu_seconds(arguments))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    bare = medians["python -c pass"]
    for name, seconds in medians.items():
        print(f"{name:45} {seconds * 1000:6.1f} ms CPU  {seconds / bare:5.1f} x")
    quick = medians["llmops vram estimate --request FILE"] / bare
    return [f"start is {quick:.1f} times bare Python"] if quick > START_RATIO else []


def cpu_seconds(command: list[str]) -> float:
    """Return user and system seconds of a command; it may say no, which is exit status 1."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
