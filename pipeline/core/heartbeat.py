"""A sign of life for readers on other machines: while a block runs, a file's modification time is renewed.

On the machine of the worker its process is the better evidence; a run on a shared or synchronised disk (a cluster, a
notebook whose virtual machine was taken away) has nothing else.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

INTERVAL_SECONDS = 10.0
LOST_SECONDS = 120.0
"""Silence after which the worker counts as gone: twelve beats, for slow network disks and small differences of clocks."""


@contextmanager
def beating(path: Path) -> Generator[None]:
    """Touch a file every ten seconds while the block runs, then remove it."""
    with contextlib.suppress(OSError):
        path.touch()
    try:
        with repeating(path.touch, INTERVAL_SECONDS):
            yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


@contextmanager
def repeating(action: Callable[[], object], interval_seconds: float) -> Generator[None]:
    """Call something again and again in a thread while the block runs; a full or absent disk is tried again."""
    stopped = threading.Event()

    def repeat() -> None:
        while not stopped.wait(interval_seconds):
            with contextlib.suppress(OSError):
                action()

    thread = threading.Thread(target=repeat, name="repeating", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def is_beating(path: Path) -> bool:
    """True when the file was touched within :data:`LOST_SECONDS`."""
    try:
        return time.time() - path.stat().st_mtime < LOST_SECONDS
    except OSError:
        return False
