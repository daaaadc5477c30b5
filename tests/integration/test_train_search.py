"""Searches and verdicts on real training runs of a tiny random model."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.files import write_jsonl
from pipeline.core.runs import Run, list_runs
from pipeline.synth.generate import SYNTH_GENERATE
from pipeline.train.compare import TRAIN_COMPARE
from pipeline.train.diagnose import TRAIN_DIAGNOSE
from pipeline.train.learning_rate import TRAIN_LEARNING_RATE
from pipeline.train.run import TRAIN_RUN
from pipeline.train.tune import TRAIN_TUNE

pytestmark = pytest.mark.slow

RECIPE: dict[str, Any] = {
    "method": "full",
    "max_steps": 8,
    "micro_batch_size": 2,
    "learning_rate": 1e-3,
    "early_stopping_patience": None,
    "report_to": [],
}


@pytest.fixture
def request_values(workspace: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    SYNTH_GENERATE.call({"out": "data", "num_rows": 60, "validation_rows": 8, "test_rows": 4})
    return {"data": "data", "model": "tiny", "recipe": RECIPE, "backend": "trl"}


def test_a_sweep_prunes_rates_that_learn_nothing_and_names_the_best(request_values: dict[str, Any]) -> None:
    result = TRAIN_TUNE.call({**request_values, "search": {"learning_rate": [1e-3, 3e-3, 1e-7]}})
    assert result.best_recipe["learning_rate"] == 3e-3
    assert [trial.state for trial in result.trials] == ["complete", "complete", "pruned"]
    hopeless = result.trials[-1]
    assert hopeless.values == {"learning_rate": 1e-7}
    assert Run.open(hopeless.run_id).state() == "cancelled"
    assert any("edge" in warning for warning in result.warnings)
    assert (Run.open(result.run_id).artifacts / "tune.png").exists()
    best = Run.open(result.best_run_id)
    assert (best.state(), best.manifest()["operation"]) == ("succeeded", "train.run")
    compared = TRAIN_COMPARE.call({"run_ids": [trial.run_id for trial in result.trials]})
    assert compared.best == result.best_run_id
    assert compared.runs[0].changed == {"learning_rate": 3e-3}


def test_a_killed_sweep_goes_on_with_the_trials_it_had(request_values: dict[str, Any]) -> None:
    values = {**request_values, "search": {"rank": [2, 4]}, "prune": False}
    values["recipe"] = {**RECIPE, "method": "lora", "alpha": 8}
    run = Run.create("train.tune", TRAIN_TUNE.parse(values).model_dump(mode="json"), state="queued")
    command = [sys.executable, "-m", "pipeline", "jobs", "work", run.id]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as worker:
        trials = _wait_for_trials(2, worker)
        worker.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while trials[1].state() in {"running", "queued"} and time.monotonic() < deadline:
        time.sleep(0.1)
    assert trials[1].state() == "interrupted"  # the trial did not outlive its search
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert [found.id for found in _find_trials()] == [trial.id for trial in trials]
    assert run.state() == "succeeded"
    assert all(trial.state() == "succeeded" for trial in trials)


def test_the_range_test_is_one_ordinary_run_whose_rate_rises_in_a_line(
    request_values: dict[str, Any],
) -> None:
    result = TRAIN_LEARNING_RATE.call({**request_values, "highest": 1.0, "num_steps": 24})
    rates = [
        line["learning_rate"] for line in Run.open(result.trial_run_id).metrics() if "learning_rate" in line
    ]
    assert rates == pytest.approx([step / 24 for step in range(24)], abs=1e-6)
    assert 0 < result.suggested_learning_rate < result.turning_learning_rate <= 1.0
    assert (Run.open(result.run_id).artifacts / "learning_rate.png").exists()


def test_a_rate_that_moves_nothing_has_learned_nothing(request_values: dict[str, Any]) -> None:
    recipe = {**RECIPE, "max_steps": 24, "learning_rate": 1e-8}
    result = TRAIN_RUN.call({**request_values, "recipe": recipe})
    assert TRAIN_DIAGNOSE.call({"run_id": result.run_id}).verdict == "nothing learned"


def test_learning_eight_rows_by_heart_is_over_fit(workspace: Path, request_values: dict[str, Any]) -> None:
    def row(question: str, answer: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

    # Every answer of validation is one that training never gives: learning the training answers can only harm.
    write_jsonl(workspace / "odd" / "train.jsonl", [row(f"Say {i}", "yes " * 8) for i in range(8)])
    write_jsonl(workspace / "odd" / "validation.jsonl", [row(f"Say {i}", "no " * 8) for i in range(4)])
    recipe = {**RECIPE, "max_steps": 60, "learning_rate": 1e-2}
    result = TRAIN_RUN.call({**request_values, "data": "odd", "recipe": recipe})
    assert TRAIN_DIAGNOSE.call({"run_id": result.run_id}).verdict == "over-fit"


def _find_trials() -> list[Run]:
    return sorted(
        (run for run in list_runs() if run.manifest()["operation"] == "train.run"), key=lambda run: run.id
    )


def _wait_for_trials(num: int, worker: "subprocess.Popen[bytes]") -> list[Run]:
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        trials = _find_trials()
        if len(trials) >= num and trials[-1].metrics():
            return trials
        assert worker.poll() is None, "the search ended before it could be killed"
        time.sleep(0.02)
    raise AssertionError(os.linesep.join(run.id for run in list_runs()))
