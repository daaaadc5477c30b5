"""One line per tool call in ``runs/mcp_calls.jsonl``: when, what, how it ended; secrets and long texts masked.

A full disk or a read-only workspace costs the line, never the call.
"""

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

from pipeline.core.settings import Settings
from pipeline.jobs.watch import redact

FILE_NAME = "mcp_calls.jsonl"
_MAX_BYTES = 5_000_000  # then the file is kept once as .1 and started again
_MAX_ARGUMENT_CHARACTERS = 300


def record_call(name: str, arguments: dict[str, Any], *, is_error: bool, seconds: float) -> None:
    """Append one line; several servers on one workspace may do so at once."""
    masked = {key[:60]: _mask(value) for key, value in arguments.items()}
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "operation": name,
        "arguments": masked,
        "is_error": is_error,
        "seconds": round(seconds, 3),
    }
    path = Settings.load().runs_dir / FILE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _MAX_BYTES:
            path.replace(path.with_suffix(".jsonl.1"))
        # One write with O_APPEND: lines of two servers do not mix.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.write(handle, (json.dumps(line, ensure_ascii=False) + "\n").encode())
        finally:
            os.close(handle)
    except OSError as error:
        print(f"no line in {path}: {error}", file=sys.stderr)  # noqa: T201


def _mask(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return redact(text)[:_MAX_ARGUMENT_CHARACTERS]
