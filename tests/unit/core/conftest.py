"""A workspace of its own for each test."""

from pathlib import Path

import pytest


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty workspace that this process and its children use."""
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    return tmp_path.resolve()
