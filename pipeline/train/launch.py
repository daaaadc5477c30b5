"""Train in several processes of this machine: torchrun on ``backends/worker.py``, one process per GPU or per CPU share.

torchrun is PyTorch's own launcher; the processes find their run by its id and end when this process ends.
"""

import subprocess
import sys
from typing import Any

from pipeline.core import errors
from pipeline.core.errors import OperationFailedError, PipelineError
from pipeline.core.files import read_json
from pipeline.core.runs import Run
from pipeline.core.settings import child_environment
from pipeline.train.job import TrainOutcome

OUTCOME_FILE = "outcome.json"
ERROR_FILE = "worker-error.json"
_WORKER = "pipeline.train.backends.worker"


def launch(run: Run, backend: str, num_processes: int) -> TrainOutcome:
    """Run the workers of a training run to their end.

    Raises:
        PipelineError: What a worker raised, or that one ended without a word.
    """
    for name in (OUTCOME_FILE, ERROR_FILE):
        (run.path / name).unlink(missing_ok=True)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={num_processes}",
    ]
    process = subprocess.Popen(
        [*torchrun, "-m", _WORKER, run.id, backend],
        stdin=subprocess.PIPE,  # inherited by the workers, which watch it because of the variable below
        stdout=sys.stderr.fileno(),
        env=child_environment(LLMOPS_STOP_ON_STDIN_CLOSE="1"),
    )
    try:
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        if process.stdin is not None:
            process.stdin.close()
    if process.returncode != 0:
        raise _failure(run)
    facts: dict[str, Any] = read_json(run.path / OUTCOME_FILE)
    facts["changes"] = tuple(facts["changes"])
    return TrainOutcome(**facts)


def _failure(run: Run) -> PipelineError:
    path = run.path / ERROR_FILE
    if not path.exists():
        return OperationFailedError(
            "a training process ended without a result",
            hint=f"See `llmops jobs logs {run.id}`; `llmops jobs resume {run.id}` goes on from the newest checkpoint.",
        )
    facts: dict[str, Any] = read_json(path)
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PipelineError)
    ]
    kind = next((kind for kind in kinds if kind.code == facts["code"]), OperationFailedError)
    return kind(facts["message"], hint=facts["hint"], **facts["details"])
