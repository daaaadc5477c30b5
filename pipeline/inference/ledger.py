"""A file of JSON lines that only grows: one append a line, on disk before the call returns, whole after a kill."""

import json
import os
from pathlib import Path
from typing import Any

from pipeline.core.errors import InvalidInputError


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a ledger and cut off a last line that a kill left unfinished."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as handle:
            handle.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.decode("utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise InvalidInputError(
            f"{path} is not a ledger: {error}", hint="Name another folder; a ledger is never edited."
        ) from error


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line in a single write and put it on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, json.dumps(line, ensure_ascii=False).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
