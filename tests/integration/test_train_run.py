# pyright: basic
"""Training end to end on a tiny random model: kill -9 and resume give the numbers of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_jsonl
from pipeline.core.messages import Example, Message
from pipeline.core.runs import Run, list_runs
from pipeline.train.run import TRAIN_RUN

pytestmark = pytest.mark.slow

RECIPE = {"rank": 4, "alpha": 8, "max_steps": 10, "micro_batch_size": 2, "gradient_accumulation_steps": 2}


@pytest.fixture
def data(workspace: Path) -> Path:
    """40 training rows and 4 validation rows, made by the real generator."""
    subprocess.run(
        [
            *_LLMOPS,
            "synth",
            "generate",
            "--out",
            "data",
            "--num-rows",
            "40",
            "--validation-rows",
            "4",
            "--test-rows",
            "4",
        ],
        check=True,
        capture_output=True,
    )
    return workspace / "data"


_LLMOPS = [sys.executable, "-m", "pipeline"]


def _train_command(model: Path, data: Path) -> list[str]:
    return [*_LLMOPS, "train", "run", str(data), "--model", str(model), "--recipe", json.dumps(RECIPE)]


def _by_step(run: Run, key: str) -> dict[int, float]:
    return {line["step"]: line[key] for line in run.metrics() if key in line}


def test_a_killed_run_resumes_with_the_numbers_of_an_undisturbed_run(tiny_model: Path, data: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(_train_command(tiny_model, data), check=True, capture_output=True, env=environment)
    whole = list_runs()[0]
    process = subprocess.Popen(_train_command(tiny_model, data), stderr=subprocess.DEVNULL, env=environment)
    killed = _wait_for_checkpoint(process, whole)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert killed.state() == "interrupted"
    steps_before = max(_by_step(killed, "loss"), default=0)
    assert steps_before < RECIPE["max_steps"]
    subprocess.run([*_LLMOPS, "jobs", "resume", killed.id], check=True, capture_output=True, env=environment)
    deadline = time.monotonic() + 180
    while killed.state() in {"running", "queued"} and time.monotonic() < deadline:
        time.sleep(0.3)
    assert killed.state() == "succeeded", (killed.path / "log.txt").read_text(encoding="utf-8")
    outcome: dict[str, Any] = json.loads((killed.artifacts / "training.json").read_text(encoding="utf-8"))[
        "outcome"
    ]
    assert outcome["resumed_from_step"] >= 2
    losses = list(_by_step(whole, "loss").values())
    assert outcome["train_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-3)
    for key in ("loss", "grad_norm", "learning_rate", "eval_loss"):
        assert _by_step(killed, key) == pytest.approx(_by_step(whole, key), rel=1e-6)


def _wait_for_checkpoint(process: "subprocess.Popen[bytes]", other: Run) -> Run:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        fresh = [
            run for run in list_runs() if run.manifest()["operation"] == "train.run" and run.id != other.id
        ]
        if fresh and list(fresh[0].artifacts.glob("checkpoints/checkpoint-*/complete.json")):
            return fresh[0]
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.01)
    raise AssertionError("no checkpoint within three minutes")


def test_the_adapter_loads_in_plain_peft_and_changes_the_model(tiny_model: Path, data: Path) -> None:
    result = TRAIN_RUN.call({"data": str(data), "model": str(tiny_model), "recipe": RECIPE, "backend": "trl"})
    assert result.num_steps == 10
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.arange(12)[None]
    before = base(ids).logits
    tuned = PeftModel.from_pretrained(base, Run.open(result.run_id).artifacts / "adapter")
    assert not torch.allclose(tuned(ids).logits, before)


def test_a_row_whose_turn_the_template_drops_is_refused_by_name(tiny_model: Path, workspace: Path) -> None:
    # A template without tool results, as several shipped models have it.
    template = tiny_model / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("message.role == 'tool'", "message.role == 'nobody'"), encoding="utf-8")
    rows = [
        Example(
            id="row-7",
            messages=(
                Message(role="user", content="hi"),
                Message(role="tool", content="a result that must not vanish", tool_call_id="call_1"),
                Message(role="assistant", content="done"),
            ),
            group="g",
            today="2026-03-11",
        )
    ]
    write_jsonl(workspace / "rows.jsonl", [row.to_row() for row in rows])
    with pytest.raises(InvalidInputError, match=r"rows.jsonl line 1, id 'row-7': turn 1 \(tool\).*drops it"):
        TRAIN_RUN.call({"data": "rows.jsonl", "model": str(tiny_model), "recipe": RECIPE, "backend": "trl"})


def test_rows_with_tools_of_their_own_train_without_the_task_api(tiny_model: Path, workspace: Path) -> None:
    rows = [_foreign_row(f"tool_{number % 3}", f"Paris {number}") for number in range(12)]
    write_jsonl(workspace / "rows.jsonl", rows)
    result = TRAIN_RUN.call(
        {"data": "rows.jsonl", "model": str(tiny_model), "recipe": RECIPE, "backend": "trl"}
    )
    assert result.num_rows == 12
    facts = json.loads((Run.open(result.run_id).artifacts / "training.json").read_text(encoding="utf-8"))
    assert (facts["tool_set"], facts["tools"]) == (None, None)  # rows differ: nothing to promise to clients
    assert facts["outcome"]["shared_prefix"]


def _foreign_row(tool: str, city: str) -> dict[str, Any]:
    properties = {"city": {"type": "string"}}
    function = {"name": tool, "parameters": {"type": "object", "properties": properties}}
    call = {"name": tool, "arguments": json.dumps({"city": city})}
    return {
        "messages": [
            {"role": "user", "content": f"How is {city}?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": call}],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
            {"role": "assistant", "content": "It is sunny."},
        ],
        "tools": [{"type": "function", "function": function}],
        "source": {"any": "field of the user's"},
    }


def test_training_refuses_when_every_row_is_too_long(tiny_model: Path, data: Path) -> None:
    recipe = {**RECIPE, "max_length": 16}
    with pytest.raises(InvalidInputError, match="no token of the training rows would be trained"):
        TRAIN_RUN.call({"data": str(data), "model": str(tiny_model), "recipe": recipe, "backend": "trl"})


def test_an_unknown_target_module_is_refused_before_training(tiny_model: Path, data: Path) -> None:
    recipe = {**RECIPE, "target_modules": ["no_such_proj"]}
    with pytest.raises(InvalidInputError, match="no_such_proj"):
        TRAIN_RUN.call({"data": str(data), "model": str(tiny_model), "recipe": recipe, "backend": "trl"})


def test_full_fine_tuning_trains_every_weight_and_exports_as_a_model_folder(
    tiny_model: Path, data: Path
) -> None:
    recipe = {**RECIPE, "method": "full", "max_steps": 2}
    result = TRAIN_RUN.call({"data": str(data), "model": str(tiny_model), "recipe": recipe, "backend": "trl"})
    folder = Run.open(result.run_id).artifacts / "model"
    before = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    after = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert before.keys() == after.keys()
    layers = [name for name in before if "proj" in name]
    assert layers
    assert all(not torch.equal(before[name], after[name]) for name in layers)
