"""The verdict on a training curve: rules with numbers, the most certain cause first.

Each rule states what it saw. A threshold that rests on no source is ours and is named; all of them are compared
with curves computed by hand in the tests. Reads no files.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.train.curve import Curve, Point
from pipeline.train.recipe import TrainRecipe

Verdict = Literal[
    "healthy", "under-fit", "over-fit", "unstable", "nothing learned", "data problem", "too early"
]

MIN_POINTS = 8
"""Fewer logged losses than this say nothing about a trend."""
WINDOW_SHARE = 0.1
"""Beginning and end of a run are medians over this share of its points, three at least."""
LITTLE_CHANGE = 0.05
"""A relative change of the evaluation loss below this counts as none."""
NO_FALL = 0.02
"""A relative fall of the training loss below this is nothing, however clear it stands above the noise."""
STILL_FALLING = 0.15
"""Share of the whole fall that lies in the last quarter of the summed learning rate; a curve e^(-t/T) over t = 0..1 reaches it at T = 0.83."""
SPIKE_FACTOR = 2.0
"""A rise of the smoothed loss above its lowest value by this factor (and by SPIKE_NATS) is a divergence."""
SPIKE_NATS = 0.2
"""Small losses double by chance; below this rise in nats nothing is called a divergence."""
KNOWN_LOSS = 0.02
"""A first loss below this means that the answer is visible in the input, or that there are no labels."""
MIN_TRAINED_SHARE = 0.005
"""Less than one trained token in 200 is a row format that hides the answers."""
_WARMED_UP, _NEARLY_DONE = (
    0.25,
    0.95,
)  # shares of all steps from which on slowness and steepness mean something


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A verdict, what it rests on and what to change next."""

    verdict: Verdict
    evidence: list[str]
    next_change: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Summary:
    """Numbers that several rules use."""

    first: float
    """Median training loss of the first window."""
    last: float
    """Median training loss of the last window."""
    lowest: float
    """Lowest median of a window."""
    lowest_step: int
    noise: float
    """Standard error of first minus last."""
    last_quarter_share: float
    """Share of the fall that happened in the last quarter."""


def judge(curve: Curve, recipe: TrainRecipe, outcome: dict[str, Any], error: dict[str, Any]) -> Diagnosis:
    """Return the verdict on a run, finished or not."""
    finite = [point for point in curve.train if math.isfinite(point[1])]
    found = (
        _find_refused_rows(error)
        or _find_non_finite(curve, recipe)
        or _find_data_problem(curve, finite, outcome)
    )
    if found is not None:
        return found
    if len(finite) < MIN_POINTS:
        return Diagnosis(
            verdict="too early",
            evidence=[f"{len(finite)} logged losses; a trend needs {MIN_POINTS}"],
            next_change="Train for more steps: a run this short says nothing."
            if curve.num_steps and curve.last_step >= curve.num_steps
            else "Wait for more steps and ask again.",
        )
    summary = summarise(finite, curve.learning_rate)
    done = curve.last_step / curve.num_steps if curve.num_steps else 1.0
    return (
        _find_divergence(curve, summary, recipe)
        or _find_over_fit(curve, summary, recipe)
        or (_find_nothing_learned(curve, summary, recipe) if done >= _WARMED_UP else None)
        or (_find_under_fit(curve, summary, recipe) if done >= _NEARLY_DONE else None)
        or _healthy(curve, summary, is_done=done >= _NEARLY_DONE)
    )


