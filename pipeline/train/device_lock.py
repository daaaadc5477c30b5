"""One training job per device of a workspace: a file lock that the system gives back when its process ends, however."""

import fcntl
from collections.abc import Generator
from contextlib import contextmanager

from pipeline.core.errors import InvalidInputError
from pipeline.core.runs import Run
from pipeline.core.settings import Settings


@contextmanager
def device_lock(run: Run, device: str) -> Generator[None]:
    """Hold a device (``cpu``, or a GPU's id) for a run.

    Raises:
        InvalidInputError: If another run trains on it.
    """
    folder = Settings.load().runs_dir
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".training-{device}.lock").open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().strip()
            raise InvalidInputError(
                f"{holder} is training on {device}; one training job per device",
                hint=f"Wait for it (`llmops jobs status {holder} --wait-seconds 50`), or `llmops jobs cancel {holder}`.",
                run_id=holder,
            ) from error
        handle.truncate(0)
        handle.write(run.id)
        handle.flush()
        yield
