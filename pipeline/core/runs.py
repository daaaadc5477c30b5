"""Run directory: what one long operation was asked, did, measured and made.

``runs/<utc>-<operation>-<id>/`` holds ``request.json``, ``manifest.json``, ``progress.json``, ``metrics.jsonl``,
``log.txt``, ``result.json`` or ``error.json`` and ``artifacts/``. All state is in files, so it survives whoever
started it. A run that ended well is never edited; an interrupted, failed or cancelled one can be resumed in place.
A run that a job works on also has ``worker.json``: which process was started for it. A running one has
``heartbeat``, which tells readers on other machines that it is alive.
"""

import contextlib
import hashlib
import json
import os
import platform
import secrets
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from pipeline.core.errors import InvalidInputError, OperationFailedError, PipelineError
from pipeline.core.extras import installed_version
from pipeline.core.files import read_json, sha256_file, write_json
from pipeline.core.heartbeat import beating, is_beating
from pipeline.core.settings import Settings

MANIFEST_VERSION = 1
RunState = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
_HEARTBEAT = "heartbeat"
_QUEUE_SECONDS = 60.0  # a worker imports and reports in about a second; a minute covers a loaded machine
_RECORDED_PACKAGES = (
    "llmops",
    "torch",
    "transformers",
    "trl",
    "peft",
    "unsloth",
    "xllamacpp",
    "gguf",
    "libgguf",
)


