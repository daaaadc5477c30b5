import hashlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import IntegrityError, InvalidInputError, OperationFailedError
from pipeline.core.files import write_json
from pipeline.inference.model_folder import find_servable

CONTENT = b"GGUF and so on"


@pytest.fixture
def folder(workspace: Path) -> Path:
    """An exported model whose gate passed."""
    target = workspace / "models" / "task-agent"
    target.mkdir(parents=True)
    facts: dict[str, Any] = {}
    for name in ("model-f16.gguf", "model-q8_0.gguf"):
        (target / name).write_bytes(CONTENT)
        facts[name] = {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    write_json(
        target / "export.json", {"name": "task-agent", "default_gguf": "model-q8_0.gguf", "files": facts}
    )
    write_json(
        target / "gate.json", {"passed": True, "files": {name: facts[name]["sha256"] for name in facts}}
    )
    write_json(target / "tools.json", [{"type": "function", "function": {"name": "a"}}])
    return target


def test_a_folder_serves_the_file_its_export_chose(folder: Path) -> None:
    model = find_servable("models/task-agent")
    assert model.path == folder / "model-q8_0.gguf"
    assert model.name == "task-agent"
    assert model.tools == ({"type": "function", "function": {"name": "a"}},)
    assert model.warnings == []


def test_a_quantization_can_be_chosen_and_a_missing_one_lists_the_others(folder: Path) -> None:
    assert find_servable("task-agent", quantization="f16").path.name == "model-f16.gguf"
    with pytest.raises(InvalidInputError, match=r"has no model-q4_k_m\.gguf") as failed:
        find_servable("task-agent", quantization="q4_k_m")
    assert "model-f16.gguf, model-q8_0.gguf" in failed.value.hint


@pytest.mark.parametrize(
    ("gate", "reason"), [({"passed": False}, "failed its export gate"), (None, "has not been through")]
)
@pytest.mark.parametrize("ref", ["task-agent", "models/task-agent/model-f16.gguf"])
def test_a_model_without_a_passed_gate_is_served_only_by_force(
    folder: Path, gate: dict[str, bool] | None, reason: str, ref: str
) -> None:
    (folder / "gate.json").unlink()
    if gate is not None:
        write_json(folder / "gate.json", gate)
    with pytest.raises(OperationFailedError, match=reason):
        find_servable(ref)
    assert reason in find_servable(ref, force=True).warnings[0]


def test_a_file_that_changed_since_its_export_is_refused_even_by_force(folder: Path) -> None:
    (folder / "model-q8_0.gguf").write_bytes(CONTENT.replace(b"so", b"to"))
    with pytest.raises(IntegrityError, match="changed or cut short"):
        find_servable("task-agent", force=True)


@pytest.mark.parametrize("files", [{}, {"model-q8_0.gguf": "0" * 64}])
def test_a_gate_that_did_not_look_at_the_file_does_not_let_it_be_served(
    folder: Path, files: dict[str, str]
) -> None:
    write_json(folder / "gate.json", {"passed": True, "files": files})
    with pytest.raises(OperationFailedError, match=r"did not look at this model-q8_0\.gguf"):
        find_servable("task-agent")


@pytest.mark.parametrize("is_own", [True, False])
def test_a_bare_file_is_judged_by_the_report_that_is_about_it(workspace: Path, *, is_own: bool) -> None:
    (workspace / "x.gguf").write_bytes(CONTENT)
    name = "x.gguf" if is_own else "y.gguf"
    files = {name: hashlib.sha256(CONTENT).hexdigest()}
    write_json(
        workspace / "x.gate.json" if is_own else workspace / "gate.json", {"passed": True, "files": files}
    )
    assert (find_servable("./x.gguf").warnings == []) is is_own


def test_a_bare_file_that_failed_its_own_gate_is_refused_although_another_passed(workspace: Path) -> None:
    (workspace / "x.gguf").write_bytes(CONTENT)
    write_json(workspace / "gate.json", {"passed": True, "files": {"y.gguf": ""}})
    write_json(workspace / "x.gate.json", {"passed": False, "files": {"x.gguf": ""}})
    with pytest.raises(OperationFailedError, match="failed its export gate"):
        find_servable("./x.gguf")


def test_a_bare_file_is_served_with_a_warning(workspace: Path) -> None:
    (workspace / "x.gguf").write_bytes(CONTENT)
    model = find_servable("./x.gguf")
    assert (model.path, model.name, model.tools) == (workspace / "x.gguf", "x", ())
    assert "nothing proves" in model.warnings[0]


def test_several_bare_files_need_a_choice(workspace: Path) -> None:
    for name in ("model-a.gguf", "model-b.gguf"):
        (workspace / name).write_bytes(CONTENT)
    with pytest.raises(InvalidInputError, match=r"which of model-a\.gguf, model-b\.gguf"):
        find_servable("./")
    assert find_servable("./", quantization="b").path.name == "model-b.gguf"


def test_a_folder_without_gguf_says_how_to_make_one(workspace: Path) -> None:
    (workspace / "models" / "smollm2-135m").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="no GGUF") as failed:
        find_servable("smollm2-135m")
    assert "llmops export run" in failed.value.hint
    assert "export convert" not in failed.value.hint


def test_an_untuned_model_without_gguf_says_how_to_convert_it(workspace: Path) -> None:
    folder = workspace / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="no GGUF") as failed:
        find_servable("smollm2-135m")
    assert "`llmops export convert models/smollm2-135m --out models/smollm2-135m.gguf`" in failed.value.hint
