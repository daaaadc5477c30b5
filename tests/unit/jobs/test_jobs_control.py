"""jobs.cancel and jobs.resume on real worker processes."""

import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil
import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.jobs import stop_process_tree, submit, wait_for_end
from pipeline.core.runs import Run
from pipeline.jobs.control import JobsCancelRequest, JobsResumeRequest, cancel_job, resume_job
from pipeline.jobs.watch import JobsLogsRequest, show_logs
from pipeline.operations import find_operation

START_SECONDS = 120.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def submit_synth(num_rows: int, out: str = "data") -> Run:
    operation = find_operation("synth.generate")
    request = operation.parse({"out": out, "num_rows": num_rows, "validation_rows": 5, "test_rows": 5})
    return Run.open(submit(operation, request).run_id)


@pytest.fixture
def long_job(workspace: Path) -> Generator[Run]:
    run = submit_synth(1_000_000)
    yield run
    if (worker := run.process()) is not None:
        stop_process_tree(worker)


def test_a_job_runs_in_its_own_process_and_leaves_result_and_log(workspace: Path) -> None:
    run = submit_synth(20)
    assert run.state() == "queued"
    wait_for_end(run, START_SECONDS)
    assert run.state() == "succeeded"
    assert run.manifest()["pid"] != psutil.Process().pid
    assert len((workspace / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    assert "synth: done" in show_logs(JobsLogsRequest(run_id=run.id)).log


def test_a_job_with_an_impossible_request_fails_with_the_operations_error(workspace: Path) -> None:
    operation = find_operation("models.pull")
    run = Run.open(submit(operation, operation.parse({"model": "no-such-model"})).run_id)
    wait_for_end(run, START_SECONDS)
    assert run.state() == "failed"
    assert '"code": "invalid_input"' in (run.path / "error.json").read_text(encoding="utf-8")


def test_cancelling_stops_the_worker(long_job: Run) -> None:
    wait_until(lambda: long_job.state() == "running")
    worker = long_job.process()
    assert worker is not None
    result = cancel_job(JobsCancelRequest(run_id=long_job.id))
    assert (result.stopped, result.state) == (True, "cancelled")
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_cancelling_right_after_submitting_stops_it_too(long_job: Run) -> None:
    assert cancel_job(JobsCancelRequest(run_id=long_job.id)).state == "cancelled"
    time.sleep(2)  # a worker that had survived would have reported by now
    assert long_job.state() == "cancelled"


def test_kill_9_of_a_worker_is_seen_and_the_job_can_be_resumed(long_job: Run) -> None:
    wait_until(lambda: long_job.state() == "running")
    worker = long_job.process()
    assert worker is not None
    worker.kill()
    wait_until(lambda: long_job.state() == "interrupted")
    result = resume_job(JobsResumeRequest(run_id=long_job.id))
    assert (result.run_id, result.previous_state) == (long_job.id, "interrupted")
    wait_until(lambda: long_job.state() == "running")
    with pytest.raises(InvalidInputError, match="running"):
        resume_job(JobsResumeRequest(run_id=long_job.id))


def test_a_cancelled_job_goes_on_in_the_same_run_directory(workspace: Path) -> None:
    run = submit_synth(20)
    cancelled = cancel_job(JobsCancelRequest(run_id=run.id))
    assert cancelled.state == "cancelled"
    assert not (workspace / "data" / "train.jsonl").exists()
    resume_job(JobsResumeRequest(run_id=run.id))
    wait_for_end(run, START_SECONDS)
    assert run.state() == "succeeded"
    assert (workspace / "data" / "train.jsonl").exists()
    assert len(list((workspace / "runs").iterdir())) == 1


def test_cancelling_what_has_ended_changes_nothing_and_says_so(workspace: Path) -> None:
    run = Run.create("demo.done", {})
    with run.active():
        run.finish({})
    result = cancel_job(JobsCancelRequest(run_id=run.id))
    assert (result.stopped, result.state) == (False, "succeeded")
    assert "not running" in result.warnings[0]


def test_what_is_alive_or_has_succeeded_cannot_be_resumed(workspace: Path) -> None:
    run = Run.create("demo.done", {})
    with pytest.raises(InvalidInputError, match="is running"):
        resume_job(JobsResumeRequest(run_id=run.id))
    with run.active():
        run.finish({})
    with pytest.raises(InvalidInputError, match="nothing to resume"):
        resume_job(JobsResumeRequest(run_id=run.id))


def test_a_run_cannot_cancel_itself(workspace: Path) -> None:
    run = Run.create("demo.self", {})
    with pytest.raises(InvalidInputError, match="cannot cancel itself"):
        cancel_job(JobsCancelRequest(run_id=run.id))


def test_stopping_a_process_takes_its_children_and_those_that_ignore_the_request() -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        root = psutil.Process(process.pid)
        family = [root, *root.children(recursive=True)]
        assert len(family) == 2
        stop_process_tree(root)
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family)
