"""Run directories: states, failures, kill -9 and resuming in place."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core.errors import CancelledRunError, DoesNotFitError, InvalidInputError, OperationFailedError
from pipeline.core.runs import Run, list_runs

SLEEPER = """
import time
from pipeline.core.runs import Run
run = Run.create("demo.sleep", {"seconds": 60})
with run.active():
    (run.artifacts / "half.txt").write_text("one", encoding="utf-8")
    print(run.id, flush=True)
    time.sleep(60)
"""


def start_sleeper() -> tuple[subprocess.Popen[str], Run]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    process.stdout.close()
    return process, Run.open(run_id)


def test_a_finished_run_holds_request_result_and_the_digest_of_each_artifact(workspace: Path) -> None:
    run = Run.create("demo.write", {"text": "abc"})
    with run.active():
        (run.artifacts / "out.txt").write_text("abc", encoding="utf-8")
        run.finish({"answer": 42})
    assert run.state() == "succeeded"
    assert run.path.parent == workspace / "runs"
    assert json.loads((run.path / "request.json").read_text(encoding="utf-8")) == {"text": "abc"}
    assert json.loads((run.path / "result.json").read_text(encoding="utf-8")) == {"answer": 42}
    expected = {"path": "artifacts/out.txt", "sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3}
    assert run.manifest()["outputs"] == [expected]


def test_checkpoints_and_leftovers_of_killed_writes_are_not_outputs(workspace: Path) -> None:
    run = Run.create("demo.write", {})
    (run.artifacts / "checkpoint-10").mkdir()
    (run.artifacts / "checkpoint-10" / "state.bin").write_bytes(b"1")
    (run.artifacts / ".model.bin.abc.part").write_bytes(b"1")
    (run.artifacts / "model.bin").write_bytes(b"1")
    run.finish({})
    assert [output["path"] for output in run.manifest()["outputs"]] == ["artifacts/model.bin"]


def test_kill_9_makes_a_run_interrupted_and_it_can_be_finished_in_place(workspace: Path) -> None:
    process, run = start_sleeper()
    assert run.state() == "running"
    assert run.process() is not None
    process.kill()
    process.wait(10)
    assert run.state() == "interrupted"
    assert (run.artifacts / "half.txt").read_text(encoding="utf-8") == "one"
    with run.active():
        assert run.state() == "running"
        run.finish({"resumed": True})
    assert run.state() == "succeeded"
    assert [found.id for found in list_runs()] == [run.id]


def test_a_zombie_process_counts_as_gone(workspace: Path) -> None:
    process, run = start_sleeper()
    os.kill(process.pid, signal.SIGKILL)  # and not waited for: it stays a zombie of this process
    deadline = time.monotonic() + 10
    while run.state() == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.state() == "interrupted"
    process.wait(10)


def test_another_process_with_the_same_pid_does_not_keep_a_run_alive(workspace: Path) -> None:
    run = Run.create("demo.write", {})
    assert run.state() == "running"  # pid and start time of this very process
    run.write_manifest(process_started=run.manifest()["process_started"] - 3600)
    assert run.state() == "interrupted"


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (DoesNotFitError("too big", hint="Make it smaller.", needed_bytes=9), "failed", "does_not_fit"),
        (CancelledRunError("stopped", hint="Resume it."), "cancelled", "cancelled"),
        (ZeroDivisionError("division by zero"), "failed", "internal"),
    ],
)
def test_an_error_in_a_run_is_recorded_and_raised(
    workspace: Path, error: Exception, state: str, code: str
) -> None:
    run = Run.create("demo.fail", {})
    with pytest.raises(type(error)), run.active():
        raise error
    assert run.state() == state
    stored = json.loads((run.path / "error.json").read_text(encoding="utf-8"))
    assert stored["code"] == code
    assert str(error) in stored["message"]


def test_an_operating_system_error_becomes_a_failure_that_names_the_file(workspace: Path) -> None:
    run = Run.create("demo.fail", {})
    with pytest.raises(OperationFailedError, match=r"No such file or directory .*missing\.txt"), run.active():
        (workspace / "missing.txt").read_text(encoding="utf-8")
    assert run.state() == "failed"


def test_success_after_a_failure_leaves_no_error_behind(workspace: Path) -> None:
    run = Run.create("demo.retry", {})
    with pytest.raises(OperationFailedError), run.active():
        raise OperationFailedError("no", hint="Again.")
    with run.active():
        assert run.manifest()["ended_at"] is None
        run.finish({})
    assert not (run.path / "error.json").exists()


def test_ctrl_c_makes_a_run_cancelled(workspace: Path) -> None:
    run = Run.create("demo.stop", {})
    with pytest.raises(KeyboardInterrupt), run.active():
        raise KeyboardInterrupt
    assert run.state() == "cancelled"


def test_a_queued_run_waits_for_its_worker_but_not_for_ever(workspace: Path) -> None:
    run = Run.create("demo.queue", {}, state="queued")
    assert run.state() == "queued"
    run.write_manifest(queued_at=time.time() - 3600)
    assert run.state() == "interrupted"


def test_a_queued_run_whose_worker_died_before_it_reported_is_interrupted(workspace: Path) -> None:
    run = Run.create("demo.queue", {}, state="queued")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        run.record_worker(worker.pid)
        assert run.state() == "queued"
        worker.kill()
    assert run.state() == "interrupted"


def test_a_run_opens_by_an_unambiguous_part_of_its_id(workspace: Path) -> None:
    first, second = Run.create("demo.one", {}), Run.create("demo.two", {})
    assert Run.open(first.id) == first
    assert Run.open("demo-two") == second


@pytest.mark.parametrize("run_id", ["", "nothing-like-it", "demo", "..", "../runs", "/etc", "a\0b"])
def test_an_ambiguous_or_unknown_run_id_is_invalid_input(workspace: Path, run_id: str) -> None:
    Run.create("demo.one", {})
    Run.create("demo.two", {})
    with pytest.raises(InvalidInputError, match="match"):
        Run.open(run_id)


def test_half_a_metric_line_of_a_killed_writer_is_passed_over(workspace: Path) -> None:
    run = Run.create("demo.metrics", {})
    run.log_metrics(step=1, loss=2.5)
    with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"time": 1.0, "step": 2, "los{"time": 2.0, "step": 2}\n')
    run.log_metrics(step=3)
    with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"time": 3.0, "nested": {"a": 1}')
    assert [line["step"] for line in run.metrics()] == [1, 3]
