"""Files written whole or not at all, digests, and the disk check before a large write."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.core.errors import DoesNotFitError
from pipeline.core.units import format_bytes

_CHUNK_BYTES = 1 << 20


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    with open_atomic(path) as handle:
        handle.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def open_atomic(path: Path) -> Generator[BinaryIO]:
    """Yield a handle whose bytes become the file when the block ends without an error; for files written in pieces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write pretty JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON Lines atomically, one compact object a line."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file that this project wrote (blank lines are skipped)."""
    with path.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle if line.strip()]


@contextmanager
def staged_directory(target: Path) -> Generator[Path]:
    """Yield an empty sibling folder that replaces ``target`` when the block ends without an error.

    A killed process leaves ``target`` as it was; the next call removes the stale sibling. A kill in the instant
    between the two renames leaves the old content beside it, and the next call puts that back first.
    """
    staging = target.with_name(f".{target.name}.part")
    previous = target.with_name(f".{target.name}.old")
    if previous.exists() and not target.exists():
        previous.rename(target)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    staging.rename(target)
    shutil.rmtree(previous, ignore_errors=True)


def sha256_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the hex SHA-256 of a file, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    return digest.hexdigest()


def require_disk(folder: Path, needed_bytes: int, what: str) -> None:
    """Check free disk space before a large write.

    Raises:
        DoesNotFitError: If less than ``needed_bytes`` is free where ``folder`` is or will be.
    """
    probe = folder
    while not probe.exists():
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < needed_bytes:
        raise DoesNotFitError(
            f"{what} needs {format_bytes(needed_bytes)} of disk, {format_bytes(free)} are free",
            hint=f"Free some space on the disk of {probe}, or set LLMOPS_WORKSPACE to a folder on a larger one.",
            needed_bytes=needed_bytes,
            free_bytes=free,
        )
