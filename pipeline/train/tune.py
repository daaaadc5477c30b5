"""``train.tune``: a small sweep over recipe values; every trial is an ordinary training run, hopeless ones are pruned.

The loss on validation rows decides. It does not say which model answers better: measure the best few with
`evals run`.
"""

import math
from typing import Any, Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspaceRef, shown_path
from pipeline.core.progress import Progress
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.train.curve import Point, open_training_run, read_curve
from pipeline.train.recipe import PresetName, TrainRecipe
from pipeline.train.recipe_field import RecipeValues, choose_recipe
from pipeline.train.trial import create_trial, follow_trial, raise_error, read_error

DEFAULT_SEARCH = {"learning_rate": [5e-5, 1e-4, 2e-4, 5e-4]}
"""Errata E-39: powers of ten are too coarse, and advice differs by a factor of two around 2e-4."""


class TrainTuneRequest(Request):
    """What to search, around which recipe."""

    model: WorkspaceRef = "smollm2-135m"
    """Base model: starter name, folder, or `file:PATH`."""
    data: WorkspaceRef = Field(min_length=1)
    """Folder with `train.jsonl` and `validation.jsonl`."""
    preset: PresetName = "cpu-lora"
    """Recipe that the search changes; ignored when `recipe` is given."""
    recipe: RecipeValues | None = None
    """The whole recipe as JSON, with the fields of `train run`."""
    search: dict[str, list[Any]] = DEFAULT_SEARCH
    """Recipe fields and the values to try, in their order, as JSON: {"rank": [4, 16], "learning_rate": [1e-4, 1e-3]}."""
    strategy: Literal["grid", "one_at_a_time", "sampled"] = "grid"
    """All combinations; each value alone beside the recipe (an ablation); or TPE, which learns from earlier trials."""
    num_trials: int = Field(default=12, ge=2, le=200)
    """Most trials."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps of a trial, to make it shorter than the recipe's."""
    prune: bool = True
    """Stop trials whose evaluation loss is above the median of the earlier trials at the same point."""
    backend: Literal["auto", "trl", "unsloth"] = "auto"
    """As in `train run`."""
    seed: int = Field(default=0, ge=0)
    """Of the sampler."""


class TuneTrial(Part):
    """One trial."""

    run_id: str
    """Its training run."""
    values: dict[str, Any]
    """What it tried."""
    eval_loss: float | None
    """Lowest evaluation loss, that of the weights that are kept; of a pruned trial the last one seen."""
    difference: float | None
    """Evaluation loss minus that of the first trial."""
    train_seconds: float
    """Training time."""
    state: Literal["complete", "pruned", "failed"]
    """How it ended."""
    reason: str
    """Why it failed or was pruned."""


class TrainTuneResult(Result):
    """Trials, the best first, and the recipe of the best."""

    run_id: str
    """Run directory of the search."""
    trials: list[TuneTrial]
    """Complete trials by evaluation loss, then the others."""
    best_run_id: str
    """Training run with the lowest evaluation loss."""
    best_recipe: dict[str, Any]
    """Its recipe, for `train run --recipe`."""
    num_pruned: int
    """Trials that were stopped early."""
    seconds_saved: float
    """Time that pruned trials would have taken beyond what they took, at their own pace."""
    picture: str
    """PNG of all curves; empty without matplotlib."""


