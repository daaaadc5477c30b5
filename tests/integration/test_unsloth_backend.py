# pyright: basic
"""Asking for Unsloth: it trains what plain TRL trains where it is installed, and the error says how where it is not.

The ordinary environment has no Unsloth (its pins exclude ours, docs/decisions/0006); run this file with the Python of
Unsloth's environment to take the other branch.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.extras import installed_version
from pipeline.core.runs import Run, list_runs

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = {
    "rank": 4,
    "alpha": 8,
    "max_steps": 6,
    "micro_batch_size": 4,
    "dtype": "float32",
    "learning_rate": 1e-3,
}


def test_unsloth_trains_as_trl_does_or_says_how_to_get_it(tiny_model: Path) -> None:
    if installed_version("unsloth"):
        _check_training(tiny_model)
    else:
        _check_refusal()


def _check_refusal() -> None:
    done = _llmops("train", "run", "any-data", "--backend", "unsloth")
    assert done.returncode == 3, done.stderr
    error = json.loads(done.stderr.strip().splitlines()[-1])
    assert error["code"] == "missing_dependency"
    assert error["details"]["missing"] == ["unsloth"]
    named = next(word for word in error["hint"].split() if word.endswith(".md"))
    assert "pip install" in (REPOSITORY / named).read_text(encoding="utf-8")


def _check_training(model: Path) -> None:
    made = _llmops(
        "synth", "generate", "--out", "data", "--num-rows", "40", "--validation-rows", "4", "--test-rows", "4"
    )
    assert made.returncode == 0, made.stderr
    by_backend = {backend: _train(backend, model) for backend in ("trl", "unsloth")}
    losses = {backend: _losses(run) for backend, run in by_backend.items()}
    assert len(losses["trl"]) == RECIPE["max_steps"]
    assert losses["unsloth"] == pytest.approx(losses["trl"], rel=1e-4)
    outcome = json.loads((by_backend["unsloth"].artifacts / "training.json").read_text(encoding="utf-8"))
    assert outcome["backend"] == "unsloth"
    assert list(by_backend["unsloth"].artifacts.glob("checkpoints/checkpoint-6/complete.json"))
    _check_adapters_agree(model, [run.artifacts / "adapter" for run in by_backend.values()])
    _check_resume(model, by_backend["unsloth"])


def _check_resume(model: Path, whole: Run) -> None:
    """Kill -9 after a checkpoint and resume: the numbers of the undisturbed run."""
    options = ["--model", str(model), "--backend", "unsloth", "--recipe", json.dumps(RECIPE)]
    command = [sys.executable, "-m", "pipeline", "train", "run", "data", *options]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    known = {run.id for run in list_runs()}
    killed: Run | None = None
    deadline = time.monotonic() + 180
    while killed is None and time.monotonic() < deadline:
        fresh = [run for run in list_runs() if run.id not in known]
        if fresh and list(fresh[0].artifacts.glob("checkpoints/checkpoint-[2-5]/complete.json")):
            killed = fresh[0]
            process.send_signal(signal.SIGKILL)
        time.sleep(0.005)
    process.wait()
    assert killed is not None
    assert killed.state() == "interrupted"
    assert _llmops("jobs", "resume", killed.id).returncode == 0
    while killed.state() in {"running", "queued"} and time.monotonic() < deadline:
        time.sleep(0.3)
    assert killed.state() == "succeeded", (killed.path / "log.txt").read_text(encoding="utf-8")
    for key in ("loss", "grad_norm", "eval_loss"):
        numbers = [
            {line["step"]: line[key] for line in run.metrics() if key in line} for run in (killed, whole)
        ]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)


def _train(backend: str, model: Path) -> Run:
    options = ["--model", str(model), "--backend", backend, "--recipe", json.dumps(RECIPE)]
    done = _llmops("train", "run", "data", *options)
    assert done.returncode == 0, done.stderr
    return Run.open(json.loads(done.stdout)["run_id"])


def _losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.metrics() if "loss" in line]


def _check_adapters_agree(model: Path, adapters: list[Path]) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def logits(adapter: Path | None) -> Any:
        base = AutoModelForCausalLM.from_pretrained(model)
        with torch.no_grad():
            return (PeftModel.from_pretrained(base, adapter) if adapter else base)(
                torch.arange(12)[None]
            ).logits

    base, first, second = logits(None), *(logits(adapter) for adapter in adapters)
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(first, base)


def _llmops(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
