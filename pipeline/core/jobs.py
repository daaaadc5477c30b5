"""Submit, watch and cancel long operations: a job is a detached worker process on one run directory.

A worker frees its memory at exit, cannot corrupt the MCP wire and survives whoever started it. State is read from
the run directory only. Does not schedule: the caller decides how many jobs run.
"""

import contextlib
import signal
import subprocess
import sys
import time
from typing import Any

import psutil

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.runs import Run
from pipeline.core.settings import child_environment

_TERMINATE_SECONDS = 5.0
_workers: list[subprocess.Popen[bytes]] = []  # of this process; polled so that ended ones do not stay zombies


class JobRef(Result):
    """A started job."""

    run_id: str
    """Ask `jobs status` for it."""


def submit(operation: Operation[Any, Any], request: Request) -> JobRef:
    """Start a long operation in a detached worker process and return at once."""
    run = Run.create(operation.name, request.model_dump(mode="json"), state="queued")
    start_worker(run)
    return JobRef(
        run_id=run.id,
        next_step=f"Call jobs_status with run_id={run.id} and wait_seconds=50 until it has ended.",
    )


def start_worker(run: Run) -> None:
    """Start the worker process of a queued run in its own process group; output goes to ``log.txt``."""
    _workers[:] = [worker for worker in _workers if worker.poll() is None]
    with (run.path / "log.txt").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "jobs", "work", run.id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=child_environment(PYTHONUNBUFFERED="1"),
        )
    _workers.append(worker)
    run.record_worker(worker.pid)


def cancel(run: Run) -> bool:
    """Stop the worker of a run and all its children; return False when it had ended before.

    Raises:
        InvalidInputError: If the run belongs to this very process.
    """
    deadline = time.monotonic() + _TERMINATE_SECONDS
    while (worker := run.process()) is None and run.state() == "queued" and time.monotonic() < deadline:
        time.sleep(0.1)  # its submitter is just about to start the worker
    if worker is None or run.state() not in {"running", "queued"}:
        return False
    if worker.pid == psutil.Process().pid:
        raise InvalidInputError("a run cannot cancel itself", hint="Cancel it from another terminal.")
    stop_process_tree(worker)
    if run.manifest()["status"] not in {"running", "queued"}:
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
    while run.state() in {"running", "queued"} and time.monotonic() < deadline:
        time.sleep(0.2)
