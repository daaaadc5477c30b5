"""Start, watch and stop the embedded server: a child process that never outlives its parent.

Does not choose a model: see :mod:`pipeline.inference.model_folder`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.core.errors import CancelledRunError, IntegrityError, InvalidInputError, OperationFailedError
from pipeline.core.extras import require
from pipeline.core.files import read_json, write_atomic
from pipeline.core.paths import resolve_path
from pipeline.core.settings import Settings, child_environment
from pipeline.inference.server_spec import (
    READY_FILE,
    SERVER_LOG,
    SPEC_FILE,
    ServerSpec,
    require_key_off_loopback,
)

_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02
_SHOWN_LOG_LINES = 8
_GGUF_MAGIC = b"GGUF"
_MAX_RESTARTS = 3
_RESTART_WINDOW_SECONDS = 60.0
_BAD_FILE_WORDS = (
    "corrupted or incomplete",
    "invalid magic",
    "failed to read",
    "failed to load model",
    "gguf_init",
)


@dataclass(slots=True)
class ServerHandle:
    """A running embedded server; a context manager that stops it."""

    base_url: str
    """OpenAI base URL, ending in ``/v1``."""
    pid: int
    """Process id of the child."""
    port: int
    """Port it listens on."""
    folder: Path
    """Where ``server.log`` and ``requests.jsonl`` are."""
    load_seconds: float
    """Time to load the weights."""
    warm_seconds: float
    """Time to read the warm-up prefix."""
    ready_seconds: float
    """Time from the start of the process to the first possible request."""
    supports_tools: bool
    """The chat template knows tools."""
    _process: "subprocess.Popen[bytes]"
    _owned_folder: bool = field(default=False)

    @property
    def log_path(self) -> Path:
        """What the server printed."""
        return self.folder / SERVER_LOG

    @property
    def root_url(self) -> str:
        """URL without ``/v1``: /health and the raw endpoints."""
        return self.base_url.removesuffix("/v1")

    def is_alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Wait for the process to end; True when it has."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.is_alive()

    def last_log_lines(self) -> list[str]:
        """Return the end of the log."""
        return _last_lines(self.log_path)

    def stop(self) -> None:
        """Terminate the server; kill it after 5 s. Does nothing when it has ended."""
        _end(self._process)
        if self._owned_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_server(
    spec: ServerSpec,
    *,
    folder: Path | None = None,
    timeout_seconds: float = 300.0,
    stop: threading.Event | None = None,
) -> ServerHandle:
    """Start a server and return when it answers.

    Args:
        spec: What to serve.
        folder: Where its log goes; default is a temporary folder that is removed on stop.
        timeout_seconds: Give up, and end the child, after this time.
        stop: Set it to give up while it loads.

    Raises:
        InvalidInputError: If a file is missing, the port is taken, or the host needs a key.
        IntegrityError: If the model file is damaged.
        OperationFailedError: If the child ends or hangs before it is ready.
        CancelledRunError: If ``stop`` was set before it was ready.
        MissingDependencyError: If the ``serve`` extra is not installed.
    """
    require("xllamacpp", "starlette", "uvicorn", extra="serve")
    spec = _check_spec(spec)
    owned = folder is None
    place = Path(tempfile.mkdtemp(prefix="llmops-server-")) if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    try:
        process = _spawn(spec, place.absolute())
        started = time.monotonic()
        try:
            _wait_ready(process, place / READY_FILE, started + timeout_seconds, stop)
        except BaseException:
            _end(process)
            raise
        return _describe(spec, place.absolute(), process, time.monotonic() - started, owned_folder=owned)
    except BaseException:
        if owned:
            shutil.rmtree(place, ignore_errors=True)
        raise


def _check_spec(spec: ServerSpec) -> ServerSpec:
    require_key_off_loopback(spec.host, Settings.load().api_key)
    model = resolve_path(spec.model_path)
    check_gguf(model)
    adapters = [
        adapter.model_copy(update={"path": str(resolve_path(adapter.path))}) for adapter in spec.adapters
    ]
    for adapter in adapters:
        check_gguf(Path(adapter.path))
    if len(set(spec.model_names)) < len(spec.model_names):
        raise InvalidInputError("two models would have the same name", hint="Give each adapter its own name.")
    changes: dict[str, object] = {"model_path": str(model), "adapters": tuple(adapters)}
    if spec.chat_template is not None:
        template = resolve_path(spec.chat_template)
        if not template.is_file():
            raise InvalidInputError(f"no chat template at {template}", hint="Pass the path of a jinja file.")
        changes["chat_template"] = str(template)
    if spec.port:
        check_port(spec.host, spec.port)
    return spec.model_copy(update=changes)


def check_gguf(path: Path) -> None:
    """Check that a file is there and begins like a GGUF; a cut end is found when it is loaded.

    Raises:
        InvalidInputError: If there is no such file.
        IntegrityError: If it is something else.
    """
    if not path.is_file():
        raise InvalidInputError(
            f"no model file at {path}", hint="Check the path; `llmops export convert` makes one."
        )
    with path.open("rb") as handle:
        if handle.read(4) != _GGUF_MAGIC:
            raise IntegrityError(
                f"{path.name} is not a GGUF file", hint="Export or copy it again.", path=str(path)
            )


def check_port(host: str, port: int) -> None:
    """Check that a port is free.

    Raises:
        InvalidInputError: If something listens there, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise InvalidInputError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
            hint="Stop what uses it (`llmops deploy list` shows our servers), or pass another --port; 0 takes a free one.",
            port=port,
        ) from error


