"""One trial of a search: an ordinary ``train.run`` in its own run directory and its own process.

So a trial frees its memory at its end, can be looked at, resumed, diagnosed and exported like any other run, and
stops when the search that started it is gone. Chooses nothing: ``tune.py`` and ``learning_rate.py`` do.
"""

import shutil
import time
from collections.abc import Callable
from typing import Any

from pipeline.core.errors import OperationFailedError
from pipeline.core.files import read_json
from pipeline.core.jobs import cancel, release_ended_workers, start_worker
from pipeline.core.runs import Run, RunState
from pipeline.train.curve import Point, read_curve
from pipeline.train.run import TRAIN_RUN

_POLL_SECONDS = 0.5
_ALIVE = frozenset({"queued", "running"})


def create_trial(values: dict[str, Any]) -> Run:
    """Make the run directory of a trial; nothing starts yet.

    Raises:
        InvalidInputError: If the values are not a request to train.
    """
    request = TRAIN_RUN.parse(values)
    return Run.create(TRAIN_RUN.name, request.model_dump(mode="json"), state="queued")


def follow_trial(run: Run, on_evaluation: Callable[[int, Point], bool]) -> RunState:
    """Start or go on with a trial and return how it ended.

    Args:
        run: A trial that :func:`create_trial` made, in any state.
        on_evaluation: Gets the ordinal of an evaluation and its step and loss; False stops the trial.
    """
    if run.state() == "succeeded":
        _tell(run, 0, on_evaluation)
        return "succeeded"
    if run.state() not in _ALIVE or run.process() is None:
        run.queue()
        start_worker(run, ends_with_caller=True)
    num_told, is_pruned = 0, False
    while (state := run.state()) in _ALIVE:
        num_told, goes_on = _tell(run, num_told, on_evaluation)
        if not goes_on:
            is_pruned = cancel(run)
            break
        time.sleep(_POLL_SECONDS)
    release_ended_workers()
    state = run.state()
    if state == "succeeded":
        _tell(run, num_told, on_evaluation)
    # What only serves resuming is large, and a search makes many runs; one that failed or was interrupted may go on.
    if state == "succeeded" or is_pruned:
        shutil.rmtree(run.artifacts / "checkpoints", ignore_errors=True)
    return state


def read_error(run: Run) -> dict[str, Any]:
    """Return why a trial failed."""
    path = run.path / "error.json"
    return read_json(path) if path.exists() else {}


def raise_error(run: Run, what: str) -> None:
    """Raise the error of a failed trial as our own.

    Raises:
        OperationFailedError: Always.
    """
    error = read_error(run)
    raise OperationFailedError(
        f"{what}: {error.get('message') or f'its run {run.id} is {run.state()}'}",
        hint=str(error.get("hint") or f"See `llmops jobs logs {run.id}`."),
        run_id=run.id,
    )


def _tell(run: Run, num_told: int, on_evaluation: Callable[[int, Point], bool]) -> tuple[int, bool]:
    points = read_curve(run).evaluation
    for ordinal in range(num_told, len(points)):
        if not on_evaluation(ordinal, points[ordinal]):
            return ordinal + 1, False
    return max(num_told, len(points)), True
