"""What the gate writes beside a model, with stand-ins for both engines."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pipeline.core.errors import OperationFailedError
from pipeline.core.files import read_json, sha256_file, write_atomic, write_json
from pipeline.export import gate
from pipeline.export.card import change_default, write_record
from pipeline.export.gate_report import GateCheck
from pipeline.inference.model_folder import find_servable

if TYPE_CHECKING:
    from pipeline.export.source import TrainingSource

_RIGHT = GateCheck(id="stop", passed=True, measured="", limit="", explanation="")


@pytest.fixture
def export(workspace: Path) -> Path:
    """An export that has not been verified; its default is q8_0."""
    folder = workspace / "models" / "mine"
    write_atomic(folder / "merged" / "chat_template.jinja", "{{ messages }}")
    write_json(folder / "merged" / "config.json", {})
    write_atomic(folder / "Modelfile", "# a note\nFROM ./model-q8_0.gguf\nPARAMETER temperature 0\n")
    for quantization in ("f16", "q8_0"):
        write_atomic(folder / f"model-{quantization}.gguf", quantization)
    files = {
        p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in folder.iterdir() if p.is_file()
    }
    record = {"name": "mine", "default_gguf": "model-q8_0.gguf", "num_params": 135_000_000, "files": files}
    write_json(folder / "export.json", record)
    return folder


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both engines agree on everything, and the gate prefers the f16 file."""

    def read_metadata(path: Path) -> str:
        return path.name

    def full_weights(metadata: str) -> bool:
        return "f16" in metadata

    def load(_: Path) -> Any:
        return SimpleNamespace(special_ids={})

    inspect = SimpleNamespace(read_metadata=read_metadata, holds_full_weights=full_weights)
    reference = SimpleNamespace(Reference=load)
    monkeypatch.setitem(sys.modules, "pipeline.export.backends.gguf_inspect", inspect)
    monkeypatch.setitem(sys.modules, "pipeline.export.backends.reference", reference)

    def no_checks(*_: Any) -> list[GateCheck]:
        return []

    def look(subject: gate.Subject, *_: Any) -> Any:
        by_name = {path.name: path for path in subject.files}
        served = by_name.get("model-f16.gguf", subject.files[0])
        return SimpleNamespace(checks=[_RIGHT], default=served, num_turns=0)

    monkeypatch.setattr(gate, "check_metadata", no_checks)
    monkeypatch.setattr(gate, "_look_at_files", look)


@pytest.mark.usefixtures("engines")
def test_a_verified_export_serves_the_file_that_was_measured(export: Path) -> None:
    report = gate.run_gate(gate.find_subject(export, None))
    assert (report.passed, report.default_gguf) == (True, "model-f16.gguf")
    assert find_servable("mine").path.name == "model-f16.gguf"
    modelfile = export / "Modelfile"
    assert modelfile.read_text("utf-8") == "# a note\nFROM ./model-f16.gguf\nPARAMETER temperature 0\n"
    recorded = read_json(export / "export.json")["files"]["Modelfile"]
    assert recorded == {"bytes": modelfile.stat().st_size, "sha256": sha256_file(modelfile)}


@pytest.mark.usefixtures("engines")
def test_one_verified_file_of_an_export_has_its_own_report_and_changes_nothing_else(export: Path) -> None:
    before = {path.name: sha256_file(path) for path in export.iterdir() if path.is_file()}
    subject = gate.find_subject(export / "model-f16.gguf", None)
    report = gate.run_gate(subject)
    assert (report.passed, subject.report.name) == (True, "model-f16.gate.json")
    assert read_json(subject.report)["files"] == {"model-f16.gguf": before["model-f16.gguf"]}
    subject.report.unlink()
    assert {path.name: sha256_file(path) for path in export.iterdir() if path.is_file()} == before


@pytest.mark.usefixtures("engines")
def test_files_that_are_all_quantised_fail_because_no_weights_were_compared(export: Path) -> None:
    (export / "model-f16.gguf").unlink()
    report = gate.run_gate(gate.find_subject(export, None))
    assert not report.passed
    assert [check.id for check in report.checks if check.passed is False] == ["greedy_parity"]
    with pytest.raises(OperationFailedError, match="failed its export gate"):
        find_servable("mine")


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("is_absolute", [True, False])
def test_held_out_turns_are_found_from_the_workspace_and_missed_aloud(
    export: Path, workspace: Path, *, is_absolute: bool
) -> None:
    turns = workspace / "data" / "test.jsonl"
    recorded = str(turns) if is_absolute else "data/test.jsonl"
    record = read_json(export / "export.json")
    write_json(export / "export.json", record | {"tool_set": "task_api", "held_out": recorded})
    write_atomic(turns, "")
    assert gate.find_subject(export, None).held_out == turns
    turns.unlink()
    report = gate.run_gate(gate.find_subject(export, None))
    said = [(check.passed, check.measured) for check in report.checks if check.id == "task_accuracy"]
    assert said == [(None, "no held-out turns: data/test.jsonl is gone")]


def test_a_default_that_was_measured_stays_first_when_nothing_can_be_measured_again(export: Path) -> None:
    assert gate.find_subject(export, None).preference[0].name == "model-q8_0.gguf"
    change_default(export, "model-f16.gguf")
    assert gate.find_subject(export, None).preference[0].name == "model-f16.gguf"
    cases = export / "README.md"  # any file: it is not read yet
    assert gate.find_subject(export, None, cases).preference[0].name == "model-q8_0.gguf"


def test_the_record_that_is_published_names_no_folder_of_this_machine(workspace: Path) -> None:
    base = SimpleNamespace(folder=workspace / "models" / "base", num_params=1_000)
    facts = {"base_model_path": "models/base", "method": "full"}
    values = {"base": base, "facts": facts, "metrics": {}, "run_id": "r", "tool_set": None}
    source = SimpleNamespace(held_out=workspace / "data" / "test.jsonl", **values)
    folder = workspace / "models" / "mine"
    folder.mkdir(parents=True)
    write_record(folder, "mine", "e", cast("TrainingSource", source), None)
    assert read_json(folder / "export.json")["held_out"] == "data/test.jsonl"
