"""Python's cycle collector and the C library's thrift, out of the way while rows are read."""

import gc
from collections.abc import Generator
from contextlib import contextmanager

_KEPT_BYTES = 8 << 20  # several blocks of lines and what is made of them; no more, so that memory stays low


def keep_freed_memory() -> None:
    """Spare glibc to give memory back to the system after every block and to take it again: a tenth of the time.

    Freeing a large piece raises its limits: smaller ones come from the heap from then on, and the heap shrinks only
    when twice as much is free at its end (mallopt(3), ``M_MMAP_THRESHOLD``). Other C libraries do not mind.
    """
    bytes(_KEPT_BYTES)


@contextmanager
def without_collector() -> Generator[None]:
    """Keep the cycle collector from running: rows hold no cycles, and looking for some takes up to a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
