# pyright: basic
"""What `export run` answers: reused only when all that is asked for is there, and no more proof than there is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from pipeline.core.files import read_json, sha256_file, write_json
from pipeline.core.runs import Run
from pipeline.export import run as export_run
from pipeline.export.backends import llama_cpp_converter
from pipeline.export.gate_report import GATE_FILE, GateReport
from pipeline.export.run import EXPORT_RUN

_CONVERSATION = {
    "messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good morning."}]
}


@pytest.fixture
def trained(workspace: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished LoRA run with tools and 40 held-out turns; its GGUF files are stand-ins, no weight is looked at."""
    monkeypatch.setattr(
        llama_cpp_converter, "convert_adapter", lambda adapter, base, path: path.write_bytes(b"GGUF adapter")
    )
    monkeypatch.setattr(
        export_run, "write_f16_gguf", lambda merged, path, **_: {"F16": path.write_bytes(b"GGUF")}
    )
    run = Run.create("train.run", {})
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).save_pretrained(
        str(run.artifacts / "adapter")
    )
    (workspace / "data").mkdir()
    lines = [json.dumps(_CONVERSATION)] * 40
    (workspace / "data" / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    facts = {"base_model_path": str(tiny_model), "method": "lora", "tool_set": "task_api"}
    write_json(run.artifacts / "training.json", facts | {"data": {"train": "data/train.jsonl"}})
    run.finish({})
    return run


@pytest.fixture
def asked_turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of turns of each gate; the gate itself always passes."""
    asked: list[int] = []

    def pass_gate(subject: Any, run: Run) -> GateReport:
        asked.append(subject.num_turns)
        num_turns = min(40, subject.num_turns)
        files = {"model-f16.gguf": sha256_file(subject.home / "model-f16.gguf")}
        report = GateReport(
            passed=True, checks=[], default_gguf="model-f16.gguf", num_turns=num_turns, seconds=0, files=files
        )
        write_json(subject.home / GATE_FILE, report.model_dump(mode="json"))
        return report

    monkeypatch.setattr(export_run, "run_gate", pass_gate)
    return asked


def _export(run: Run, **values: Any) -> Any:
    return EXPORT_RUN.call({"run": run.id, "name": "mine", "quantizations": ["f16"], **values})


@pytest.mark.parametrize("lost", ["adapter_model.safetensors", "adapter-f16.gguf"])
def test_an_export_without_its_adapter_is_made_again_when_the_adapter_is_asked_for(
    lost: str, trained: Run, workspace: Path
) -> None:
    _export(trained, formats=["merged"])
    assert _export(trained, formats=["merged"]).reused
    result = _export(trained, formats=["adapter", "merged"])
    assert not result.reused
    assert {"adapter/adapter_model.safetensors", "adapter/adapter-f16.gguf"} <= result.files.keys()
    assert _export(trained, formats=["adapter"]).reused
    record = read_json(workspace / "models" / "mine" / "export.json")
    del record["files"][f"adapter/{lost}"]  # as an earlier version left it
    write_json(workspace / "models" / "mine" / "export.json", record)
    assert not _export(trained, formats=["adapter"]).reused


def test_a_gate_that_asked_fewer_turns_than_are_wanted_now_is_run_again(
    trained: Run, asked_turns: list[int]
) -> None:
    _export(trained, num_turns=16)
    assert _export(trained, num_turns=8).reused
    assert not _export(trained, num_turns=30).reused
    assert asked_turns == [16, 30]
    assert not _export(trained, num_turns=500).reused
    assert _export(trained, num_turns=1000).reused, "all 40 turns that there are have been asked"


def test_a_model_with_nothing_held_out_is_not_verified_twice(
    trained: Run, workspace: Path, asked_turns: list[int]
) -> None:
    shutil.rmtree(workspace / "data")
    _export(trained, num_turns=16)
    assert _export(trained, num_turns=50).reused
    assert asked_turns == [16]


def test_an_export_without_gguf_says_that_nothing_was_proven_and_how_to_make_one(
    trained: Run, asked_turns: list[int]
) -> None:
    result = _export(trained, formats=["merged"])
    assert result.published
    assert result.gate_passed is None
    assert any("nothing was proven" in warning for warning in result.warnings)
    assert not _export(trained, formats=["merged"], verify=False).warnings, "nobody asked for proof"
    command = result.next_step.removeprefix("To serve it: llmops export run ").split(" ")
    values = dict(zip(("name", "formats"), command[2::2], strict=True))
    made = EXPORT_RUN.call(
        {
            "run": command[0],
            "name": values["name"],
            "formats": values["formats"].split(","),
            "quantizations": ["f16"],
        }
    )
    assert asked_turns == [16]
    assert made.next_step == "llmops deploy serve --model models/mine"
    assert not made.warnings


def test_the_step_after_an_export_without_a_gate_is_one_that_is_not_refused(trained: Run) -> None:
    made = _export(trained, formats=["merged", "gguf"], verify=False)
    assert made.next_step == "llmops export verify models/mine"
    made = _export(trained, formats=["gguf"], verify=False, force=True)  # nothing is left to compare it with
    assert made.next_step == "llmops deploy serve --model models/mine --force"