def _spawn(spec: ServerSpec, folder: Path) -> "subprocess.Popen[bytes]":
    (folder / READY_FILE).unlink(missing_ok=True)
    write_atomic(folder / SPEC_FILE, spec.model_dump_json())
    with (folder / SERVER_LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.inference.gateway", "--spec", str(folder / SPEC_FILE)],
            stdin=subprocess.PIPE,  # closes when this process ends, even by kill -9; the child watches it
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches the parent only, which then stops the child in order
            env=child_environment(LLMOPS_STOP_ON_STDIN_CLOSE="1"),
        )


def _describe(
    spec: ServerSpec, folder: Path, process: "subprocess.Popen[bytes]", took: float, *, owned_folder: bool
) -> ServerHandle:
    facts = read_json(folder / READY_FILE)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(spec.host, spec.host)
    shown = f"[{host}]" if ":" in host else host
    return ServerHandle(
        base_url=f"http://{shown}:{facts['port']}/v1",
        pid=process.pid,
        port=facts["port"],
        folder=folder,
        load_seconds=facts["load_seconds"],
        warm_seconds=facts["warm_seconds"],
        ready_seconds=round(took, 3),
        supports_tools=facts["supports_tools"],
        _process=process,
        _owned_folder=owned_folder,
    )


def _wait_ready(
    process: "subprocess.Popen[bytes]", ready_file: Path, deadline: float, stop: threading.Event | None
) -> None:
    log_path = ready_file.with_name(SERVER_LOG)
    while not ready_file.exists():
        if process.poll() is not None:
            raise _explain_death(process.returncode, log_path)
        if stop is not None and stop.is_set():
            raise CancelledRunError(
                "stopped before the server was ready", hint="Start it again when you need it."
            )
        if time.monotonic() > deadline:
            raise OperationFailedError(
                "the server did not become ready in time",
                hint="Close other programs or serve a smaller model; the log's end is in details.",
                log=_last_lines(log_path),
            )
        time.sleep(_POLL_SECONDS)


def _explain_death(status: int, log_path: Path) -> OperationFailedError:
    lines = _last_lines(log_path)
    text = "\n".join(lines)
    if any(words in text for words in _BAD_FILE_WORDS):
        reason = next((line for line in lines if "error loading model" in line), lines[-1])
        return IntegrityError(
            f"the model file cannot be loaded: {reason.rpartition('error loading model: ')[2]}",
            hint="The file is damaged or cut short; export or copy it again.",
            log=lines,
        )
    return OperationFailedError(
        f"the server ended with status {status} before it was ready: {lines[-1] if lines else 'no output'}",
        hint="Read the end of its log in details; `llmops doctor run` checks the installation.",
        log=lines,
    )


def _last_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [line for line in text.splitlines() if line.strip()][-_SHOWN_LOG_LINES:]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def supervise(
    spec: ServerSpec,
    folder: Path,
    stop: threading.Event,
    on_ready: Callable[[ServerHandle, int], None],
) -> int:
    """Keep a server running until ``stop`` is set; return how often it had to be restarted.

    Args:
        spec: What to serve; a restart keeps the first port.
        folder: Where the log goes.
        stop: Set it, for example from a signal handler, to end.
        on_ready: Called with the handle and the number of restarts so far, each time it answers.

    Raises:
        OperationFailedError: If the server dies more than three times in a minute.
    """
    deaths: list[float] = []
    num_restarts = 0
    while True:
        with start_server(spec, folder=folder, stop=stop) as handle:
            spec = spec.model_copy(update={"port": handle.port})
            on_ready(handle, num_restarts)
            while not stop.is_set() and handle.is_alive():
                stop.wait(0.2)
            lines = handle.last_log_lines()
        if stop.is_set():
            return num_restarts
        now = time.monotonic()
        deaths = [moment for moment in deaths if now - moment < _RESTART_WINDOW_SECONDS] + [now]
        if len(deaths) > _MAX_RESTARTS:
            raise OperationFailedError(
                f"the server died {len(deaths)} times in a minute",
                hint="Read the end of its log in details; a smaller model or context needs less memory.",
                log=lines,
            )
        num_restarts += 1