def tune_recipe(request: TrainTuneRequest, run: Run) -> TrainTuneResult:
    """Search recipe values by training runs, pruning hopeless ones; resumes where it stopped.

    Raises:
        InvalidInputError: If a field or value is not one of the recipe, or there are no validation rows.
        OperationFailedError: If the first trial fails, or all do.
        MissingDependencyError: If Optuna is not installed.
    """
    require("optuna", extra="train")
    base = choose_recipe(request.recipe, request.preset)
    is_ablation = request.strategy == "one_at_a_time"
    space = {name: _order(base, name, values, is_ablation) for name, values in request.search.items()}
    for name, values in space.items():
        for value in values:
            _change(base, {name: value})  # refused now rather than after an hour
    _check_validation_rows(request.data)
    num_trials = _count_trials(space, request)
    from pipeline.train.backends.search import Search, SearchTrial

    search = Search(
        run.artifacts / "study.journal",
        space,
        strategy=request.strategy,
        num_trials=num_trials,
        prune=request.prune,
        seed=request.seed,
    )

    def perform(trial: SearchTrial) -> None:
        if trial.run_id is None and (known := search.find_equal(trial)) is not None:
            trial.set_run(known[0])
            search.tell(trial, known[1])
            return
        values = {**trial.values, **({"max_steps": request.max_steps} if request.max_steps else {})}
        child = Run.open(trial.run_id) if trial.run_id else _create(request, _change(base, values))
        trial.set_run(child.id)

        def on_evaluation(ordinal: int, point: Point) -> bool:
            return not trial.report(ordinal, point[1])

        state = follow_trial(child, on_evaluation)
        # The lowest, not the last: its weights are the ones that are kept.
        lowest = read_curve(child).lowest_evaluation if state == "succeeded" else None
        loss = lowest[1] if lowest else None
        if state == "failed" and trial.number == 0:
            raise_error(child, "the first trial failed")
        search.tell(trial, loss, pruned=state == "cancelled")

    with Progress("tune", num_trials, unit="trials", run=run) as progress:
        for trial in search.unfinished():
            perform(trial)
        progress.done = sum(1 for _ in search.closed())
        while (trial := search.ask()) is not None:
            perform(trial)
            done = [loss for _, _, loss, state in search.closed() if state == "complete" and loss is not None]
            progress.advance(note=f"best {min(done):.4g}" if done else "")
    # Values that were drawn twice share one run.
    return _summarise(request, run, list({entry[0]: entry for entry in search.closed()}.values()))


def _summarise(
    request: TrainTuneRequest, run: Run, closed: list[tuple[str, dict[str, Any], float | None, str]]
) -> TrainTuneResult:
    first = next((loss for _, _, loss, state in closed if state == "complete"), None)
    trials = [_describe(run_id, values, loss, state, first) for run_id, values, loss, state in closed]
    complete = sorted(
        (trial for trial in trials if trial.state == "complete"), key=lambda t: t.eval_loss or math.inf
    )
    if not complete:
        raise_error(Run.open(trials[-1].run_id), "no trial came to its end")
    best = open_training_run(complete[0].run_id)
    pruned = [trial for trial in trials if trial.state == "pruned"]
    return TrainTuneResult(
        run_id=run.id,
        trials=[*complete, *(trial for trial in trials if trial.state != "complete")],
        best_run_id=best.run.id,
        best_recipe={**best.recipe.model_dump(mode="json"), **_without_cut(request, best.recipe)},
        num_pruned=len(pruned),
        seconds_saved=round(sum(_seconds_left(trial.run_id) for trial in pruned), 1),
        picture=_draw(run, trials),
        warnings=_find_warnings(request, complete),
        next_step=f"llmops evals run --cases TEST.jsonl, on an export of run:{best.run.id}",
    )


def _find_warnings(request: TrainTuneRequest, complete: list[TuneTrial]) -> list[str]:
    found: list[str] = []
    if len(complete) > 1 and request.strategy != "sampled" and "seed" not in request.search:
        found.append(
            "differences between seeds are not measured: add seed to the search before trusting a small difference"
        )
    for name, values in request.search.items():
        ordered = [v for v in values if isinstance(v, int | float)]
        best = complete[0].values.get(name)
        if name != "seed" and len(ordered) > 2 and best in {min(ordered), max(ordered)}:
            found.append(f"the best {name} ({best}) lies at the edge of what was tried: extend the list")
    return found


