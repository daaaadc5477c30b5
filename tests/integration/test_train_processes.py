# pyright: basic
"""Two processes train as one: the same losses at the same global batch, within 1e-4 relative.

Sums of 32-bit numbers in another order (each process adds up its half, DDP adds the halves) differ in the last digits;
Adam divides by small second moments, which enlarges that a little with every step.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pipeline.core.files import write_jsonl
from pipeline.core.runs import Run

pytestmark = pytest.mark.slow

RECIPE = {
    "rank": 4,
    "alpha": 8,
    "max_steps": 6,
    "micro_batch_size": 4,
    "dtype": "float32",
    "learning_rate": 1e-3,
}


@pytest.fixture
def rows(workspace: Path) -> Path:
    """48 training rows (six global batches of eight) and 5 validation rows, an odd number for two processes."""

    def row(number: int) -> dict[str, Any]:
        question = f"What is {number} plus {number}?" + " Please." * (number % 7)
        system = {
            "role": "system",
            "content": "You are a calculator that answers in one short sentence, always.",
        }
        answer = {"role": "assistant", "content": f"It is {2 * number}."}
        return {"messages": [system, {"role": "user", "content": question}, answer]}

    write_jsonl(workspace / "data" / "train.jsonl", [row(number) for number in range(48)])
    write_jsonl(workspace / "data" / "validation.jsonl", [row(number) for number in range(60, 65)])
    return workspace / "data"


def _train(model: Path, rows: Path, accumulation: int, num_processes: int) -> Run:
    recipe = {**RECIPE, "gradient_accumulation_steps": accumulation}
    options = ["--model", str(model), "--recipe", json.dumps(recipe), "--backend", "trl"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipeline",
            "train",
            "run",
            str(rows),
            *options,
            f"--num-processes={num_processes}",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return Run.open(json.loads(done.stdout)["run_id"])


def _by_step(run: Run, key: str) -> dict[int, float]:
    found = [(line["step"], line[key]) for line in run.metrics() if key in line]
    assert len(found) == len(dict(found))  # one process writes
    return dict(found)


def test_two_processes_get_the_losses_of_one(tiny_model: Path, rows: Path) -> None:
    alone, together = _train(tiny_model, rows, 2, 1), _train(tiny_model, rows, 1, 2)
    outcome = json.loads((together.artifacts / "training.json").read_text(encoding="utf-8"))["outcome"]
    assert (outcome["num_processes"], outcome["shared_prefix"]) == (2, True)
    for key in ("loss", "eval_loss", "grad_norm"):
        assert sorted(_by_step(together, key)) == list(range(1, 7))
        assert _by_step(together, key) == pytest.approx(_by_step(alone, key), rel=1e-4)
    first, second = (
        load_file(run.artifacts / "adapter" / "adapter_model.safetensors") for run in (alone, together)
    )
    apart = sum(float((first[name] - second[name]).square().sum()) for name in first)
    assert (apart / sum(float(value.square().sum()) for value in first.values())) ** 0.5 < 1e-3


def test_what_a_process_refuses_reaches_the_caller(tiny_model: Path, rows: Path) -> None:
    recipe = {**RECIPE, "target_modules": ["no_such_proj"]}
    options = ["--model", str(tiny_model), "--recipe", json.dumps(recipe), "--backend", "trl"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "train", "run", str(rows), *options, "--num-processes=2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    error = json.loads(done.stderr.strip().splitlines()[-1])
    assert (error["code"], error["details"]["target"]) == ("invalid_input", "no_such_proj")
