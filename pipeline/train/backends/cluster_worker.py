# pyright: basic
"""What a cluster runs: ``python -m pipeline.train.backends.cluster_worker STORAGE RUN``, in the unpacked bundle.

Takes up the run where an earlier attempt left it, pulls the base model, trains, and keeps the storage up to date: small
files and whole checkpoints every few seconds, everything but checkpoints at the end.
"""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json
from pipeline.core.heartbeat import repeating
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
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
            # As a command, not by import: stages do not know one another.
            subprocess.run([sys.executable, "-m", "pipeline", "models", "pull", request.model], check=True)
        try:
            with repeating(lambda: storage.upload(run.path, with_checkpoints=True), _SYNC_SECONDS):
                TRAIN_RUN.execute(request, run)
        finally:
            storage.upload(run.path, with_checkpoints=False)
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


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
