"""The whole chain with the smoke recipe: kill -9 in the middle, no orphan, resume to the report, serve, agent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.core.runs import Run, list_runs

pytestmark = pytest.mark.slow

COMMAND = [
    *(sys.executable, "-m", "pipeline", "quickstart", "run", "--preset", "cpu-smoke", "--json"),
    *("--num-rows", "160", "--test-rows", "6", "--base-test-rows", "4"),
]


@pytest.fixture(scope="module")
def quickstart_workspace(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "models").mkdir()
    (folder / "models" / starter_model.name).symlink_to(starter_model)
    return folder


def _find_step(workspace: Path, operation: str) -> Run | None:
    runs = workspace / "runs"
    if not runs.is_dir():
        return None
    found = [Run(path) for path in sorted(runs.iterdir()) if (path / "manifest.json").is_file()]
    return next((run for run in found if run.manifest()["operation"] == operation), None)


def _kill_while_training(workspace: Path, environment: dict[str, str]) -> int:
    """Start the quickstart, kill -9 it in the training step, and return the pid of its training process."""
    process = subprocess.Popen(COMMAND, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        run = _find_step(workspace, "train.run")
        if run is not None and (run.path / "progress.json").exists():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return int(run.manifest()["pid"])
        assert process.poll() is None, "the quickstart ended before it could be killed"
        time.sleep(0.2)
    raise AssertionError("training did not start within five minutes")


@pytest.fixture(scope="module")
def finished(quickstart_workspace: Path) -> dict[str, Any]:
    """Result of a quickstart that was killed once and run again."""
    environment = {**os.environ, "LLMOPS_WORKSPACE": str(quickstart_workspace)}
    trainer = _kill_while_training(quickstart_workspace, environment)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(trainer) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not psutil.pid_exists(trainer), "the training process outlived the killed quickstart"
    outcome = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return json.loads(outcome.stdout)


def test_an_interrupted_quickstart_goes_on_and_ends_in_a_report(
    finished: dict[str, Any], quickstart_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(quickstart_workspace))
    assert finished["gate_passed"] is True
    trained = [run for run in list_runs() if run.manifest()["operation"] == "train.run"]
    assert len(trained) == 1, "the interrupted training run should have been continued, not replaced"
    report = (quickstart_workspace / finished["report_markdown"]).read_text(encoding="utf-8")
    for heading in ("## Before and after", "## Training", "## A conversation", "## Files", "## Steps"):
        assert heading in report
    page = (quickstart_workspace / finished["report_html"]).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2


def test_the_exported_model_is_served_and_parses_a_tool_call(
    finished: dict[str, Any], quickstart_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.core.messages import Message
    from pipeline.inference.client import ChatClient
    from pipeline.inference.model_folder import find_servable
    from pipeline.inference.server import start_server
    from pipeline.inference.server_spec import ServerSpec
    from pipeline.task_api.tools import load_tools

    monkeypatch.setenv("LLMOPS_WORKSPACE", str(quickstart_workspace))
    found = find_servable(finished["model"])
    assert found.name == "task-agent"
    messages = [
        Message(role="system", content="You are a task assistant. Today is 2026-03-11."),
        Message(role="user", content="Delete task 7"),
    ]
    with (
        start_server(ServerSpec(model_path=str(found.path), name=found.name)) as server,
        ChatClient(server.base_url, found.name) as client,
    ):
        completion = client.complete(messages, tools=load_tools(), max_tokens=64)
    # Forty steps do not make a good model; they do make one that answers a plain request with a parsed call.
    assert [call.name for call in completion.message.tool_calls] == ["delete_task"]
    assert completion.finish_reason == "tool_calls"


def test_running_it_again_repeats_nothing(finished: dict[str, Any], quickstart_workspace: Path) -> None:
    environment = {**os.environ, "LLMOPS_WORKSPACE": str(quickstart_workspace)}
    outcome = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=True)
    assert "train: done before" in outcome.stderr
    assert "evaluate tuned: done before" in outcome.stderr
    assert json.loads(outcome.stdout)["step_seconds"]["train"] == finished["step_seconds"]["train"]
