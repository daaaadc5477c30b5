# pyright: basic
"""What a cluster runs: ``python -m pipeline.train.backends.cluster_worker STORAGE RUN``, in the unpacked bundle.

Takes up the run where an earlier attempt left it, pulls the base model, trains, and keeps the storage up to date: small
files and whole checkpoints every few seconds, everything but checkpoints at the end.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.operations import find_operation
from pipeline.train.backends.storage import Storage
from pipeline.train.bundle import is_pulled_there
from pipeline.train.run import TRAIN_RUN

_SYNC_SECONDS = 10.0


def main(uri: str, run_id: str) -> int:
    """Train the run of this bundle; returns the exit status."""
    os.environ["LLMOPS_WORKSPACE"] = str(Path.cwd())
    storage = Storage(uri)
    run = _open(storage, run_id)
    try:
        request = TRAIN_RUN.parse(read_json(run.path / "request.json"))
        if is_pulled_there(request.model):
            # By name, not by import: stages do not know one another.
            find_operation("models.pull").call({"model": request.model})
        with _kept_up_to_date(storage, run):
            TRAIN_RUN.execute(request, run)
    except PipelineError as error:
        print(error.to_json(), file=sys.stderr)  # noqa: T201 - the job's log
        return error.exit_code
    return 0


def _open(storage: Storage, run_id: str) -> Run:
    run = Run(Settings.load().runs_dir / run_id)
    run.artifacts.mkdir(parents=True, exist_ok=True)
    num_files = storage.download(run_id, run.path, lambda _name: True)
    print(f"{num_files} files of an earlier attempt", file=sys.stderr, flush=True)  # noqa: T201 - the job's log
    if not (run.path / "request.json").exists():
        write_json(run.path / "request.json", read_json(Path("request.json")))
        run.write_manifest(operation=TRAIN_RUN.name, status="queued", queued_at=0.0)
    return run


@contextmanager
def _kept_up_to_date(storage: Storage, run: Run) -> Generator[None]:
    stopped = threading.Event()

    def keep() -> None:
        while not stopped.wait(_SYNC_SECONDS):
            with contextlib.suppress(OSError):  # the next round tries again
                storage.upload(run.path, with_checkpoints=True)

    thread = threading.Thread(target=keep, name="storage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        storage.upload(run.path, with_checkpoints=False)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