def _describe(
    run_id: str, values: dict[str, Any], loss: float | None, state: str, first: float | None
) -> TuneTrial:
    training = open_training_run(run_id)
    error = read_error(training.run)
    evaluations = training.curve.evaluation
    seen = evaluations[-1][1] if state == "pruned" and evaluations else loss
    reason = f"above the median at step {evaluations[-1][0]}" if state == "pruned" and evaluations else ""
    return TuneTrial.model_validate(
        {
            "run_id": run_id,
            "values": values,
            "eval_loss": seen,
            "difference": None if loss is None or first is None or state != "complete" else loss - first,
            "train_seconds": training.curve.seconds,
            "state": state,
            "reason": str(error.get("message", "")) if state == "failed" else reason,
        }
    )


def _order(base: TrainRecipe, name: str, values: list[Any], always_first: bool) -> list[Any]:
    """Return the values with the recipe's own first, so that the first trial is the recipe itself where it can be."""
    if name not in TrainRecipe.model_fields:
        raise InvalidInputError(
            f"{name!r} is not a field of a recipe", hint="`llmops train presets` lists the fields."
        )
    if not values:
        raise InvalidInputError(f"no values to try for {name}", hint="Name at least one.")
    own = base.model_dump(mode="json")[name]
    return [own, *(value for value in values if value != own)] if always_first or own in values else values


def _change(base: TrainRecipe, values: dict[str, Any]) -> TrainRecipe:
    try:
        return TrainRecipe.model_validate({**base.model_dump(mode="json"), **values})
    except ValueError as error:
        raise InvalidInputError(
            f"{values} does not make a recipe: {error}",
            hint="`llmops train presets` lists fields and values.",
        ) from error


def _create(request: TrainTuneRequest, recipe: TrainRecipe) -> Run:
    return create_trial(
        {
            "model": request.model,
            "data": request.data,
            "recipe": recipe.model_dump(mode="json"),
            "backend": request.backend,
        }
    )


def _without_cut(request: TrainTuneRequest, recipe: TrainRecipe) -> dict[str, Any]:
    """Undo what only made the trials shorter."""
    if request.max_steps is None:
        return {}
    base = choose_recipe(request.recipe, request.preset)
    return {"max_steps": base.max_steps}


def _count_trials(space: dict[str, list[Any]], request: TrainTuneRequest) -> int:
    if request.strategy == "grid":
        return min(request.num_trials, math.prod(len(values) for values in space.values()))
    if request.strategy == "one_at_a_time":
        return min(request.num_trials, 1 + sum(len(values) - 1 for values in space.values()))
    return request.num_trials


def _check_validation_rows(data: str) -> None:
    folder = resolve_path(data)
    if not (folder / "validation.jsonl").is_file():
        raise InvalidInputError(
            f"{data} has no validation.jsonl: nothing would tell the trials apart",
            hint="Run `llmops data split` first, or pass a folder with train.jsonl and validation.jsonl.",
        )


def _seconds_left(run_id: str) -> float:
    curve = open_training_run(run_id).curve
    if not curve.num_steps or not curve.last_step:
        return 0.0
    return curve.seconds / curve.last_step * (curve.num_steps - curve.last_step)


def _draw(run: Run, trials: list[TuneTrial]) -> str:
    from pipeline.core.extras import installed_version

    if installed_version("matplotlib") is None:
        return ""
    from pipeline.train.backends.curve_plots import draw_comparison
    from pipeline.train.compare import name_changes

    path = run.artifacts / "tune.png"
    draw_comparison(
        {
            f"{name_changes(trial.values)} ({trial.state})": open_training_run(trial.run_id).curve
            for trial in trials
        },
        path,
    )
    return shown_path(path)


TRAIN_TUNE = Operation(
    name="train.tune",
    request=TrainTuneRequest,
    result=TrainTuneResult,
    run=tune_recipe,
    long_running=True,
    positional=("data",),
)
