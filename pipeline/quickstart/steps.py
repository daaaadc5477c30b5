"""Run operations one after the other, each in a process of its own, and remember how far we are.

A step that ended well is never run again; a step that was interrupted goes on in its own run directory. Each step
is a child process, so that its memory is freed and it ends when this process ends.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import read_json, write_json
from pipeline.core.jobs import submitting, wait_for_end
from pipeline.core.operation import Operation
from pipeline.core.runs import Run
from pipeline.core.settings import child_environment
from pipeline.core.units import format_bytes, format_seconds

STEPS_FILE = "steps.json"
_SAMPLE_SECONDS = 1.0
_LAST_BREATH_SECONDS = 3.0  # a child looks once a second whether the quickstart that started it is gone


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What is known of one step."""

    run_id: str
    """Its own run directory."""
    seconds: float
    """Wall time spent on it, over all attempts."""
    peak_bytes: int
    """Largest sum of resident memory of its processes; shared pages count once per process."""


class StepRunner:
    """Runs named steps for one quickstart run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.records: dict[str, StepRecord] = {}
        path = run.path / STEPS_FILE
        if path.exists():
            self.records = {name: StepRecord(**facts) for name, facts in read_json(path).items()}

    def adopt(self, earlier: Run) -> None:
        """Take over the steps of an earlier run of the same request."""
        self.records = {**StepRunner(earlier).records, **self.records}
        self._save()

    def step(
        self,
        name: str,
        operation: Operation[Any, Any],
        values: dict[str, Any],
        *,
        still_there: Callable[[dict[str, Any]], bool] = lambda result: True,
    ) -> dict[str, Any]:
        """Run one operation, or return its stored result, and say so on stderr.

        Raises:
            InvalidInputError: If another process is working on it.
            OperationFailedError: If it fails; the message names the step.
        """
        request = operation.parse(values).model_dump(mode="json")
        record = self.records.get(name)
        run = self._find_run(record, request)
        if run is not None:
            wait_for_end(run, _LAST_BREATH_SECONDS)
        if run is not None and run.state() == "succeeded":
            result: dict[str, Any] = read_json(run.path / "result.json")
            if still_there(result):
                say(f"{name}: done before in {format_seconds(record.seconds if record else 0)}")
                return result
            run = None
        with submitting():  # or a second quickstart, or `jobs resume`, could start a worker on it too
            if run is None:
                run, record = Run.create(operation.name, request, state="queued"), None
            else:
                _require_idle(name, run)
                run.queue()
            process = _start_child(run)
        say(f"{name} …")
        seconds, peak = self._watch_child(name, run, record, process)
        say(f"{name}: {format_seconds(seconds)}, peak memory {format_bytes(peak)}")
        return read_json(run.path / "result.json")

    def _find_run(self, record: StepRecord | None, request: dict[str, Any]) -> Run | None:
        if record is None:
            return None
        run = Run(self.run.path.parent / record.run_id)
        same = (run.path / "request.json").is_file() and read_json(run.path / "request.json") == request
        return run if same else None

    def _watch_child(
        self, name: str, run: Run, record: StepRecord | None, process: subprocess.Popen[bytes]
    ) -> tuple[float, int]:
        before = record or StepRecord(run.id, 0.0, 0)
        started = time.monotonic()
        meter = MemoryMeter(process.pid)
        try:
            while process.poll() is None:
                self._remember(name, run, before, started, meter)
                time.sleep(_SAMPLE_SECONDS / 4)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            meter.stop()
            if process.stdin is not None:
                process.stdin.close()
            self._remember(name, run, before, started, meter)
        if run.state() != "succeeded":
            raise _failure(name, run, process.returncode)
        return self.records[name].seconds, self.records[name].peak_bytes

    def _remember(
        self, name: str, run: Run, before: StepRecord, started: float, meter: "MemoryMeter"
    ) -> None:
        seconds = round(before.seconds + time.monotonic() - started, 1)
        self.records[name] = StepRecord(run.id, seconds, max(before.peak_bytes, meter.peak_bytes))
        self._save()

    def _save(self) -> None:
        facts = {
            name: {"run_id": r.run_id, "seconds": r.seconds, "peak_bytes": r.peak_bytes}
            for name, r in self.records.items()
        }
        write_json(self.run.path / STEPS_FILE, facts)


class MemoryMeter:
    """Samples the resident memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.peak_bytes = max(self.peak_bytes, self._sample())
            self._stop.wait(_SAMPLE_SECONDS)

    def _sample(self) -> int:
        total = 0
        try:
            for process in [self._process, *self._process.children(recursive=True)]:
                total += process.memory_info().rss
        except psutil.NoSuchProcess:
            pass  # a child ended between the listing and the reading
        return total


def exists_below(workspace: Path, key: str) -> Callable[[dict[str, Any]], bool]:
    """Return a check that the path a result names is still there."""
    return lambda result: (workspace / result[key]).exists()


def _start_child(run: Run) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "jobs", "work", run.id],
        stdin=subprocess.PIPE,  # closes when this process ends, however; the child watches it
        stdout=subprocess.DEVNULL,
        env=child_environment(LLMOPS_STOP_ON_STDIN_CLOSE="1"),
    )
    run.record_worker(process.pid)
    return process


def _require_idle(name: str, run: Run) -> None:
    """Refuse a second worker: the one that finds the device taken would mark the living run failed."""
    state = run.state()
    if state in {"running", "queued"}:
        raise InvalidInputError(
            f"step {name!r} is {state} already, as {run.id}: another quickstart or job works on it",
            hint=f"Wait for it (`llmops jobs status {run.id} --wait-seconds 50`), or `llmops jobs cancel {run.id}`; "
            "then run the quickstart again.",
            step=name,
            step_run_id=run.id,
        )


def _failure(name: str, run: Run, status: int | None) -> OperationFailedError:
    path = run.path / "error.json"
    error: dict[str, Any] = read_json(path) if path.exists() else {}
    reason = error.get("message") or f"its process ended with status {status}"
    return OperationFailedError(
        f"step {name!r} failed: {reason}",
        hint=f"{error.get('hint', '')} Then run the quickstart again: it goes on with this step.".strip(),
        step=name,
        step_run_id=run.id,
    )


def say(text: str) -> None:
    """Print a line of the quickstart's own on stderr."""
    print(f"[quickstart] {text}", file=sys.stderr, flush=True)  # noqa: T201
