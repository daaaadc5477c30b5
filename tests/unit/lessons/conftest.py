"""Learners: a folder to work in, runs that a check can open, and a way to ask for the verdict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.core.runs import Run
from pipeline.lessons.check import LESSON_CHECK, LessonCheckResult

Write = Callable[[str, Any], Path]
Verdict = Callable[[str], LessonCheckResult]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace that this test alone uses."""
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.fixture
def write(workspace: Path) -> Write:
    """A function: write a deliverable (``"61.3/request.json"``); objects as JSON, rows as JSON Lines, texts as they are."""

    def write_file(name: str, content: Any) -> Path:
        path = workspace / "learning" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl") and not isinstance(content, str):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def check(workspace: Path) -> Verdict:
    """A function: lesson number -> verdict."""
    return lambda number: LESSON_CHECK.call({"number": number})


@pytest.fixture
def finished_run(workspace: Path) -> Callable[..., Run]:
    """A function: operation, result, files of artifacts/ -> a run as that operation leaves it."""

    def make(operation: str, result: dict[str, Any], **artifacts: Any) -> Run:
        run = Run.create(operation, {})
        for name, content in artifacts.items():
            path = run.artifacts / name.replace("__", ".")
            path.write_text(content if isinstance(content, str) else to_lines(content), encoding="utf-8")
        run.finish(result)
        return run

    return make


def to_lines(content: Any) -> str:
    """One JSON line for each row, or for the one object."""
    rows = cast("list[Any]", content) if isinstance(content, list) else [content]
    return "".join(json.dumps(row) + "\n" for row in rows)


def unmet(result: LessonCheckResult) -> list[str]:
    """Names of the criteria that are not met."""
    return [criterion.name for criterion in result.criteria if not criterion.is_met]
