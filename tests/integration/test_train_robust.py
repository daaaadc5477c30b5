# pyright: basic
"""What goes wrong in training: no memory, no number, no disk, a worse model, a taken device. Nothing is lost."""

import fcntl
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.core.errors import (
    DoesNotFitError,
    InvalidInputError,
    MissingDependencyError,
    OperationFailedError,
)
from pipeline.core.extras import installed_version
from pipeline.core.files import write_jsonl
from pipeline.core.runs import Run, list_runs
from pipeline.train.backends import prefix
from pipeline.train.backends.trl_sft import is_out_of_memory
from pipeline.train.run import TRAIN_RUN

pytestmark = pytest.mark.slow

RECIPE = {
    "rank": 4,
    "alpha": 8,
    "max_steps": 6,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "dtype": "float32",
    "report_to": [],
    "early_stopping_patience": None,
}


@pytest.fixture
def rows(workspace: Path) -> Path:
    """32 training and 4 validation rows without tools, of a few lengths."""

    def row(number: int) -> dict[str, Any]:
        question = f"What is {number} times {number + 1}?" + " Please." * (number % 5)
        answer = f"It is {number * (number + 1)}."
        system = {
            "role": "system",
            "content": "You are a calculator that answers in one short sentence, always.",
        }
        return {
            "messages": [
                system,
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }

    write_jsonl(workspace / "data" / "train.jsonl", [row(number) for number in range(32)])
    write_jsonl(workspace / "data" / "validation.jsonl", [row(number) for number in range(40, 44)])
    return workspace / "data"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _train(model: Path, rows: Path, run: Run | None = None, **changes: Any) -> Run:
    request = {"data": str(rows), "model": str(model), "recipe": {**RECIPE, **changes}, "backend": "trl"}
    if run is None:
        return Run.open(TRAIN_RUN.call(request).run_id)
    TRAIN_RUN.execute(TRAIN_RUN.parse(request), run)
    return run


def _by_step(run: Run, key: str) -> dict[int, float]:
    return {line["step"]: line[key] for line in run.metrics() if key in line}


def _facts(run: Run) -> dict[str, Any]:
    return json.loads((run.artifacts / "training.json").read_text(encoding="utf-8"))


def _break_loss(monkeypatch: pytest.MonkeyPatch, at_call: int, break_it: Callable[[Any], Any]) -> None:
    """Let the loss go wrong in its nth computation for training, counted from 1."""
    real, calls = prefix.predicted_loss, [0]

    def broken(model: Any, batch: Any, ordinary: Any = None) -> Any:
        calls[0] += torch.is_grad_enabled()
        if calls[0] == at_call and torch.is_grad_enabled():
            return break_it(real(model, batch, ordinary))
        return real(model, batch, ordinary)

    monkeypatch.setattr(prefix, "predicted_loss", broken)


def test_out_of_memory_steps_down_and_goes_on_from_the_last_step_with_the_same_numbers(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(tiny_model, rows)
    real, largest = prefix.predicted_loss, [4]
    steps = [0]

    def limited(model: Any, batch: Any, ordinary: Any = None) -> Any:
        # Until step 3 there is room for four rows, then for two: a real allocation that PyTorch cannot satisfy.
        steps[0] += torch.is_grad_enabled()
        if steps[0] > 3:
            largest[0] = 2
        if torch.is_grad_enabled() and len(batch["input_ids"]) > largest[0]:
            torch.empty(1 << 50)
        return real(model, batch, ordinary)

    monkeypatch.setattr(prefix, "predicted_loss", limited)
    run = _train(tiny_model, rows)
    outcome = _facts(run)["outcome"]
    assert outcome["rung"]["micro_batch_size"] == 2
    assert outcome["rung"]["gradient_accumulation_steps"] == 2
    assert outcome["changes"] == [
        "out of memory with micro batch 4 x 1, rows up to 1024 tokens: "
        "went on from checkpoint of step 3 with micro batch 2 x 2, rows up to 1024 tokens"
    ]
    assert outcome["resumed_from_step"] == 3
    assert _by_step(run, "loss") == pytest.approx(_by_step(whole, "loss"), rel=1e-5)
    assert _by_step(run, "eval_loss") == pytest.approx(_by_step(whole, "eval_loss"), rel=1e-5)


def test_at_the_foot_of_the_ladder_the_run_ends_and_says_what_to_change(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(prefix, "predicted_loss", no_memory)
    with pytest.raises(DoesNotFitError, match="micro batch 1 x 4, gradient checkpointing") as caught:
        _train(tiny_model, rows, max_length=128)
    assert "jobs resume" in caught.value.hint


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("CUDA out of memory")]
)
def test_what_counts_as_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_real_refusal_of_the_allocator_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_what_was_there(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(tiny_model, rows)
    with monkeypatch.context() as broken:
        _break_loss(broken, 4, lambda found: (found[0] * math.nan, found[1]))
        with pytest.raises(OperationFailedError, match=r"loss is nan in step 4") as caught:
            _train(tiny_model, rows)
    assert "learning_rate" in caught.value.hint
    run = list_runs()[0] if list_runs()[0].id != whole.id else list_runs()[1]
    assert run.state() == "failed"
    assert (run.artifacts / "checkpoints" / "checkpoint-3" / "complete.json").exists()
    _train(tiny_model, rows, run)  # as `jobs resume` does
    assert _by_step(run, "loss") == pytest.approx(_by_step(whole, "loss"), rel=1e-6)


def test_a_gradient_that_is_not_a_number_stops_before_the_weights_are_spoilt(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * math.inf

    _break_loss(monkeypatch, 3, lambda found: (Spoil.apply(found[0]), found[1]))
    with pytest.raises(OperationFailedError, match=r"gradient is (nan|inf) in step 3"):
        _train(tiny_model, rows)


def test_broken_base_weights_are_noticed_in_the_first_step(tiny_model: Path, rows: Path) -> None:
    path = tiny_model / "model.safetensors"
    weights = load_file(path)
    next(value for name, value in weights.items() if "down_proj" in name)[0, 0] = math.nan
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(OperationFailedError, match="loss is nan in step 1"):
        _train(tiny_model, rows)


def test_a_disk_that_fills_up_stops_before_the_checkpoint_and_the_run_can_go_on(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, checks = shutil.disk_usage, [0]

    def filling(path: Any) -> Any:
        checks[0] += 1
        usage = real(path)
        return usage if checks[0] < 4 else usage._replace(free=1000)

    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", filling)
        with pytest.raises(DoesNotFitError, match="checkpoint of step 3 needs"):
            _train(tiny_model, rows)
    run = list_runs()[0]
    assert [path.name for path in sorted((run.artifacts / "checkpoints").glob("checkpoint-*"))] == [
        "checkpoint-1",
        "checkpoint-2",
    ]
    _train(tiny_model, rows, run)
    assert _facts(run)["outcome"]["resumed_from_step"] == 2
    assert sorted(_by_step(run, "loss")) == [1, 2, 3, 4, 5, 6]


OVERFITTING = {"max_steps": 60, "learning_rate": 0.02, "early_stopping_patience": 2, "method": "full"}


@pytest.fixture
def contradicted_rows(rows: Path) -> Path:
    """Held-back rows answer the training questions otherwise, so whatever is learnt by heart makes them worse."""
    lines = (rows / "train.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    others = [re.sub(r"It is \d+\.", "Nobody can say that.", line) for line in lines]
    (rows / "validation.jsonl").write_text("\n".join(others) + "\n", encoding="utf-8")
    return rows


def test_early_stopping_fires_and_the_best_weights_are_kept(
    tiny_model: Path, contradicted_rows: Path
) -> None:
    run = _train(tiny_model, contradicted_rows, **OVERFITTING)
    outcome, losses = _facts(run)["outcome"], _by_step(run, "eval_loss")
    assert outcome["num_steps"] < outcome["num_steps_planned"] == 60
    best = min(losses, key=lambda step: losses[step])
    assert outcome["best_step"] == best
    assert outcome["eval_loss"] == losses[best]
    assert [loss > losses[best] for step, loss in losses.items() if step > best] == [True, True]
    kept = load_file(run.artifacts / "checkpoints" / f"checkpoint-{best}" / "model.safetensors")
    saved = load_file(run.artifacts / "model" / "model.safetensors")
    assert all(torch.equal(saved[name], kept[name]) for name in kept)
    result = json.loads((run.path / "result.json").read_text(encoding="utf-8"))
    assert any("stopped early" in warning for warning in result["warnings"])


def test_a_resumed_run_stops_as_early_as_an_undisturbed_one(
    tiny_model: Path, contradicted_rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = _train(tiny_model, contradicted_rows, **OVERFITTING)
    whole = _facts(undisturbed)["outcome"]
    last = whole["num_steps"]
    with monkeypatch.context() as broken:
        # After the first of two evaluations without progress.
        _break_loss(broken, last - 2, lambda found: (found[0] * math.nan, found[1]))
        with pytest.raises(OperationFailedError):
            _train(tiny_model, contradicted_rows, **OVERFITTING)
    run = next(run for run in list_runs() if run.id != undisturbed.id)
    _train(tiny_model, contradicted_rows, run, **OVERFITTING)
    outcome = _facts(run)["outcome"]
    assert outcome["resumed_from_step"] == last - 12  # an evaluation and a checkpoint every twelve steps
    assert (outcome["num_steps"], outcome["best_step"]) == (last, whole["best_step"])


def test_a_run_that_had_ended_takes_no_further_step_when_it_is_resumed(
    tiny_model: Path, contradicted_rows: Path
) -> None:
    for changes in ({}, OVERFITTING):  # at its last step, inside an epoch; and by early stopping
        run = _train(tiny_model, contradicted_rows, **changes)
        before, logged = _facts(run)["outcome"], len(run.metrics())
        (output,) = [path for name in ("adapter", "model") if (path := run.artifacts / name).is_dir()]
        weights = {path.name: load_file(path) for path in output.glob("*.safetensors")}
        shutil.rmtree(output)  # killed after the last checkpoint
        _train(tiny_model, contradicted_rows, run, **changes)
        after = _facts(run)["outcome"]
        assert len(run.metrics()) == logged
        assert {**after, "resumed_from_step": None} == {**before, "resumed_from_step": None}
        for name, kept in weights.items():
            saved = load_file(output / name)
            assert all(torch.equal(saved[key], kept[key]) for key in kept)


def test_a_resumed_run_logs_the_same_means_where_not_every_step_is_logged(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        "max_steps": 405,
        "micro_batch_size": 1,
    }  # logged every second step, saved every 80
    whole = _train(tiny_model, rows, **changes)
    with monkeypatch.context() as broken:
        _break_loss(broken, 250, lambda found: (found[0] * math.nan, found[1]))
        with pytest.raises(OperationFailedError):
            _train(tiny_model, rows, **changes)
    run = next(run for run in list_runs() if run.id != whole.id)
    _train(tiny_model, rows, run, **changes)
    assert _by_step(run, "loss") == pytest.approx(_by_step(whole, "loss"), rel=1e-5)
    assert sorted(_by_step(run, "loss")) == list(range(2, 406, 2))


@pytest.mark.parametrize("num_steps", [6, 9, 11])
def test_every_run_is_evaluated_and_saved_at_least_five_times(
    tiny_model: Path, rows: Path, num_steps: int
) -> None:
    run = _train(tiny_model, rows, max_steps=num_steps)
    assert len(_by_step(run, "eval_loss")) >= 5
    assert num_steps in _by_step(run, "eval_loss")
    whole = list((run.artifacts / "checkpoints").glob("checkpoint-*/complete.json"))
    assert 1 <= len(whole) <= 2


def test_a_taken_device_is_refused_with_the_run_that_has_it(
    tiny_model: Path, rows: Path, workspace: Path
) -> None:
    lock = workspace / "runs" / ".training-cpu.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w", encoding="utf-8") as handle:
        handle.write("20260101T000000Z-train-run-abcdef")
        handle.flush()
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InvalidInputError, match="abcdef is training on cpu"):
            _train(tiny_model, rows)
    _train(tiny_model, rows, max_steps=1)  # given back


def test_validation_rows_that_are_too_long_are_reported(tiny_model: Path, rows: Path) -> None:
    lines = (rows / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    long = [re.sub(r"What is", "Tell me, " * 100 + "what is", line) for line in lines]
    for too_long, expected in (
        (1, "1 validation rows .* left out$"),
        (4, "4 validation .* nothing is left to evaluate"),
    ):
        kept = long[:too_long] + lines[too_long:]
        (rows / "validation.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
        run = _train(tiny_model, rows, max_steps=1, max_length=128)
        result = json.loads((run.path / "result.json").read_text(encoding="utf-8"))
        assert re.search(expected, result["warnings"][0])


@pytest.mark.skipif(installed_version("mlflow") is not None, reason="the tracker is there")
def test_a_tracker_that_is_not_installed_is_named_with_its_package(tiny_model: Path, rows: Path) -> None:
    with pytest.raises(MissingDependencyError, match="mlflow not installed") as caught:
        _train(tiny_model, rows, report_to=["mlflow"])
    assert "pip install mlflow" in caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in 4 bits")
def test_four_bits_on_a_cpu_are_refused(tiny_model: Path, rows: Path) -> None:
    with pytest.raises(InvalidInputError, match="needs a GPU"):
        _train(tiny_model, rows, quantization="nf4")


def test_one_unknown_target_among_known_ones_is_refused(tiny_model: Path, rows: Path) -> None:
    with pytest.raises(InvalidInputError, match="'q_prj'") as caught:
        _train(tiny_model, rows, target_modules=["v_proj", "q_prj"])
    assert "q_proj" in caught.value.hint


def test_a_template_that_prints_no_tools_is_refused(tiny_model: Path, workspace: Path) -> None:
    (tiny_model / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}",
        encoding="utf-8",
    )
    tool = {
        "type": "function",
        "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}},
    }
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    write_jsonl(workspace / "rows.jsonl", [{"messages": messages, "tools": [tool]}])
    with pytest.raises(InvalidInputError, match="does not print the tools"):
        _train(tiny_model, workspace / "rows.jsonl")


def test_an_injected_system_prompt_is_trained_on_and_recorded_by_its_hash(
    tiny_model: Path, rows: Path
) -> None:
    request = {
        "data": str(rows),
        "model": str(tiny_model),
        "recipe": {**RECIPE, "max_steps": 1},
        "backend": "trl",
    }
    plain = Run.open(TRAIN_RUN.call(request).run_id)
    run = Run.open(TRAIN_RUN.call({**request, "system_prompt": "You are TaskMaster."}).run_id)
    facts = _facts(run)
    # printf 'You are TaskMaster.' | sha256sum
    assert facts["injected_system_prompt"]["sha256"].startswith("ae606e0d6ed5a474")
    assert facts["outcome"]["num_tokens"] > _facts(plain)["outcome"]["num_tokens"]
    assert _facts(plain)["injected_system_prompt"] is None