@dataclass(frozen=True, slots=True)
class Run:
    """Handle of one run directory."""

    path: Path

    @property
    def id(self) -> str:
        """Folder name; ``run:<id>/<artifact>`` refers into it."""
        return self.path.name

    @property
    def artifacts(self) -> Path:
        """Folder for what the run makes."""
        return self.path / "artifacts"

    @classmethod
    def create(cls, operation: str, request: dict[str, Any], *, state: RunState = "running") -> "Run":
        """Make a new run directory with its request and manifest."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        run_id = f"{stamp}-{operation.replace('.', '-')}-{secrets.token_hex(3)}"
        run = cls(Settings.load().runs_dir / run_id)
        run.artifacts.mkdir(parents=True)
        write_json(run.path / "request.json", request)
        digest = digest_request(operation, request)
        packages = {name: v for name in _RECORDED_PACKAGES if (v := installed_version(name))}
        run.write_manifest(
            manifest_version=MANIFEST_VERSION,
            operation=operation,
            request_sha256=digest,
            status=state,
            queued_at=time.time(),
            created_at=_now(),
            packages=packages,
            python=platform.python_version(),
            machine=platform.machine(),
            **process_identity(os.getpid()),
        )
        return run

    @classmethod
    def open(cls, run_id: str) -> "Run":
        """Open a run by id or by an unambiguous part of it.

        Raises:
            InvalidInputError: If no run, or more than one, matches.
        """
        runs = list_runs()
        matches = [run for run in runs if run.id == run_id] or [
            run for run in runs if run_id and run_id in run.id
        ]
        if len(matches) != 1:
            found = f"{len(matches)} runs match" if matches else "no run matches"
            raise InvalidInputError(f"{found} {run_id!r}", hint="Run `llmops jobs list` to see the run ids.")
        return matches[0]

    def manifest(self) -> dict[str, Any]:
        """Return the manifest as stored."""
        return read_json(self.path / "manifest.json")

    def write_manifest(self, **changes: object) -> None:
        """Merge changes into the manifest, atomically."""
        path = self.path / "manifest.json"
        current: dict[str, Any] = read_json(path) if path.exists() else {}
        write_json(path, {**current, **changes})

    def state(self) -> RunState:
        """Return the state; ``running`` or ``queued`` with a dead process is ``interrupted``."""
        # The worker is looked at before the manifest: a worker that ends in between has then left its last word.
        process = self.process()
        manifest = self.manifest()
        status: RunState = manifest["status"]
        if status == "running" and process is None:
            is_elsewhere = manifest.get("host", _host()) != _host()
            return "running" if is_elsewhere and is_beating(self.path / _HEARTBEAT) else "interrupted"
        if status == "queued" and process is None:
            started = (self.path / "worker.json").exists()
            is_young = time.time() - manifest["queued_at"] < _QUEUE_SECONDS
            return "queued" if is_young and not started else "interrupted"
        return status

    def process(self) -> psutil.Process | None:
        """Return the living process of this machine that works on this run, or None."""
        manifest = self.manifest()
        if manifest["status"] == "queued":
            # Until the worker reports, the manifest holds whoever submitted; worker.json holds the worker.
            worker = self.path / "worker.json"
            return _living_process(read_json(worker)) if worker.exists() else None
        return _living_process(manifest) if manifest["status"] == "running" else None

    def queue(self) -> None:
        """Mark the run as waiting for a new worker."""
        (self.path / "worker.json").unlink(missing_ok=True)
        self.write_manifest(status="queued", queued_at=time.time())

    def record_worker(self, pid: int) -> None:
        """Remember the process that was started for this run."""
        write_json(self.path / "worker.json", process_identity(pid))

    @contextmanager
    def active(self) -> Generator[None]:
        """Own the run: record this process, and on the way out any error."""
        identity = process_identity(os.getpid())
        self.write_manifest(status="running", started_at=_now(), ended_at=None, **identity)
        try:
            with beating(self.path / _HEARTBEAT):
                yield
        except PipelineError as error:
            self._fail(error)
            raise
        except KeyboardInterrupt:
            self.write_manifest(status="cancelled", ended_at=_now())
            raise
        except OSError as error:
            failure = OperationFailedError(
                f"{type(error).__name__}: {error.strerror or error}"
                + (f" ({error.filename})" if error.filename else ""),
                hint=f"Mend the cause, then `llmops jobs resume {self.id}`.",
            )
            self._fail(failure)
            raise failure from error
        except BaseException as error:
            self._fail(
                PipelineError(f"{type(error).__name__}: {error}", hint=f"See {self.path / 'log.txt'}.")
            )
            raise

    def _fail(self, error: PipelineError) -> None:
        status = "cancelled" if error.code == "cancelled" else "failed"
        try:
            write_json(self.path / "error.json", error.to_dict())
            self.write_manifest(status=status, ended_at=_now())
        except OSError:
            pass  # a full disk must not hide the error that is on its way to the caller

    def finish(self, result: dict[str, Any]) -> None:
        """Store the result and the digests of all artifacts, and close the run."""
        outputs = [
            {"path": str(p.relative_to(self.path)), "sha256": sha256_file(p), "bytes": p.stat().st_size}
            for p in sorted(self.artifacts.rglob("*"))
            if p.is_file() and not p.is_symlink() and not _is_scratch(p.relative_to(self.artifacts))
        ]
        write_json(self.path / "result.json", result)
        (self.path / "error.json").unlink(missing_ok=True)
        self.write_manifest(status="succeeded", ended_at=_now(), outputs=outputs)

    def log_metrics(self, **values: object) -> None:
        """Append one line to ``metrics.jsonl`` (seconds since the epoch under ``time``)."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return all complete metric lines."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found: list[dict[str, Any]] = []
        for line in lines:
            with contextlib.suppress(ValueError):  # a killed writer leaves half a line, also in the middle
                found.append(json.loads(line))
        return found


def list_runs() -> list[Run]:
    """Return all runs, newest first."""
    root = Settings.load().runs_dir
    found = [Run(p) for p in root.iterdir() if (p / "manifest.json").is_file()] if root.is_dir() else []
    return sorted(found, key=lambda run: run.id, reverse=True)


def digest_request(operation: str, request: dict[str, Any]) -> str:
    """Return the SHA-256 that equal requests to an operation share; the files they name are not looked into."""
    text = json.dumps([operation, request], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_scratch(artifact: Path) -> bool:
    # Checkpoints serve resuming only; hidden `.part` files are what a killed write left.
    return "checkpoint" in str(artifact) or (artifact.name.startswith(".") and artifact.suffix == ".part")


def process_identity(pid: int) -> dict[str, object]:
    """Return what tells a process from a later one with the same pid, and from one on another machine."""
    return {"pid": pid, "process_started": psutil.Process(pid).create_time(), "host": _host()}


def _host() -> str:
    return socket.gethostname()


def _living_process(identity: dict[str, Any]) -> psutil.Process | None:
    if identity.get("host", _host()) != _host():
        return None
    try:
        process = psutil.Process(identity["pid"])
        is_same = abs(process.create_time() - identity["process_started"]) < 1
        return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
