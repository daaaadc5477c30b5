"""Progress: the ETA's arithmetic, the file for watchers, plain lines and the bar on a terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core import progress as progress_module
from pipeline.core.files import read_json
from pipeline.core.progress import Progress
from pipeline.core.runs import Run


class Clock:
    """Time that moves only when told."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_the_eta_is_the_mean_pace_times_what_is_left(clock: Clock) -> None:
    with Progress("train", 20) as progress:
        assert progress.eta_seconds() is None
        clock.seconds += 10
        progress.update(5)
        assert progress.eta_seconds() == 30  # 2 s each, 15 left


def test_the_eta_of_a_resumed_activity_counts_only_what_is_done_now(clock: Clock) -> None:
    with Progress("train", 20) as progress:
        progress.done = 10
        clock.seconds += 10
        progress.update(15)
        assert progress.eta_seconds() == 10  # 2 s each, 5 left


def test_watchers_see_the_activity_from_its_start_and_its_end_exactly(workspace: Path, clock: Clock) -> None:
    run = Run.create("demo.progress", {})
    with Progress("pull", 4, unit="bytes", run=run) as progress:
        assert read_json(run.path / "progress.json")["done"] == 0
        for _ in range(4):  # far more often than the file is written
            progress.advance(note="fast")
    stored = read_json(run.path / "progress.json")
    assert (stored["label"], stored["done"], stored["total"], stored["note"]) == ("pull", 4, 4, "fast")


def test_away_from_a_terminal_a_line_comes_now_and_then_and_one_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("hash", 4096, unit="bytes") as progress:
        progress.update(1024)  # too soon for a line
        clock.seconds += 16
        progress.update(2048, "ok")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "hash: 2.0 KiB of 4.0 KiB, 16.0 s left ok",
        "hash: done in 16.0 s ok",
    ]


def test_a_failed_activity_does_not_say_that_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), Progress("train", 3):
        raise RuntimeError
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_counts(tmp_path: Path) -> None:
    code = """
from pipeline.core.progress import Progress
with Progress("train", 7) as progress:
    progress.update(7, "loss 0.5")
"""
    leader, follower = os.openpty()
    subprocess.run(
        [sys.executable, "-c", code], stderr=follower, check=True, env={**os.environ, "COLUMNS": "100"}
    )
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert "train" in shown
    assert "7/7" in shown
    assert "loss 0.5" in shown
