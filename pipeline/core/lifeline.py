"""End a child process when its parent is gone, however it went."""

import os
import select
import sys
import threading
from collections.abc import Callable


def end_with_parent(stop: Callable[[], None] = lambda: os._exit(1)) -> None:
    """Watch the parent from a daemon thread: its end of our stdin closes, or our parent pid changes.

    Works also after kill -9 of the parent. Start the child with ``stdin=PIPE`` and keep the pipe open.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            readable, _, _ = select.select([sys.stdin], [], [], 1.0)
            if readable and not os.read(sys.stdin.fileno(), 1):
                break
        stop()

    threading.Thread(target=watch, daemon=True).start()
