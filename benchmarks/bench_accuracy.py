"""Whole-turn accuracy of a training run against rows seen and minutes: each checkpoint converted, served and evaluated.

Run ``python benchmarks/bench_accuracy.py collect RUN --keep FOLDER`` while ``llmops train run`` works on RUN (training
keeps two checkpoints only; this links the weights of each as it comes), then
``python benchmarks/bench_accuracy.py measure FOLDER --cases test.jsonl --limit 100 --global-batch 16``.
Every point asks the same cases, drawn with seed 0, of a q8_0 file. Prints the table and draws accuracy.png in FOLDER.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_WEIGHTS = ("*.safetensors", "*.json", "*.jinja")


def main() -> None:
    """Link checkpoints, or measure what was linked."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    collecting = verbs.add_parser("collect")
    collecting.add_argument("run", type=Path)
    collecting.add_argument("--keep", type=Path, required=True)
    measuring = verbs.add_parser("measure")
    measuring.add_argument("keep", type=Path)
    measuring.add_argument("--cases", type=Path, required=True)
    measuring.add_argument("--limit", type=int, default=100)
    measuring.add_argument("--global-batch", type=int, required=True, help="rows an optimizer step")
    measuring.add_argument("--steps", type=int, nargs="*", help="only these checkpoints")
    arguments = parser.parse_args()
    if arguments.verb == "collect":
        collect(arguments.run, arguments.keep)
    else:
        found = [
            measure(folder, arguments)
            for folder in sorted(arguments.keep.glob("checkpoint-*/"), key=step_of)
            if not arguments.steps or step_of(folder) in arguments.steps
        ]
        draw(found, arguments.keep / "accuracy.png")


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def collect(run: Path, keep: Path) -> None:
    """Hard-link the weights of every complete checkpoint until the run has ended."""
    keep.mkdir(parents=True, exist_ok=True)
    while True:
        has_ended = json.loads((run / "manifest.json").read_text())["status"] not in {"queued", "running"}
        for mark in run.glob("artifacts/checkpoints/checkpoint-*/complete.json"):
            target = keep / mark.parent.name
            if target.exists() or not target.name.removeprefix("checkpoint-").isdigit():
                continue
            partial = keep / f"partial-{target.name}"
            partial.mkdir(exist_ok=True)
            for file in (file for pattern in _WEIGHTS for file in mark.parent.glob(pattern)):
                os.link(file, partial / file.name)
            partial.rename(target)
            print(f"kept {target.name}", flush=True)
        if has_ended:
            return
        time.sleep(2)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Convert and evaluate one checkpoint; what an earlier call measured is read."""
    stored = folder / "accuracy.json"
    if not stored.exists():
        gguf = folder / "model-q8_0.gguf"
        call_llmops("export", "convert", folder, "--quantization", "q8_0", "--out", gguf)
        result = call_llmops(
            *("evals", "run", "--cases", arguments.cases, "--serve", gguf),
            *("--limit", arguments.limit, "--label", folder.name, "--concurrency", 1),
        )
        gguf.unlink()
        stored.write_text(json.dumps(result))
    result = json.loads(stored.read_text())
    complete = json.loads((folder / "complete.json").read_text())
    point = {
        "step": complete["step"],
        "rows": complete["step"] * arguments.global_batch,
        "minutes": complete["train_seconds"] / 60,
        **{name: result[name] for name in ("whole_turn", "right_arguments", "no_call")},
    }
    rates = " | ".join(show(point[name]) for name in ("whole_turn", "right_arguments", "no_call"))
    print(f"| {point['step']} | {point['rows']:,} | {point['minutes']:.1f} | {rates} |", flush=True)
    return point


def call_llmops(*words: object) -> dict[str, Any]:
    """Run the command line tool and return its result; exit status 1 is a measured "no"."""
    command = [sys.executable, "-m", "pipeline", *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in {0, 1}:
        raise SystemExit(f"failed: {' '.join(command)}")
    return json.loads(done.stdout)


def show(rate: dict[str, Any]) -> str:
    """Return a rate with its 95 % interval."""
    if not rate["total"]:
        return "-"
    return f"{rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] ({rate['right']}/{rate['total']})"


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy with intervals against rows, the minutes written at the points."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    rows = [point["rows"] for point in points]
    rates = [point["whole_turn"] for point in points]
    values = [rate["rate"] for rate in rates]
    errors = [
        [max(0, rate["rate"] - rate["low"]) for rate in rates],
        [max(0, rate["high"] - rate["rate"]) for rate in rates],
    ]
    axes.errorbar(rows, values, yerr=errors, marker="o", capsize=3, label="whole turn right, 95 % interval")
    for point, value in zip(points, values, strict=True):
        axes.annotate(
            f"{point['minutes']:.0f} min", (point["rows"], value), (4, -12), textcoords="offset points"
        )
    axes.axhline(0.95, linestyle="--", linewidth=1, color="grey", label="aim, for the lower end")
    axes.set(xlabel="training rows seen", ylabel="share of held-out turns", ylim=(0, 1.02))
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
