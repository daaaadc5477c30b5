"""Paths and references in requests: where they point, and the fence around the workspace for MCP callers.

Annotate a request field :data:`WorkspacePath` when it names a file or folder, and :data:`WorkspaceRef` when it may
also be a model reference (``hf:org/name``, ``run:<id>/artifact``, ``ollama:name``, ``file:path``); both stay plain
strings and also work inside lists and optional fields. The fence itself is :func:`confined_to` around parsing: the
CLI leaves it open because a user may go where the shell may go. Does not check that anything exists.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from pipeline.core.settings import Settings

_REMOTE_SCHEMES = ("hf:", "ollama:")
_fence: ContextVar[Path | None] = ContextVar("workspace_fence", default=None)


@contextmanager
def confined_to(root: Path) -> Generator[None]:
    """Refuse, while the block runs, to validate a path or reference that leaves ``root``."""
    token = _fence.set(root)
    try:
        yield
    finally:
        _fence.reset(token)


def is_confined() -> bool:
    """True while an MCP caller's request is parsed; a field may choose a more careful default then."""
    return _fence.get() is not None


def resolve_path(value: str) -> Path:
    """Return a request path as an absolute one: relative paths start at the workspace."""
    return Settings.load().workspace / value


def shown_path(path: Path) -> str:
    """Return a path relative to the workspace when it is inside."""
    root = Settings.load().workspace
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _check_path(value: str) -> str:
    if "\0" in value:
        raise ValueError("a path cannot contain a NUL character")
    root = _fence.get()
    if root is not None and value:
        _require_inside(root, value, base=root)
    return value


def _check_ref(value: str) -> str:
    if "\0" in value:
        raise ValueError("a reference cannot contain a NUL character")
    root = _fence.get()
    if root is None or not value:
        return value
    scheme, colon, rest = value.partition(":")
    if value.startswith(_REMOTE_SCHEMES):
        _require_plain(rest)
        if rest.startswith("/"):
            raise ValueError(f"{value!r} is not a name in a registry")
    elif scheme == "run" and colon:
        _require_inside(root / "runs", rest, base=root / "runs")
    else:
        _require_inside(root, value.removeprefix("file:"), base=root)
    return value


def _require_plain(value: str) -> None:
    if value.startswith(("-", "~")):
        raise ValueError(f"{value!r} starts with {value[0]!r}, which is not allowed here")
    if ".." in value.split("/"):
        raise ValueError(f"{value!r} contains '..', which is not allowed here")


def _require_inside(root: Path, value: str, *, base: Path) -> None:
    _require_plain(value)
    # realpath follows symbolic links as far as they exist, so a link that leads out is seen here.
    real, real_root = os.path.realpath(base / value), os.path.realpath(root)
    if os.path.commonpath([real, real_root]) != real_root:
        raise ValueError(f"{value!r} is outside the workspace")


WorkspacePath = Annotated[str, AfterValidator(_check_path)]
"""A file or folder: relative to the workspace, or absolute."""
WorkspaceRef = Annotated[str, AfterValidator(_check_ref)]
"""A model or artifact: a path, a starter name, or ``hf:``, ``run:``, ``ollama:``, ``file:`` and what follows."""