def summarise(points: Sequence[Point], rates: Sequence[Point] = ()) -> _Summary:
    """Return beginning, end, lowest point and noise of a finite training curve.

    The last quarter is the last quarter of the summed learning rate, not of the steps: a cosine schedule hardly moves
    the weights in its last steps, and would make every curve look finished.
    """
    width = max(3, round(WINDOW_SHARE * len(points)))
    values = [value for _, value in points]
    # Medians, so that one bad batch moves nothing.
    middles = [statistics.median(values[i : i + width]) for i in range(len(values) - width + 1)]
    first, last = middles[0], middles[-1]
    lowest = min(range(len(middles)), key=middles.__getitem__)
    spread = [statistics.variance(part) for part in (values[:width], values[-width:])]
    three_quarters = middles[
        _find_three_quarters([step for step, _ in points[width // 2 :][: len(middles)]], dict(rates))
    ]
    fall = first - last
    return _Summary(
        first=first,
        last=last,
        lowest=middles[lowest],
        lowest_step=points[lowest + width // 2][0],
        noise=math.sqrt(sum(spread) / width),
        last_quarter_share=(three_quarters - last) / fall if fall > 0 else 0.0,
    )


def _find_three_quarters(steps: Sequence[int], rates: dict[int, float]) -> int:
    """Return the index at which three quarters of the summed learning rate are behind."""
    shares = [rates.get(step, 0.0) for step in steps] if any(rates.values()) else [1.0] * len(steps)
    total, done = math.fsum(shares), 0.0
    for index, share in enumerate(shares):
        done += share
        if done >= 0.75 * total:
            return index
    return len(steps) - 1


def _find_refused_rows(error: dict[str, Any]) -> Diagnosis | None:
    if error.get("code") != "invalid_input":
        return None
    return Diagnosis(
        verdict="data problem",
        evidence=[f"training refused its input: {error.get('message', '')}"],
        next_change=str(error.get("hint", "")),
    )


def _find_non_finite(curve: Curve, recipe: TrainRecipe) -> Diagnosis | None:
    broken = next((step for step, value in curve.train if not math.isfinite(value)), None)
    if broken is None:
        return None
    rate = _rate_at(curve, broken, recipe)
    advice = f"Set learning_rate to {rate / 4:.2g}"
    if recipe.dtype == "float16":
        advice += " and dtype to float32 or bfloat16 (float16 overflows above 65,504)"
    return Diagnosis(
        verdict="unstable",
        evidence=[f"the loss is not a number at step {broken}; the learning rate was {rate:.2g}"],
        next_change=f"{advice}; raise warmup_ratio to {_longer_warmup(recipe):g}.",
    )


def _find_data_problem(curve: Curve, finite: list[Point], outcome: dict[str, Any]) -> Diagnosis | None:
    evidence: list[str] = []
    share = _trained_share(outcome)
    if share is not None and share < MIN_TRAINED_SHARE:
        evidence.append(f"only {share:.2%} of the tokens are trained")
    num_rows, too_long = outcome.get("num_rows", 0), outcome.get("num_rows_too_long", 0)
    if too_long > num_rows:
        evidence.append(
            f"{too_long} of {num_rows + too_long} rows are longer than max_length and were left out"
        )
    if finite and finite[0][0] <= 2 and finite[0][1] < KNOWN_LOSS:
        evidence.append(
            f"the loss is {finite[0][1]:.2g} at step {finite[0][0]}: the answers are in the prompts, or there are "
            "no labels"
        )
    norms = [value for _, value in curve.gradient_norm]
    if finite and norms and max(norms) == 0:
        evidence.append("the gradient is 0 at every step: no token is trained, or nothing is trainable")
    if not evidence:
        return None
    return Diagnosis(
        verdict="data problem",
        evidence=evidence,
        next_change="Run `llmops data preview FILE --model MODEL` and look at which tokens are marked as trained; "
        "then `llmops data validate FILE`.",
    )


def _find_divergence(curve: Curve, summary: _Summary, recipe: TrainRecipe) -> Diagnosis | None:
    rise = summary.last - summary.lowest
    norms = [value for _, value in curve.gradient_norm if math.isfinite(value)]
    if rise < max(SPIKE_NATS, (SPIKE_FACTOR - 1) * summary.lowest) or rise < 3 * summary.noise:
        return None
    rate = _rate_at(curve, summary.lowest_step, recipe)
    evidence = [
        f"the loss fell to {summary.lowest:.3g} around step {summary.lowest_step} and rose to {summary.last:.3g}",
        f"the learning rate was {rate:.2g} where it turned",
    ]
    if norms:
        evidence.append(f"gradient norm: median {statistics.median(norms):.3g}, highest {max(norms):.3g}")
    return Diagnosis(
        verdict="unstable",
        evidence=evidence,
        next_change=f"Set learning_rate to {rate / 3:.2g} and warmup_ratio to {_longer_warmup(recipe):g}; "
        "`llmops train learning_rate` finds the highest safe rate.",
    )


def _find_over_fit(curve: Curve, summary: _Summary, recipe: TrainRecipe) -> Diagnosis | None:
    points = [point for point in curve.evaluation if math.isfinite(point[1])]
    if len(points) < 3:
        return None
    best_step, best = min(points, key=lambda point: point[1])
    last_step, last = points[-1]
    rise = last / best - 1 if best > 0 else 0.0
    if best_step == last_step or rise < LITTLE_CHANGE or summary.last >= summary.first:
        return None
    share = best_step / last_step
    epochs = f" (num_epochs about {recipe.num_epochs * share:.2g})" if recipe.max_steps is None else ""
    return Diagnosis(
        verdict="over-fit",
        evidence=[
            f"evaluation loss was lowest at step {best_step} ({best:.4g}) and is {last:.4g} at step {last_step}, "
            f"{rise:+.0%}",
            f"training loss still fell from {summary.first:.3g} to {summary.last:.3g}",
        ],
        next_change=f"Stop at step {best_step}{epochs}, or add rows of new wording; "
        f"then dropout 0.05 and rank {max(4, recipe.rank // 2)}.",
    )


def _find_nothing_learned(curve: Curve, summary: _Summary, recipe: TrainRecipe) -> Diagnosis | None:
    fall = summary.first - summary.last
    evaluations = [value for _, value in curve.evaluation if math.isfinite(value)]
    eval_fall = 1 - evaluations[-1] / evaluations[0] if len(evaluations) > 1 and evaluations[0] > 0 else 0.0
    is_noise = fall < NO_FALL * summary.first or fall < 2 * summary.noise
    if not is_noise or eval_fall >= LITTLE_CHANGE:
        return None
    rate = max((value for _, value in curve.learning_rate), default=recipe.learning_rate)
    return Diagnosis(
        verdict="nothing learned",
        evidence=[
            f"training loss {summary.first:.3g} at the beginning, {summary.last:.3g} at the end: a fall of "
            f"{fall:.2g} with a standard error of {summary.noise:.2g}",
            f"highest learning rate so far {rate:.2g}",
        ],
        next_change=f"Set learning_rate to {min(1.0, rate * 10):.2g}, or let `llmops train learning_rate` find it; if "
        "that changes nothing, look at the trained tokens with `llmops data preview`.",
    )


def _find_under_fit(curve: Curve, summary: _Summary, recipe: TrainRecipe) -> Diagnosis | None:
    evidence: list[str] = []
    if summary.last_quarter_share >= STILL_FALLING and summary.first - summary.last > 2 * summary.noise:
        evidence.append(
            f"{summary.last_quarter_share:.0%} of the fall of the training loss happened in the last quarter of the summed learning rate"
        )
    points = [value for _, value in curve.evaluation if math.isfinite(value)]
    if len(points) >= 3 and points[0] > points[-1] > 0:
        share = (points[-2] - points[-1]) / (points[0] - points[-1])
        if share >= 0.95 / (len(points) - 1):  # about as fast as on average: it does not slow down
            evidence.append(f"evaluation loss still fell by {1 - points[-1] / points[-2]:.0%} at the end")
    if not evidence:
        return None
    longer = (
        f"max_steps to {2 * recipe.max_steps}"
        if recipe.max_steps is not None
        else f"num_epochs to {2 * recipe.num_epochs:g}"
    )
    return Diagnosis(
        verdict="under-fit",
        evidence=[*evidence, f"training loss {summary.first:.3g} -> {summary.last:.3g}"],
        next_change=f"Set {longer}; if the curve is straight, learning_rate to {2 * recipe.learning_rate:.2g}.",
    )


def _healthy(curve: Curve, summary: _Summary, *, is_done: bool) -> Diagnosis:
    shape = "flat at the end" if is_done else f"so far, at step {curve.last_step} of {curve.num_steps}"
    evidence = [f"training loss {summary.first:.3g} -> {summary.last:.3g}, {shape}"]
    if curve.evaluation:
        values = [value for _, value in curve.evaluation]
        evidence.append(f"evaluation loss {values[0]:.4g} -> {values[-1]:.4g}, lowest {min(values):.4g}")
    else:
        evidence.append("no evaluation loss: over-fit cannot be seen")
    change = (
        "Nothing in the recipe: measure the model (`llmops evals run`); more comes from more varied rows."
    )
    return Diagnosis(
        verdict="healthy", evidence=evidence, next_change=change if is_done else "Nothing; let it go on."
    )


def _trained_share(outcome: dict[str, Any]) -> float | None:
    tokens = outcome.get("num_tokens")
    return outcome["num_trained_tokens"] / tokens if tokens else None


def _rate_at(curve: Curve, step: int, recipe: TrainRecipe) -> float:
    rates = [value for at, value in curve.learning_rate if at <= step and value > 0]
    return rates[-1] if rates else recipe.learning_rate


def _longer_warmup(recipe: TrainRecipe) -> float:
    return max(0.1, min(0.5, 2 * recipe.warmup_ratio))
