"""A sign of life for readers on other machines: while a block runs, a file's modification time is renewed.

On the machine of the worker its process is the better evidence; a run on a shared or synchronised disk (a cluster, a
notebook whose virtual machine was taken away) has nothing else.
"""

import contextlib
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

INTERVAL_SECONDS = 10.0
LOST_SECONDS = 120.0
"""Silence after which the worker counts as gone: twelve beats, for slow network disks and small differences of clocks."""


@contextmanager
def beating(path: Path) -> Generator[None]:
    """Touch a file every ten seconds while the block runs, then remove it."""
    stopped = threading.Event()
    with contextlib.suppress(OSError):
        path.touch()

    def beat() -> None:
        while not stopped.wait(INTERVAL_SECONDS):
            with contextlib.suppress(OSError):  # a full or absent disk is reported by whatever needs it
                path.touch()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        with contextlib.suppress(OSError):
            path.unlink()


def is_beating(path: Path) -> bool:
    """True when the file was touched within :data:`LOST_SECONDS`."""
    try:
        return time.time() - path.stat().st_mtime < LOST_SECONDS
    except OSError:
        return False
