"""Let something that runs until it is told to stop hear of it: SIGTERM and Ctrl-C as an event."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signal() -> Generator[threading.Event]:
    """Yield an event that SIGTERM and Ctrl-C set; outside the main thread nothing sets it but the caller."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
