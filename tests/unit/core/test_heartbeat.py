"""Life signs: what a reader on another machine concludes from the heartbeat of a run."""

import os
import time
from pathlib import Path

import pytest

from pipeline.core import heartbeat
from pipeline.core.errors import InvalidInputError
from pipeline.core.runs import Run
from pipeline.jobs.control import JobsCancelRequest, cancel_job
from pipeline.jobs.watch import JobsStatusRequest, report_status


@pytest.fixture
def foreign_run(workspace: Path) -> Run:
    """A run that says it is being worked on elsewhere, by a process whose number is taken here too."""
    run = Run.create("demo.far", {})
    run.write_manifest(status="running", host="another-machine")
    return run


def test_a_file_is_touched_while_the_block_runs_and_removed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL_SECONDS", 0.01)
    path = tmp_path / "heartbeat"
    with heartbeat.beating(path):
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0:
            time.sleep(0.01)
        assert heartbeat.is_beating(path)
    assert not path.exists()


def test_a_run_elsewhere_with_a_fresh_heartbeat_is_running(foreign_run: Run) -> None:
    (foreign_run.path / "heartbeat").touch()
    assert foreign_run.state() == "running"
    assert foreign_run.process() is None
    with pytest.raises(InvalidInputError, match="another-machine"):
        cancel_job(JobsCancelRequest(run_id=foreign_run.id))


def test_a_run_elsewhere_whose_heartbeat_stopped_is_interrupted(foreign_run: Run) -> None:
    beat = foreign_run.path / "heartbeat"
    beat.touch()
    old = time.time() - heartbeat.LOST_SECONDS - 1
    os.utime(beat, (old, old))
    assert foreign_run.state() == "interrupted"


def test_a_run_elsewhere_without_a_heartbeat_is_interrupted(foreign_run: Run) -> None:
    assert foreign_run.state() == "interrupted"


def test_a_running_run_beats_and_an_ended_one_keeps_no_heartbeat(workspace: Path) -> None:
    run = Run.create("demo.here", {})
    with run.active():
        assert (run.path / "heartbeat").exists()
        run.finish({})
    assert not (run.path / "heartbeat").exists()


def test_a_living_run_that_writes_nothing_is_said_to_hang(workspace: Path) -> None:
    run = Run.create("demo.stuck", {})
    for path in run.path.iterdir():
        os.utime(path, (time.time() - 5000, time.time() - 5000))
    (run.path / "heartbeat").touch()  # the process lives
    found = report_status(JobsStatusRequest(run_id=run.id))
    assert found.state == "running"
    assert found.silent_seconds == pytest.approx(5000, abs=30)
    assert "may hang" in found.warnings[0]
