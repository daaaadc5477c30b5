"""The curve of a training run: what its ``metrics.jsonl`` says, one value a step, while it runs and afterwards.

A resumed run logs the steps after its checkpoint again; the last value of a step counts. Draws nothing and judges
nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json
from pipeline.core.runs import Run, RunState
from pipeline.train.recipe import PRESETS, TrainRecipe

Point = tuple[int, float]
"""Step and value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Series of one run, in order of steps."""

    train: list[Point]
    """Training loss, nats per predicted token; may hold values that are not finite."""
    evaluation: list[Point]
    """Evaluation loss, in the same unit."""
    learning_rate: list[Point]
    """Learning rate of the step."""
    gradient_norm: list[Point]
    """Norm of the gradient before clipping."""
    num_steps: int | None
    """Steps the run will take in all, when it has said so."""
    seconds: float
    """Training time at the last logged step."""

    @property
    def last_step(self) -> int:
        """Newest step with a value."""
        return max((points[-1][0] for points in (self.train, self.evaluation) if points), default=0)

    @property
    def lowest_evaluation(self) -> Point | None:
        """Evaluation whose weights are kept and exported; None without a finite one."""
        finite = [point for point in self.evaluation if math.isfinite(point[1])]
        return min(finite, key=lambda point: point[1], default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """A training run as later operations read it."""

    run: Run
    state: RunState
    recipe: TrainRecipe
    curve: Curve
    outcome: dict[str, Any]
    """``outcome`` of training.json; empty before the run has ended well."""
    error: dict[str, Any]
    """error.json; empty without one."""


def open_training_run(run_id: str) -> TrainingRun:
    """Open a run of ``train.run`` with its curve and recipe.

    Raises:
        InvalidInputError: If no run, or more than one, matches, or it is not a training run.
    """
    run = Run.open(run_id.removeprefix("run:"))
    operation = run.manifest()["operation"]
    if operation != "train.run":
        raise InvalidInputError(
            f"{run.id} is a run of {operation}, not of train.run",
            hint="Run `llmops jobs list --operation train.run` to see the training runs.",
        )
    facts = _read_optional(run, "artifacts/training.json")
    return TrainingRun(
        run=run,
        state=run.state(),
        recipe=_read_recipe(run, facts),
        curve=read_curve(run),
        outcome=facts.get("outcome", {}),
        error=_read_optional(run, "error.json"),
    )


def read_curve(run: Run) -> Curve:
    """Return the series of a run; empty ones before its first step."""
    lines = [line for line in run.metrics() if isinstance(line.get("step"), int)]
    progress = _read_optional(run, "progress.json")
    return Curve(
        train=_series(lines, "loss"),
        evaluation=_series(lines, "eval_loss"),
        learning_rate=_series(lines, "learning_rate"),
        gradient_norm=_series(lines, "grad_norm"),
        num_steps=int(progress["total"]) if progress.get("label") == "train" and progress["total"] else None,
        seconds=max((float(line.get("train_seconds", 0.0)) for line in lines), default=0.0),
    )


def smooth(points: Sequence[Point], width: int) -> list[Point]:
    """Return the mean of each point and its neighbours, ``width`` points wide; ends use what is there."""
    half = width // 2
    values = [value for _, value in points]
    found: list[Point] = []
    for index, (step, _) in enumerate(points):
        near = values[max(0, index - half) : index + half + 1]
        found.append((step, math.fsum(near) / len(near)))
    return found


def _series(lines: Sequence[dict[str, Any]], key: str) -> list[Point]:
    values = {line["step"]: float(line[key]) for line in lines if isinstance(line.get(key), int | float)}
    return sorted(values.items())


def _read_recipe(run: Run, facts: dict[str, Any]) -> TrainRecipe:
    request = cast("dict[str, Any]", read_json(run.path / "request.json"))
    if stored := facts.get("recipe") or request.get("recipe"):
        known = {key: value for key, value in stored.items() if key in TrainRecipe.model_fields}
        return TrainRecipe.model_validate(known)  # a run of an older version may know other fields
    return PRESETS.get(request.get("preset", ""), TrainRecipe)()


def _read_optional(run: Run, name: str) -> dict[str, Any]:
    path = run.path / name
    return read_json(path) if path.exists() else {}
