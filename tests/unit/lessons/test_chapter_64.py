"""Chapter 64: runs that ended, curves judged again, exports whose files are the proven ones."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.runs import Run
from pipeline.doctor.run import DOCTOR_RUN
from pipeline.lessons.check import LessonCheckResult
from pipeline.train.compare import TRAIN_COMPARE
from pipeline.train.diagnose import TRAIN_DIAGNOSE
from pipeline.train.recipe import TrainRecipe

Write = Callable[[str, Any], Path]
Verdict = Callable[[str], LessonCheckResult]
LLAMA_8B = "meta-llama/Meta-Llama-3-8B"


def unmet(result: LessonCheckResult) -> list[str]:
    return [criterion.name for criterion in result.criteria if not criterion.is_met]


def train_run(
    *, losses: list[float], evaluations: dict[int, float], resumed: int | None = None, **recipe: Any
) -> Run:
    """A training run as `train run` leaves it."""
    values = TrainRecipe(**recipe).model_dump(mode="json")
    run = Run.create(
        "train.run", {"model": "m", "data": "d", "preset": "cpu-smoke", "recipe": values, "backend": "auto"}
    )
    for step, loss in enumerate(losses, start=1):
        run.log_metrics(step=step, train_seconds=step * 1.0, loss=loss, learning_rate=1e-4, grad_norm=1.0)
        if step in evaluations:
            run.log_metrics(step=step, train_seconds=step * 1.0, eval_loss=evaluations[step])
    outcome = {
        "num_steps": len(losses),
        "train_loss": losses[-1],
        "eval_loss": evaluations.get(len(losses)),
        "num_rows": 100,
        "num_rows_too_long": 0,
        "num_tokens": 1000,
        "num_trained_tokens": 200,
        "num_trainable_parameters": 10,
        "shared_prefix": True,
        "dtype": "bfloat16",
        "resumed_from_step": resumed,
    }
    training = {
        "recipe": values,
        "data": {"train_sha256": "a" * 64},
        "outcome": outcome,
        "train_seconds": 60.0,
    }
    (run.artifacts / "training.json").write_text(json.dumps(training), encoding="utf-8")
    run.finish(
        {
            "run_id": run.id,
            "num_steps": len(losses),
            "train_loss": losses[-1],
            "eval_loss": evaluations.get(len(losses)),
            "trained_share": 0.2,
            "train_seconds": 60.0,
        }
    )
    return run


def falling(num: int = 40, floor: float = 0.2) -> list[float]:
    return [floor + 2.0 * 0.9**step for step in range(num)]


def test_64_1_the_adapter_is_counted(write: Write, check: Verdict) -> None:
    card = {
        "model": LLAMA_8B,
        "rank": 16,
        "adapter_parameters": 41_943_040,
        "adapter_file_bytes_16bit": 83_886_080,
        "adapter_file_bytes_fp32": 167_772_160,
        "share": 41_943_040 / 8_030_261_248,
        "one_matrix": {"inputs": 4096, "outputs": 4096, "lora": 131_072},
    }
    write("64.1/lora.json", card)
    assert check("64.1").passed, unmet(check("64.1"))
    write("64.1/lora.json", {**card, "adapter_file_bytes_16bit": 30_000_000})  # the course plan's 30 MB
    assert unmet(check("64.1")) == ["adapter_file_bytes_16bit is what the facts give"]
    write("64.1/lora.json", {**card, "one_matrix": {"inputs": 4096, "outputs": 4096, "lora": 16_777_216}})
    assert len(unmet(check("64.1"))) == 1


def test_64_2_a_recipe_is_explained_and_its_steps_counted(write: Write, check: Verdict) -> None:
    recipe = {
        "learning_rate": 2e-4,
        "num_epochs": 3,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "warmup_ratio": 0.03,
    }
    names = ("learning_rate", "num_epochs", "micro_batch_size", "rank", "max_length")
    reasons = {
        name: f"If {name} were wrong, I would see it in this way: {index}" for index, name in enumerate(names)
    }
    write("64.2/recipe.json", recipe)
    write("64.2/reasons.json", reasons)
    write("64.2/steps.json", {"num_rows": 400, "num_steps": 75, "warmup_steps": 3})  # 400 / 16 x 3, 3 % of it
    assert check("64.2").passed, unmet(check("64.2"))
    write("64.2/steps.json", {"num_rows": 400, "num_steps": 300, "warmup_steps": 9})
    assert len(unmet(check("64.2"))) == 2
    write("64.2/reasons.json", dict.fromkeys(names, "because it is the usual default value"))
    assert any("reason" in name for name in unmet(check("64.2")))
    write("64.2/recipe.json", {"tokenizer": "x"})
    assert unmet(check("64.2")) == ["recipe.json is a recipe"]


def test_64_3_the_environment_is_this_machines(write: Write, check: Verdict) -> None:
    report = DOCTOR_RUN.call({}).model_dump(mode="json")
    write("64.3/environment.json", report)
    assert check("64.3").passed == report["ready"], unmet(check("64.3"))
    libraries = [
        {**row, "installed": "9.9.9"} if row["name"] == "torch" else row for row in report["libraries"]
    ]
    write("64.3/environment.json", {**report, "libraries": libraries})
    assert "libraries is what the facts give" in unmet(check("64.3"))


def test_64_5_a_verdict_is_what_the_curve_gives(write: Write, check: Verdict, workspace: Path) -> None:
    run = train_run(losses=falling(), evaluations={10: 1.0, 20: 0.6, 30: 0.4, 40: 0.3})
    fresh = TRAIN_DIAGNOSE.call({"run_id": run.id, "out": "learning/64.5"}).model_dump(mode="json")
    write("64.5/verdict.json", fresh)
    assert check("64.5").passed, unmet(check("64.5"))
    write("64.5/verdict.json", {**fresh, "verdict": "over-fit"})
    assert unmet(check("64.5")) == ["verdict is what the facts give"]
    blind = train_run(losses=falling(), evaluations={})
    fresh = TRAIN_DIAGNOSE.call({"run_id": blind.id, "out": "learning/64.5"}).model_dump(mode="json")
    write("64.5/verdict.json", fresh)
    assert unmet(check("64.5")) == ["training and validation loss are both there"]


def test_64_6_the_best_of_three_is_chosen(write: Write, check: Verdict, workspace: Path) -> None:
    rates = {1e-4: 0.5, 2e-4: 0.3, 5e-4: 0.4}
    runs = {
        rate: train_run(losses=falling(), evaluations={20: end + 0.2, 40: end}, learning_rate=rate)
        for rate, end in rates.items()
    }
    request = {"run_ids": [run.id for run in runs.values()], "out": "learning/64.6"}
    sweep = TRAIN_COMPARE.call(request).model_dump(mode="json")
    write("64.6/sweep.json", sweep)
    write("64.6/optimal_config.json", TrainRecipe(learning_rate=2e-4).model_dump(mode="json"))
    assert check("64.6").passed, unmet(check("64.6"))
    write("64.6/optimal_config.json", TrainRecipe(learning_rate=1e-4).model_dump(mode="json"))
    assert unmet(check("64.6")) == ["optimal_config.json is the best run's recipe"]
    write("64.6/sweep.json", {**sweep, "best": runs[1e-4].id})
    assert "best is what the facts give" in unmet(check("64.6"))


def test_64_7_an_interrupted_run_lost_nothing(write: Write, check: Verdict, workspace: Path) -> None:
    run = train_run(losses=falling(), evaluations={40: 0.3}, resumed=16)
    write("64.7/resume.json", {"run": run.id})
    assert check("64.7").passed, unmet(check("64.7"))
    smooth = train_run(losses=falling(), evaluations={40: 0.3})
    write("64.7/resume.json", {"run": smooth.id})
    assert unmet(check("64.7")) == ["it went on from a checkpoint"]
    gap = train_run(losses=falling(), evaluations={40: 0.3}, resumed=16)
    lines = (gap.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (gap.path / "metrics.jsonl").write_text("".join(lines[:12] + lines[16:]), encoding="utf-8")
    write("64.7/resume.json", {"run": gap.id})
    assert unmet(check("64.7")) == ["every step was trained"]


def export_run(workspace: Path, train: Run, *, passed: bool = True) -> tuple[Run, dict[str, str]]:
    folder = workspace / "models" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"merged/model.safetensors": b"weights", "model-q8_0.gguf": b"quantised"}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "export.json").write_text(json.dumps({"run": train.id}), encoding="utf-8")
    run = Run.create("export.run", {"run": train.id})
    run.finish(
        {
            "path": "models/mine",
            "published": passed,
            "files": {name: len(content) for name, content in files.items()},
            "gate_passed": passed,
            "failed_checks": [] if passed else ["eos_id"],
        }
    )
    return run, {"model-q8_0.gguf": hashlib.sha256(files["model-q8_0.gguf"]).hexdigest()}


def test_64_8_the_files_are_those_that_passed(write: Write, check: Verdict, workspace: Path) -> None:
    train = train_run(losses=falling(), evaluations={40: 0.3})
    run, digests = export_run(workspace, train)
    write("64.8/export.json", {"run": run.id, "sha256": digests})
    assert check("64.8").passed, unmet(check("64.8"))
    (workspace / "models" / "mine" / "model-q8_0.gguf").write_bytes(b"another file")
    assert {"the files are those that passed"} <= set(unmet(check("64.8")))
    run, digests = export_run(workspace, train, passed=False)
    write("64.8/export.json", {"run": run.id, "sha256": digests})
    assert unmet(check("64.8")) == ["the gate passed"]


GATES = {
    "max_eval_loss": 1.0,
    "min_creation_accuracy": 0.9,
    "max_latency_ms": 1000,
    "max_training_seconds": 7200,
}


def evaluation(right: int, total: int, *, model: str = "models/mine") -> Run:
    run = Run.create("evals.run", {"cases": "test.jsonl", "serve": model})
    rows = [{"id": f"t{i}", "turn": 0, "intent": "create", "correct": i < right} for i in range(total)]
    (run.artifacts / "details.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    run.finish({"num_cases": total, "latency": {"p50_ms": 600.0, "p95_ms": 800.0}})
    return run


@pytest.fixture
def spec(write: Write) -> dict[str, Any]:
    values = {
        "intent": "A task assistant that creates tasks from plain words.",
        "constraints": ["two cores"],
        "gates": GATES,
    }
    path = write("64.9/spec.json", values)
    os.utime(path, (time.time() - 60, time.time() - 60))
    return values


def capstone(write: Write, train: Run, export: Run, measured: Run) -> None:
    write("64.9/runs.json", {"train": train.id, "export": export.id, "evaluate": measured.id})


@pytest.mark.usefixtures("spec")
def test_64_9_gates_are_held_with_intervals(write: Write, check: Verdict, workspace: Path) -> None:
    train = train_run(losses=falling(), evaluations={40: 0.3})
    export, _ = export_run(workspace, train)
    capstone(write, train, export, evaluation(98, 100))
    assert check("64.9").passed, unmet(check("64.9"))
    capstone(write, train, export, evaluation(47, 50))  # 94 %, but its lower bound is 0.838
    assert unmet(check("64.9")) == ["creating tasks: the lower bound of the interval reaches 0.9"]
    capstone(write, train, export, evaluation(98, 100, model="models/other"))
    assert unmet(check("64.9")) == ["what was measured is what was exported"]
    other = train_run(losses=falling(), evaluations={40: 0.3})
    capstone(write, other, export, evaluation(98, 100))
    assert unmet(check("64.9")) == ["what was exported is what was trained, and it passed its gate"]


def test_64_9_a_spec_after_the_training_is_none(
    write: Write, check: Verdict, workspace: Path, spec: Any
) -> None:
    train = train_run(losses=falling(), evaluations={40: 0.3})
    export, _ = export_run(workspace, train)
    capstone(write, train, export, evaluation(98, 100))
    write("64.9/spec.json", spec)
    late = time.time() + 60
    os.utime(workspace / "learning" / "64.9" / "spec.json", (late, late))
    assert unmet(check("64.9")) == ["the spec is older than the training"]


def test_64_0_a_first_skill_works_with_training(write: Write, check: Verdict) -> None:
    criteria = "".join(f"- I can do it: `llmops train {verb} X`\n" for verb in ("run", "curve", "compare"))
    write(
        "64.0/LEARNING-SPEC.md",
        f"## What I want to learn\nx\n## Why it matters\ny\n## Success criteria\n{criteria}",
    )
    head = "---\nname: llmops-fine-tuner\ndescription: Trains. Use it to train.\n---\n"
    write("64.0/llmops-fine-tuner/SKILL.md", f"{head}Run `llmops train run DATA`.\n")
    assert check("64.0").passed, unmet(check("64.0"))
    write("64.0/llmops-fine-tuner/SKILL.md", f"{head}Load, configure, train, save.\n")
    assert unmet(check("64.0")) == ["it works with train"]


@pytest.mark.slow
def test_64_4_a_run_whose_rows_train_and_whose_loss_fell(
    write: Write, check: Verdict, workspace: Path, starter_model: Path
) -> None:
    messages = [
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": "Hello. What shall I do?"},
    ]
    write("data/train.jsonl", [{"messages": messages}] * 3)

    def trained(losses: list[float]) -> Run:
        run = train_run(losses=losses, evaluations={})
        request = {"model": str(starter_model), "data": str(workspace / "learning" / "data")}
        (run.path / "request.json").write_text(json.dumps(request), encoding="utf-8")
        return run

    run = trained(falling())
    write("64.4/training.json", {"run": run.id, "trained_share": 0.2, "num_steps": 40})
    assert check("64.4").passed, unmet(check("64.4"))
    write("64.4/training.json", {"run": run.id, "trained_share": 0.9, "num_steps": 40})
    assert unmet(check("64.4")) == ["trained_share is what the facts give"]
    flat = trained([2.0] * 40)
    write("64.4/training.json", {"run": flat.id, "trained_share": 0.2, "num_steps": 40})
    assert unmet(check("64.4")) == ["the training loss fell"]
