"""``train.submit``: the recipe of ``train run`` on a Ray cluster; logs, metrics and artifacts come back as a local run.

The same bundle, the same operation: the cluster runs ``train.run`` on a run directory that this machine made, and copies
it to a storage place that both reach. While it trains, `train watch RUN` works here on the copy. Does not start clusters.
"""

import shlex
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.core.errors import CancelledRunError, OperationFailedError
from pipeline.core.extras import require
from pipeline.core.files import read_json, write_atomic
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.train.bundle import write_bundle
from pipeline.train.recipe import PresetName
from pipeline.train.recipe_field import RecipeValues
from pipeline.train.trial import create_trial, read_error

if TYPE_CHECKING:
    from pipeline.train.backends.ray_jobs import ClusterJob
    from pipeline.train.backends.storage import Storage

_POLL_SECONDS = 5.0


class TrainSubmitRequest(Request):
    """What to train, and where."""

    model: WorkspaceRef = "smollm2-135m"
    """Base model: starter or hf:org/name, which the cluster pulls, or a small folder, which travels along."""
    data: WorkspaceRef = Field(min_length=1)
    """Folder with `train.jsonl` and optionally `validation.jsonl`, or one JSONL file."""
    preset: PresetName = "l4-lora"
    """Named recipe; ignored when `recipe` is given."""
    recipe: RecipeValues | None = None
    """The whole recipe as JSON, with the fields of `train run`."""
    backend: Literal["auto", "trl", "unsloth"] = "auto"
    """As in `train run`."""
    address: str = Field(default="http://127.0.0.1:8265", pattern=r"^https?://")
    """Dashboard of the Ray cluster, such as a forwarded port."""
    storage: WorkspaceRef = Field(min_length=1)
    """Place for results that both sides reach: s3://BUCKET/PREFIX, gs://..., file:///FOLDER."""
    num_gpus: float = Field(default=1, ge=0, le=64)
    """GPUs that the job waits for."""
    num_cpus: float = Field(default=1, ge=0, le=1024)
    """Processors that the job waits for."""
    install_libraries: bool = True
    """Let Ray install the libraries of `train`; turn off when the cluster's image has them."""


class TrainSubmitResult(Result):
    """The training run, now here."""

    run_id: str
    """Run directory of the submission."""
    train_run_id: str
    """Run directory of the training, as if it had been made here."""
    job_id: str
    """Id of the job on the cluster."""
    num_files: int
    """Files that came back."""
    num_steps: int
    """Optimizer steps."""
    eval_loss: float | None
    """Evaluation loss."""


def submit_training(request: TrainSubmitRequest, run: Run) -> TrainSubmitResult:
    """Train on a Ray cluster from this machine; logs, metrics and artifacts come back.

    Raises:
        InvalidInputError: If there is no such model, the storage is no place, or the cluster refuses.
        MissingDependencyError: If Ray is not installed, or no cluster answers.
        DoesNotFitError: If rows and model are too large for a bundle.
        OperationFailedError: If the job fails.
    """
    require("ray", "pyarrow", extra="cluster")
    from pipeline.train.backends.ray_jobs import ENDED
    from pipeline.train.backends.storage import Storage

    storage = Storage(request.storage)
    training = _open_or_create(run, request)
    job = _start_or_attach(run, request, training)
    with _stopped_on_termination(job), Progress("cluster", 0, run=run) as progress:
        while (status := job.status()) not in ENDED:
            _fetch_news(job, storage, training)
            progress.update(_last_step(training), f"{status.lower()} {training.id}")
            time.sleep(_POLL_SECONDS)
    _fetch_log(job, training)
    num_files = storage.download(training.id, training.path, lambda name: "checkpoints" not in name)
    (training.path / "heartbeat").unlink(missing_ok=True)
    if status != "SUCCEEDED":
        raise _failure(run, training, job, status)
    result = read_json(training.path / "result.json")
    return TrainSubmitResult(
        run_id=run.id,
        train_run_id=training.id,
        job_id=job.job_id,
        num_files=num_files,
        num_steps=result["num_steps"],
        eval_loss=result["eval_loss"],
        warnings=result["warnings"],
        next_step=f"llmops export run run:{training.id}",
    )


def _open_or_create(run: Run, request: TrainSubmitRequest) -> Run:
    link = run.path / "training.txt"
    if link.exists():
        return Run.open(link.read_text(encoding="utf-8"))
    fields = {"model", "data", "preset", "recipe", "backend"}
    training = create_trial(request.model_dump(mode="json", include=fields))
    write_atomic(link, training.id)
    return training


def _start_or_attach(run: Run, request: TrainSubmitRequest, training: Run) -> "ClusterJob":
    """Return the job of this run: a living one of an earlier attempt, or a new one that goes on from the storage."""
    from pipeline.train.backends.ray_jobs import ClusterJob, ClusterNeeds

    attempt = 1
    job = ClusterJob(request.address, f"{training.id}-{attempt}")
    while job.status() in {"FAILED", "STOPPED"}:
        attempt += 1
        job = ClusterJob(request.address, f"{training.id}-{attempt}")
    if not job.status():
        bundle = run.path / "bundle"
        write_bundle(bundle, read_json(training.path / "request.json"))
        needs = ClusterNeeds(
            num_cpus=request.num_cpus,
            num_gpus=request.num_gpus,
            requirements=bundle / "requirements.txt" if request.install_libraries else None,
        )
        worker = "python -m pipeline.train.backends.cluster_worker"
        job.submit(f"{worker} {shlex.quote(request.storage)} {training.id}", bundle, needs)
    training.write_manifest(status="running", host=f"ray:{job.job_id}")
    return job


def _fetch_news(job: "ClusterJob", storage: "Storage", training: Run) -> None:
    """Bring log, metrics and progress here, so that watching works as on a local run."""
    _fetch_log(job, training)
    storage.download(training.id, training.path, lambda name: name in {"metrics.jsonl", "progress.json"})
    (training.path / "heartbeat").touch()


def _fetch_log(job: "ClusterJob", training: Run) -> None:
    text = job.new_log()
    sys.stderr.write(text)
    sys.stderr.flush()
    with (training.path / "log.txt").open("a", encoding="utf-8") as log:
        log.write(text)


def _last_step(training: Run) -> int:
    return max((int(line.get("step", 0)) for line in training.metrics()), default=0)


def _failure(run: Run, training: Run, job: "ClusterJob", status: str) -> OperationFailedError:
    error = read_error(training)
    training.write_manifest(status="cancelled" if status == "STOPPED" else "failed")
    return OperationFailedError(
        f"the job {status.lower()}: {error.get('message') or job.message()[-500:]}",
        hint=f"{error.get('hint', '')} `llmops jobs resume {run.id}` goes on from the newest checkpoint.".strip(),
        run_id=training.id,
    )


@contextmanager
def _stopped_on_termination(job: "ClusterJob") -> Generator[None]:
    """Stop the job on the cluster when this process is told to end (`jobs cancel`); an interrupt leaves it going."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        job.stop()
        raise CancelledRunError("the job on the cluster was asked to stop", hint="See `llmops jobs list`.")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


TRAIN_SUBMIT = Operation(
    name="train.submit",
    request=TrainSubmitRequest,
    result=TrainSubmitResult,
    run=submit_training,
    long_running=True,
    positional=("data",),
)
