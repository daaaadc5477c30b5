"""``train.curve`` and ``train.watch``: the loss curve on the terminal, as PNG and as a page; once or until the end."""

import math
import shutil
import sys
import time
from collections.abc import Sequence

from pydantic import Field

from pipeline.core.extras import require
from pipeline.core.files import write_atomic
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.pages import render_html
from pipeline.core.paths import WorkspacePath, shown_path
from pipeline.core.runs import Run, RunState
from pipeline.core.units import format_seconds
from pipeline.train.curve import TrainingRun, open_training_run
from pipeline.train.diagnose import draw_picture, report_folder
from pipeline.train.verdict import judge

_WIDTH, _HEIGHT = 78, 18
_PAGE_SECONDS = 10.0
_MAX_POINTS = 200
_ALIVE = frozenset({"queued", "running"})


class TrainCurveRequest(Request):
    """Which run to draw."""

    run_id: str = Field(min_length=1)
    """Run id of a `train run`, or an unambiguous part of it."""
    out: WorkspacePath = ""
    """Folder for curve.png and curve.html; `reports/RUN` when empty."""


class TrainWatchRequest(TrainCurveRequest):
    """Which run to watch, how often to look."""

    interval_seconds: float = Field(default=2.0, ge=0.2, le=600)
    """Seconds between two looks."""


class TrainCurveResult(Result):
    """The curve so far."""

    run_id: str
    """Name of the run directory."""
    state: RunState
    """Where the run stands."""
    last_step: int
    """Newest step."""
    num_steps: int | None
    """Steps in all, when the run has said so."""
    train_loss: float | None
    """Newest training loss."""
    eval_loss: float | None
    """Newest evaluation loss."""
    lowest_eval_loss: float | None
    """Lowest evaluation loss."""
    train_points: list[tuple[int, float]]
    """(step, training loss), thinned to at most 200."""
    eval_points: list[tuple[int, float]]
    """(step, evaluation loss)."""
    plot: str
    """The curve as text."""
    picture: str
    """PNG."""
    page: str
    """HTML with picture, numbers and verdict; it reloads itself while the run goes on."""


def draw_run_curve(request: TrainCurveRequest) -> TrainCurveResult:
    """Draw the loss curve of a training run as text, PNG and HTML, also while it runs.

    Raises:
        InvalidInputError: If no run matches, or it is not a training run.
    """
    require("plotext", "matplotlib", extra="train")
    return _draw(open_training_run(request.run_id), request.out)


def watch_run(request: TrainWatchRequest) -> TrainCurveResult:
    """Show the loss curve of a training run, live, until the run ends.

    Raises:
        InvalidInputError: If no run matches, or it is not a training run.
    """
    require("plotext", "matplotlib", extra="train")
    result, drawn = draw_run_curve(request), time.monotonic()
    shown_step = -1
    while Run.open(result.run_id).state() in _ALIVE:
        training = open_training_run(result.run_id)
        if training.curve.last_step != shown_step:
            shown_step = training.curve.last_step
            _show(training)
        if time.monotonic() - drawn >= _PAGE_SECONDS:
            result, drawn = _draw(training, request.out), time.monotonic()
        time.sleep(request.interval_seconds)
    return draw_run_curve(request)


def _show(training: TrainingRun) -> None:
    from pipeline.train.backends.terminal_plot import plot_text

    size = shutil.get_terminal_size((_WIDTH, _HEIGHT + 4))
    if sys.stderr.isatty():
        sys.stderr.write("\033[2J\033[H")  # clear the screen: ECMA-48 ED 2 and CUP
    height = min(_HEIGHT, max(8, size.lines - 4))
    sys.stderr.write(
        f"{_headline(training)}\n{plot_text(training.curve, min(120, size.columns - 1), height)}\n"
    )
    sys.stderr.flush()


def _headline(training: TrainingRun) -> str:
    curve = training.curve
    parts = [training.run.id, training.state, f"step {curve.last_step}/{curve.num_steps or '?'}"]
    for name, points in (("loss", curve.train), ("evaluation", curve.evaluation)):
        if points:
            parts.append(f"{name} {points[-1][1]:.4g}")
    if curve.num_steps and 0 < curve.last_step < curve.num_steps:
        left = curve.seconds / curve.last_step * (curve.num_steps - curve.last_step)
        parts.append(f"{format_seconds(left)} left")
    return "  ".join(parts)


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return every n-th finite point so that at most 200 are left, the last one among them."""
    finite = [(step, round(value, 5)) for step, value in points if math.isfinite(value)]
    step = max(1, math.ceil(len(finite) / _MAX_POINTS))
    return finite[::-1][::step][::-1]


def _draw(training: TrainingRun, out: str) -> TrainCurveResult:
    from pipeline.train.backends.terminal_plot import plot_text

    curve = training.curve
    picture = draw_picture(training, out, training.state)
    page = report_folder(training, out) / "curve.html"
    reload_seconds = round(_PAGE_SECONDS) if training.state in _ALIVE else None
    write_atomic(page, render_html(_describe(training), page.parent, reload_seconds=reload_seconds))
    evaluations = [value for _, value in curve.evaluation]
    is_alive = training.state in _ALIVE
    return TrainCurveResult(
        run_id=training.run.id,
        state=training.state,
        last_step=curve.last_step,
        num_steps=curve.num_steps,
        train_loss=curve.train[-1][1] if curve.train else None,
        eval_loss=evaluations[-1] if evaluations else None,
        lowest_eval_loss=min(evaluations, default=None),
        train_points=_thin(curve.train),
        eval_points=_thin(curve.evaluation),
        plot=plot_text(curve, _WIDTH, _HEIGHT),
        picture=shown_path(picture) if picture else "",
        page=shown_path(page),
        next_step=f"llmops train {'watch' if is_alive else 'diagnose'} {training.run.id}",
    )


def _describe(training: TrainingRun) -> str:
    found = judge(training.curve, training.recipe, training.outcome, training.error)
    lines = [f"# {training.run.id}", "", _headline(training), "", "![loss curve](curve.png)", ""]
    lines += [
        f"**{found.verdict}**",
        "",
        *(f"- {item}" for item in found.evidence),
        "",
        found.next_change,
        "",
    ]
    lines += ["| step | evaluation loss |", "| --- | --- |"]
    lines += [f"| {step} | {value:.5g} |" for step, value in training.curve.evaluation]
    lines += ["", "| recipe | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in training.recipe.model_dump(mode="json").items()]
    return "\n".join(lines) + "\n"


TRAIN_CURVE = Operation(
    name="train.curve",
    request=TrainCurveRequest,
    result=TrainCurveResult,
    run=draw_run_curve,
    read_only=True,
    positional=("run_id",),
)
TRAIN_WATCH = Operation(
    name="train.watch",
    request=TrainWatchRequest,
    result=TrainCurveResult,
    run=watch_run,
    read_only=True,
    positional=("run_id",),
    surfaces=("cli",),
)
