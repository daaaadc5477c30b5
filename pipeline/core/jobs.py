"""Submit, watch and cancel long operations: a job is a detached worker process on one run directory.

A worker frees its memory at exit, cannot corrupt the MCP wire and survives whoever started it. State is read from
the run directory only. Does not schedule: the caller decides how many jobs run. Every process of a job carries the
run's id in its environment, so that what a killed worker left behind is found.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

import psutil

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.runs import Run, digest_request, list_runs
from pipeline.core.settings import Settings, child_environment

_TERMINATE_SECONDS = 5.0
_RUN_VARIABLE = "LLMOPS_RUN_ID"
_ALIVE = frozenset({"running", "queued"})
_workers: list[subprocess.Popen[bytes]] = []  # of this process; polled so that ended ones do not stay zombies


class JobRef(Result):
    """A started job."""

    run_id: str
    """Ask `jobs status` for it."""


def submit(operation: Operation[Any, Any], request: Request) -> JobRef:
    """Start a long operation in a detached worker process and return at once.

    The same request to the same operation is not started a second time while it is alive: a client that lost the
    answer may ask again.
    """
    values = request.model_dump(mode="json")
    with submitting():
        alike = [run for run in list_runs() if _is_alike(run, operation.name, values)]
        living = next((run for run in alike if run.state() in _ALIVE), None)
        run = living or Run.create(operation.name, values, state="queued")
        if living is None:
            start_worker(run)
    return JobRef(
        run_id=run.id,
        warnings=_describe_alike(living, alike),
        next_step=f"Call jobs_status with run_id={run.id} and wait_seconds=50 until it has ended.",
    )


def start_worker(run: Run, *, ends_with_caller: bool = False) -> None:
    """Start the worker process of a queued run in its own process group; output goes to ``log.txt``.

    With ``ends_with_caller`` it stops when this process is gone, however it went.
    """
    release_ended_workers()
    tie = {"LLMOPS_STOP_ON_STDIN_CLOSE": "1"} if ends_with_caller else {}
    with (run.path / "log.txt").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "jobs", "work", run.id],
            stdin=subprocess.PIPE if ends_with_caller else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=child_environment(PYTHONUNBUFFERED="1", **tie, **{_RUN_VARIABLE: run.id}),
        )
    _workers.append(worker)
    run.record_worker(worker.pid)


def release_ended_workers() -> None:
    """Give back what this process holds for workers that it started and that have ended."""
    for worker in _workers:
        if worker.poll() is not None and worker.stdin is not None:
            worker.stdin.close()
    _workers[:] = [worker for worker in _workers if worker.returncode is None]


def find_orphans() -> dict[str, list[psutil.Process]]:
    """Return, by run id, processes of this workspace's jobs whose run is no longer alive."""
    over = {run.id for run in list_runs() if run.state() not in _ALIVE}
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or of another user
            run_id = process.environ().get(_RUN_VARIABLE)
            is_another = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if run_id in over and is_another:
                found.setdefault(run_id, []).append(process)
    return found


def stop_orphans(run: Run) -> int:
    """Stop what a run that is over has left behind; return how many processes that were."""
    orphans = find_orphans().get(run.id, [])
    for process in orphans:
        stop_process_tree(process)
    return len(orphans)


@contextlib.contextmanager
def submitting() -> Generator[None]:
    """Let one process at a time look at the runs and start a worker on what it found; another then sees that one."""
    folder = Settings.load().runs_dir
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".submit.lock").open("a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_alike(run: Run, operation: str, values: dict[str, Any]) -> bool:
    return run.manifest().get("request_sha256") == digest_request(operation, values)


def _describe_alike(living: Run | None, alike: list[Run]) -> list[str]:
    if living is not None:
        return ["the same request is being worked on already; no second job was started"]
    return [
        f"{run.id} had the same request and is {state}: `llmops jobs resume {run.id}` goes on where it stopped"
        for run in alike[:1]
        if (state := run.state()) in {"interrupted", "cancelled"}
    ]


def cancel(run: Run) -> bool:
    """Stop the worker of a run and all its children; return False when it had ended before.

    Raises:
        InvalidInputError: If the run belongs to this very process.
    """
    deadline = time.monotonic() + _TERMINATE_SECONDS
    while (worker := run.process()) is None and run.state() == "queued" and time.monotonic() < deadline:
        time.sleep(0.1)  # its submitter is just about to start the worker
    if worker is None or run.state() not in _ALIVE:
        return False
    if worker.pid == psutil.Process().pid:
        raise InvalidInputError("a run cannot cancel itself", hint="Cancel it from another terminal.")
    stop_process_tree(worker)
    if run.manifest()["status"] not in _ALIVE:
        return False  # it ended by itself before the signal
    run.write_manifest(status="cancelled", ended_at=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()))
    return True


def stop_process_tree(root: psutil.Process) -> None:
    """Terminate a process and its children, kill what is left after 5 s."""
    family = [root]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += root.children(recursive=True)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=_TERMINATE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_TERMINATE_SECONDS)


def wait_for_end(run: Run, wait_seconds: float) -> None:
    """Return when the run is over or the time has passed."""
    deadline = time.monotonic() + wait_seconds
    while run.state() in _ALIVE and time.monotonic() < deadline:
        time.sleep(0.2)
