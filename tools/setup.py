"""Make ``.venv`` with everything this repository needs, pinned by ``constraints.txt``; run by ``make setup``.

Needs Python 3.11 or later and nothing else. Running it again costs a fraction of a second when nothing changed, goes
on where it stopped when it was killed, and needs no network when everything is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "setup-complete"
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = "data,scale,train,serve,agent,mcp,dev"
TORCH_INDEX = "LLMOPS_TORCH_INDEX_URL"
_OLDEST = (3, 11)
_CANDIDATES = ("python3.11", "python3.12", "python3.13", "python3.14", "python3", "python")
_LINE_SECONDS = 15.0
_KEPT_LINES = 30


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


def main() -> int:
    """Set up, or say in one line that all is ready."""
    try:
        if STAMP.exists() and VENV_PYTHON.exists() and STAMP.read_text(encoding="utf-8") == fingerprint():
            return 0
        started = time.monotonic()
        for number, (label, step) in enumerate(STEPS, start=1):
            _say(f"[{number}/{len(STEPS)}] {label}")
            begun = time.monotonic()
            step()
            _say(f"[{number}/{len(STEPS)}] {label}: {time.monotonic() - begun:.0f} s")
        part = STAMP.with_suffix(".part")
        part.write_text(fingerprint(), encoding="utf-8")
        part.replace(STAMP)
        _say(f"ready in {time.monotonic() - started:.0f} s: .venv/bin/llmops --help")
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def fingerprint() -> str:
    """Return the digest of everything that decides what is installed."""
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__)):
        digest.update(path.read_bytes())
    digest.update(str(ROOT).encode())  # a moved folder has scripts that point to the old place
    return digest.hexdigest()


def find_python() -> str:
    """Return a Python that can make the environment: this one if it will do."""
    too_old: list[str] = []
    for candidate in (sys.executable, *_CANDIDATES):
        path = shutil.which(candidate)
        version = _probe(path) if path else None
        if version is not None and version >= _OLDEST:
            return str(path)
        if version is not None:
            too_old.append(f"{candidate} is {version[0]}.{version[1]}")
    raise SetupError(
        "Python 3.11 or later with the venv module is needed"
        + (f" ({'; '.join(dict.fromkeys(too_old))})" if too_old else "")
        + ". Install it (Debian, Ubuntu: apt-get install python3.11 python3.11-venv), then run make again."
    )


def make_environment() -> None:
    """Create ``.venv`` unless a working one is there."""
    version = _probe(str(VENV_PYTHON)) if VENV_PYTHON.exists() else None
    has_pip = version is not None and _succeeds([str(VENV_PYTHON), "-m", "pip", "--version"])
    if version is None or version < _OLDEST or not has_pip:
        _run([find_python(), "-m", "venv", "--clear", str(VENV)])


def install_torch() -> None:
    """Install torch first: which build it is depends on the machine."""
    pinned = next(
        line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")
    )
    index = os.environ.get(TORCH_INDEX)
    if not index and not has_cuda():
        _say(
            f"      no NVIDIA GPU; if pip takes the large CUDA build, set {TORCH_INDEX} to an index of CPU builds"
        )
    _pip(pinned, *(["--extra-index-url", index] if index else []))


def install_project() -> None:
    """Install this repository in place with all extras."""
    # The build tools are installed like any other package, so that a second run needs no network.
    _pip("hatchling", "editables")
    _pip("--no-build-isolation", "-e", f"{ROOT}[{EXTRAS}]")


def fetch_type_checker() -> None:
    """Let pyright fetch its own code now, not in the middle of the checks."""
    _run([str(VENV / "bin" / "pyright"), "--version"])


def check() -> None:
    """Compile our own modules, as pip does with what it installs, and start the command."""
    _run([str(VENV_PYTHON), "-m", "compileall", "-q", "pipeline", "mcp_server"])
    _run([str(VENV / "bin" / "llmops"), "--version"])


def has_cuda() -> bool:
    """Return whether an NVIDIA driver answers."""
    return shutil.which("nvidia-smi") is not None and _succeeds(["nvidia-smi", "-L"])


STEPS = (
    ("Python environment .venv", make_environment),
    ("torch", install_torch),
    (f"llmops[{EXTRAS}]", install_project),
    ("type checker", fetch_type_checker),
    ("check", check),
)


def _pip(*arguments: str) -> None:
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "-c", str(CONSTRAINTS)]
    _run([str(VENV_PYTHON), "-m", "pip", "install", *options, *arguments])


def _run(command: list[str]) -> None:
    """Run a command, show its last line now and then, and all of its end if it fails."""
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    begun = shown = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip())
            interval = 0.2 if sys.stderr.isatty() else _LINE_SECONDS
            if time.monotonic() - shown >= interval:
                shown = time.monotonic()
                _say(f"      {shown - begun:4.0f} s  {last[-1][:90]}", transient=True)
    if process.returncode != 0:
        end = "\n".join(last)
        raise SetupError(
            f"`{' '.join(command)}` failed:\n{end}\n"
            "Mend the cause (network? disk space?) and run the same make command again; it goes on where it stopped."
        )


def _say(text: str, *, transient: bool = False) -> None:
    """Print a line; on a terminal a transient one is overwritten by the next."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if transient else "\n", file=sys.stderr, flush=True)  # noqa: T201
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def _probe(python: str) -> tuple[int, int] | None:
    code = "import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    sys.exit(main())
