"""``train.compare``: several training runs side by side: what differed in their recipes, and what came of it.

Compares losses, which says something only between runs of the same evaluation rows; which model answers better is
what `evals compare` tests.
"""

import math
from typing import Any

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import installed_version
from pipeline.core.files import read_json, write_json
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path, shown_path
from pipeline.core.runs import RunState
from pipeline.train.curve import TrainingRun, open_training_run
from pipeline.train.verdict import Verdict, judge


class TrainCompareRequest(Request):
    """Which runs to compare."""

    run_ids: list[str] = Field(min_length=2, max_length=40)
    """Run ids of `train run`, or unambiguous parts of them."""
    out: WorkspacePath = "reports/train-compare"
    """Folder for compare.json and compare.png."""


class ComparedRun(Part):
    """One run."""

    run_id: str
    """Name of the run directory."""
    changed: dict[str, Any]
    """Recipe values in which the runs differ."""
    eval_loss: float | None
    """Evaluation loss at the end."""
    lowest_eval_loss: float | None
    """Lowest evaluation loss, which is that of the weights that are kept."""
    lowest_at_step: int | None
    """Step of the lowest evaluation loss."""
    train_loss: float | None
    """Newest training loss."""
    last_step: int
    """Newest step."""
    train_seconds: float
    """Training time."""
    verdict: Verdict
    """What the curve shows."""
    state: RunState
    """Where the run stands."""


class TrainCompareResult(Result):
    """Runs, the lowest evaluation loss first."""

    runs: list[ComparedRun]
    """In order of their lowest evaluation loss; runs without one come last."""
    best: str | None
    """Run with the lowest evaluation loss; None without evaluation."""
    data_differs: bool
    """True when the runs trained on different rows: their losses then do not compare."""
    picture: str
    """PNG of all curves; empty without matplotlib."""


def compare_runs(request: TrainCompareRequest) -> TrainCompareResult:
    """Compare training runs: differing recipe values, losses, time and verdicts, as table and picture.

    Raises:
        InvalidInputError: If a run is not found, is not a training run, or is named twice.
    """
    trainings = [open_training_run(run_id) for run_id in request.run_ids]
    if len({training.run.id for training in trainings}) < len(trainings):
        raise InvalidInputError("a run is named twice", hint="Name each run once.")
    changed = find_changes([training.recipe.model_dump(mode="json") for training in trainings])
    rows = [describe_run(training, values) for training, values in zip(trainings, changed, strict=True)]
    # The lowest, not the last: its weights are the ones that are kept.
    rows.sort(key=lambda row: row.lowest_eval_loss if row.lowest_eval_loss is not None else math.inf)
    differs = len({_data_identity(training) for training in trainings}) > 1
    picture = _draw(trainings, changed, request.out)
    warnings = ["the runs trained on different rows: their losses do not compare"] if differs else []
    if any(training.state in {"running", "queued"} for training in trainings):
        warnings.append("not all runs have ended")
    if not picture:
        warnings.append("compare.png was not drawn: matplotlib is missing")
    best = rows[0].run_id if rows[0].lowest_eval_loss is not None else None
    result = TrainCompareResult(
        runs=rows,
        best=best,
        data_differs=differs,
        picture=picture,
        warnings=warnings,
        next_step=f"llmops export run run:{best}" if best else "",
    )
    write_json(resolve_path(request.out) / "compare.json", result.model_dump(mode="json"))
    return result


def find_changes(recipes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of each recipe the values in which not all recipes agree."""
    names = [name for name in recipes[0] if any(recipe.get(name) != recipes[0][name] for recipe in recipes)]
    return [{name: recipe.get(name) for name in names} for recipe in recipes]


def describe_run(training: TrainingRun, changed: dict[str, Any]) -> ComparedRun:
    """Return a run as a row of the table."""
    curve = training.curve
    lowest = curve.lowest_evaluation
    return ComparedRun(
        run_id=training.run.id,
        changed=changed,
        eval_loss=curve.evaluation[-1][1] if curve.evaluation else None,
        lowest_eval_loss=lowest[1] if lowest else None,
        lowest_at_step=lowest[0] if lowest else None,
        train_loss=curve.train[-1][1] if curve.train else None,
        last_step=curve.last_step,
        train_seconds=curve.seconds,
        verdict=judge(curve, training.recipe, training.outcome, training.error).verdict,
        state=training.state,
    )


def name_changes(changed: dict[str, Any]) -> str:
    """Return recipe values as one short line."""
    return ", ".join(
        f"{name} {'+'.join(value) if isinstance(value, list) else value}"  # pyright: ignore[reportUnknownArgumentType] - JSON
        for name, value in changed.items()
    )


def _data_identity(training: TrainingRun) -> str:
    facts = training.run.artifacts / "training.json"
    if facts.exists():
        return str(read_json(facts)["data"]["train_sha256"])
    return str(read_json(training.run.path / "request.json").get("data"))


def _draw(trainings: list[TrainingRun], changed: list[dict[str, Any]], out: str) -> str:
    if installed_version("matplotlib") is None:
        return ""
    from pipeline.train.backends.curve_plots import draw_comparison

    path = resolve_path(out) / "compare.png"
    names = {
        f"{name_changes(values) or 'same recipe'} ({training.run.id[-6:]})": training.curve
        for training, values in zip(trainings, changed, strict=True)
    }
    draw_comparison(names, path)
    return shown_path(path)


TRAIN_COMPARE = Operation(
    name="train.compare",
    request=TrainCompareRequest,
    result=TrainCompareResult,
    run=compare_runs,
    read_only=True,
    positional=("run_ids",),
)
