# pyright: basic
"""One of several training processes, started by torchrun or accelerate: ``python -m pipeline.train.backends.worker RUN BACKEND``.

All processes do the same work on their share of every batch; the first one writes metrics, checkpoints and the outcome.
Writes no training.json and does not close the run: `train run`, which waits for these processes, does.
"""

import os
import sys
from dataclasses import asdict

import torch
import torch.distributed as dist

from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json
from pipeline.core.lifeline import end_with_parent
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.train.launch import ERROR_FILE, OUTCOME_FILE
from pipeline.train.run import TrainRunRequest, build_job, train_with_backend


def main(run_id: str, backend: str) -> int:
    """Train as one of the processes of a run; returns the exit status."""
    if Settings.load().stop_on_stdin_close:  # under sbatch or nohup stdin is at its end from the start
        end_with_parent()
    if torch.cuda.is_available():
        # Before anything is loaded, or all processes load on the first GPU.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    run = Run.open(run_id)
    try:
        job = build_job(TrainRunRequest.model_validate(read_json(run.path / "request.json")), run)
        outcome = train_with_backend(backend, job)
    except PipelineError as error:
        write_json(run.path / ERROR_FILE, error.to_dict())
        print(error.to_json(), file=sys.stderr)  # noqa: T201
        return error.exit_code
    if dist.get_rank() == 0:
        write_json(run.path / OUTCOME_FILE, asdict(outcome))
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
