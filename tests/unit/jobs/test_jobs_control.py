"""jobs.cancel and jobs.resume on real worker processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.jobs import stop_process_tree, submit, wait_for_end
from pipeline.core.runs import Run, list_runs
from pipeline.jobs import control
from pipeline.jobs.control import JobsCancelRequest, JobsResumeRequest, cancel_job, resume_job
from pipeline.jobs.watch import JobsListRequest, JobsLogsRequest, list_jobs, show_logs
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
    assert [found.id for found in list_runs()] == [run.id]


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


def test_two_resumes_at_once_start_one_worker(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create("demo.gone", {})
    run.write_manifest(status="cancelled")
    started: list[str] = []

    def start(resumed: Run) -> None:
        started.append(resumed.id)
        resumed.record_worker(os.getpid())

    def look_long(_run: Run) -> int:
        time.sleep(0.3)  # the other caller is here too by then, unless it is kept out
        return 0

    def resume(_number: int) -> str:
        try:
            return resume_job(JobsResumeRequest(run_id=run.id)).previous_state
        except InvalidInputError as error:
            return str(error)

    monkeypatch.setattr(control, "start_worker", start)
    monkeypatch.setattr(control, "stop_orphans", look_long)
    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(resume, range(2)))
    assert started == [run.id]
    assert answers == sorted(["cancelled", f"{run.id} is queued"])


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


def test_a_request_that_is_being_worked_on_is_not_started_twice(long_job: Run) -> None:
    operation = find_operation("synth.generate")
    request = operation.parse({"out": "data", "num_rows": 1_000_000, "validation_rows": 5, "test_rows": 5})
    again = submit(operation, request)
    assert again.run_id == long_job.id
    assert "no second job was started" in again.warnings[0]
    other = submit_synth(1_000_000, out="elsewhere")
    try:
        assert other.id != long_job.id
    finally:
        cancel_job(JobsCancelRequest(run_id=other.id))


def test_two_processes_that_submit_the_same_request_at_once_share_one_job(workspace: Path) -> None:
    code = (
        "import sys; from pipeline.core.jobs import submit; from pipeline.operations import find_operation; "
        "o = find_operation('synth.generate'); print(submit(o, o.parse({'out': 'data', 'num_rows': 1000000})).run_id)"
    )
    callers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)]
    answers = {caller.communicate()[0].decode().strip() for caller in callers}
    assert len(answers) == 1
    cancel_job(JobsCancelRequest(run_id=answers.pop()))


def test_the_same_request_after_the_end_makes_a_new_job(workspace: Path) -> None:
    first = submit_synth(20)
    wait_for_end(first, START_SECONDS)
    second = submit_synth(20)
    assert second.id != first.id
    wait_for_end(second, START_SECONDS)


def test_an_interrupted_job_of_the_same_request_is_named(long_job: Run) -> None:
    wait_until(lambda: long_job.state() == "running")
    worker = long_job.process()
    assert worker is not None
    worker.kill()
    wait_until(lambda: long_job.state() == "interrupted")
    operation = find_operation("synth.generate")
    request = operation.parse({"out": "data", "num_rows": 1_000_000, "validation_rows": 5, "test_rows": 5})
    answer = submit(operation, request)
    assert f"jobs resume {long_job.id}" in answer.warnings[0]
    cancel_job(JobsCancelRequest(run_id=answer.run_id))


def test_a_child_that_outlives_its_killed_worker_is_listed_and_stopped(workspace: Path) -> None:
    run = Run.create("demo.gone", {})
    run.write_manifest(status="cancelled")
    environment = {**os.environ, "LLMOPS_RUN_ID": run.id}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment) as child:
        wait_until(lambda: [o.pid for o in list_jobs(JobsListRequest()).orphans] == [child.pid])
        result = cancel_job(JobsCancelRequest(run_id=run.id))
        assert "1 processes" in result.warnings[0]
    assert list_jobs(JobsListRequest()).orphans == []


def test_processes_of_a_living_job_are_no_orphans(long_job: Run) -> None:
    wait_until(lambda: long_job.state() == "running")
    assert list_jobs(JobsListRequest()).orphans == []


def test_a_worker_that_is_tied_ends_with_the_process_that_started_it(workspace: Path) -> None:
    code = (
        "from pipeline.core.jobs import start_worker; from pipeline.core.runs import Run; "
        "from pipeline.operations import find_operation; o = find_operation('synth.generate'); "
        "r = Run.create(o.name, {'out': 'data', 'num_rows': 1000000}, state='queued'); "
        "start_worker(r, ends_with_caller=True); print(r.id, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as caller:
        assert caller.stdout is not None
        run = Run.open(caller.stdout.readline().decode().strip())
        wait_until(lambda: run.state() == "running")
        caller.kill()
    wait_until(lambda: run.state() == "interrupted")
