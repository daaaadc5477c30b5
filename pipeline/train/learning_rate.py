"""``train.learning_rate``: a range test: one short training run whose learning rate rises in a straight line.

As Smith describes it (arXiv:1506.01186, section 3.3): the loss falls while the rate is useful and turns where it is too
high. The run is an ordinary one whose warm-up is its whole length. One seed, few steps: a place to start from, which
`train tune` then checks.
"""

import math
import statistics
from typing import Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import installed_version
from pipeline.core.files import write_atomic
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef, shown_path
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.train.curve import Curve, Point, open_training_run, smooth
from pipeline.train.recipe import PresetName, TrainRecipe
from pipeline.train.recipe_field import RecipeValues, choose_recipe
from pipeline.train.trial import create_trial, follow_trial, raise_error

_WHOLE_RUN = 0.9999  # as near to 1 as a recipe's warmup_ratio goes; rounded up to all steps
_SMOOTH_SHARE = 0.1
_RISE_NATS = 0.05
_RISE_SHARE = 0.1
"""A smoothed loss this much (and by _RISE_NATS) above its lowest has turned."""
_SAFETY = 3.0
"""Below the turning rate by this factor: the turn is seen late, because a run needs steps to come apart."""


class TrainLearningRateRequest(Request):
    """What to train for a moment, and up to which rate."""

    model: WorkspaceRef = "smollm2-135m"
    """Base model: starter name, folder, or `file:PATH`."""
    data: WorkspaceRef = Field(min_length=1)
    """Folder with `train.jsonl`, or one JSONL file."""
    preset: PresetName = "cpu-lora"
    """Recipe whose rate is looked for; ignored when `recipe` is given."""
    recipe: RecipeValues | None = None
    """The whole recipe as JSON, with the fields of `train run`."""
    highest: float = Field(default=1e-2, gt=0, le=1)
    """Rate at the last step."""
    num_steps: int = Field(default=100, ge=20, le=2000)
    """Steps; the rate rises by highest / num_steps at each."""
    backend: Literal["auto", "trl", "unsloth"] = "auto"
    """As in `train run`."""


class TrainLearningRateResult(Result):
    """A rate to start from and what it rests on."""

    run_id: str
    """Run directory of the test."""
    trial_run_id: str
    """The training run with the rising rate."""
    suggested_learning_rate: float
    """A third of the turning rate."""
    turning_learning_rate: float
    """Rate at the lowest smoothed loss, after which it rose; `highest` when it never did."""
    has_turned: bool
    """False when the loss still fell at `highest`: repeat with a higher one."""
    lowest_loss: float
    """Lowest smoothed training loss."""
    picture: str
    """PNG of loss over rate; empty without matplotlib."""


def find_learning_rate(request: TrainLearningRateRequest, run: Run) -> TrainLearningRateResult:
    """Find a learning rate by a range test: one short run whose rate rises until the loss turns.

    Raises:
        InvalidInputError: If the data folder has no training rows.
        OperationFailedError: If training fails for another reason than a loss that came apart.
    """
    path = resolve_path(request.data)
    rows = path / "train.jsonl" if path.is_dir() else path
    if not rows.is_file():
        raise InvalidInputError(f"{request.data} has no train.jsonl", hint="Pass a folder of training rows.")
    base = choose_recipe(request.recipe, request.preset)
    changes = {
        "learning_rate": request.highest,
        "warmup_ratio": _WHOLE_RUN,
        "max_steps": request.num_steps,
        "early_stopping_patience": None,
    }
    child = _open_or_create(run, request, rows=str(rows), recipe=base.model_copy(update=changes))
    state = follow_trial(child, lambda _ordinal, _point: True)
    curve = open_training_run(child.id).curve
    if state != "succeeded" and not _came_apart(curve):
        raise_error(child, "the training run of the test failed")
    return _describe(request, run, child, curve)


def find_turn(points: list[tuple[float, float]]) -> tuple[float, bool, list[float]]:
    """Return the rate at the lowest smoothed loss, whether the loss rose after it, and the smoothed losses.

    Args:
        points: Learning rate and loss of each step, in order.
    """
    width = max(3, round(_SMOOTH_SHARE * len(points)))
    # Finite losses stay what they are; a loss that is no longer a number is as high as can be.
    finite = [loss for _, loss in points if math.isfinite(loss)]
    highest = max(finite, default=0.0) * 10
    losses: list[Point] = [
        (i, loss if math.isfinite(loss) else highest) for i, (_, loss) in enumerate(points)
    ]
    smoothed = [value for _, value in smooth(losses, width)]
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    after = smoothed[lowest + 1 :]
    limit = smoothed[lowest] + max(_RISE_NATS, _RISE_SHARE * smoothed[lowest])
    has_turned = bool(after) and statistics.median(after[-max(1, len(after) // 2) :]) > limit
    return points[lowest][0] if has_turned else points[-1][0], has_turned, smoothed


def _describe(
    request: TrainLearningRateRequest, run: Run, child: Run, curve: Curve
) -> TrainLearningRateResult:
    rates = dict(curve.learning_rate)
    points = [(rates[step], loss) for step, loss in curve.train if rates.get(step, 0) > 0]
    if len(points) < 3:
        raise InvalidInputError(
            f"only {len(points)} steps have a loss", hint="Set a lower highest, so that the run lasts longer."
        )
    turning, has_turned, smoothed = find_turn(points)
    suggested = float(f"{turning / _SAFETY:.2g}")
    picture = ""
    if installed_version("matplotlib") is not None:
        from pipeline.train.backends.curve_plots import draw_rates

        path = run.artifacts / "learning_rate.png"
        shown = [
            (rate, loss, mean)
            for (rate, loss), mean in zip(points, smoothed, strict=True)
            if math.isfinite(loss)
        ]
        draw_rates(shown, suggested, path)
        picture = shown_path(path)
    around = f'{{"learning_rate": [{suggested / 2:.2g}, {suggested:.2g}, {suggested * 2:.2g}]}}'
    return TrainLearningRateResult(
        run_id=run.id,
        trial_run_id=child.id,
        suggested_learning_rate=suggested,
        turning_learning_rate=turning,
        has_turned=has_turned,
        lowest_loss=min(smoothed),
        picture=picture,
        warnings=[]
        if has_turned
        else [f"the loss still fell at {turning:.2g}: repeat with a higher `highest`"],
        next_step=f"llmops train tune {request.data} --search '{around}'",
    )


def _came_apart(curve: Curve) -> bool:
    return any(not math.isfinite(loss) for _, loss in curve.train)


def _open_or_create(run: Run, request: TrainLearningRateRequest, *, rows: str, recipe: TrainRecipe) -> Run:
    # A test that is resumed goes on with its run.
    link = run.path / "trial.txt"
    if link.exists():
        return Run.open(link.read_text(encoding="utf-8"))
    child = create_trial(
        {
            "model": request.model,
            "data": rows,
            "recipe": recipe.model_dump(mode="json"),
            "backend": request.backend,
        }
    )
    write_atomic(link, child.id)
    return child


TRAIN_LEARNING_RATE = Operation(
    name="train.learning_rate",
    request=TrainLearningRateRequest,
    result=TrainLearningRateResult,
    run=find_learning_rate,
    long_running=True,
    positional=("data",),
)
