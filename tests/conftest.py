"""Shared fixtures: real weights, a workspace of its own for every test, and no stray network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.models.pull import verify_folder

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace that this test alone uses."""
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """models/smollm2-135m of this checkout, pulled once and then reused."""
    folder = REPOSITORY / "models" / "smollm2-135m"
    if not verify_folder(folder):
        subprocess.run(
            [sys.executable, "-m", "pipeline", "models", "pull", "smollm2-135m"],
            check=True,
            env={**os.environ, "LLMOPS_WORKSPACE": str(REPOSITORY)},
        )
    return folder


@pytest.fixture(scope="session")
def starter_gguf(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untuned starter as GGUF f16 with our chat template inside."""
    from pipeline.export.gguf import write_f16_gguf

    path = tmp_path_factory.mktemp("gguf") / "starter-f16.gguf"
    write_f16_gguf(starter_model, path)
    return path
