"""``train.diagnose``: what a training curve says, with the evidence, the picture and the next change to try.

Works on a run that is still going. Judges the curve only; whether the model is good is what `evals run` measures.
"""

from pathlib import Path

from pydantic import Field

from pipeline.core.extras import installed_version
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path, shown_path
from pipeline.core.runs import RunState
from pipeline.train.curve import TrainingRun, open_training_run
from pipeline.train.verdict import Verdict, judge


class TrainDiagnoseRequest(Request):
    """Which run to diagnose."""

    run_id: str = Field(min_length=1)
    """Run id of a `train run`, or an unambiguous part of it."""
    out: WorkspacePath = ""
    """Folder for curve.png; `reports/RUN` when empty."""


class TrainDiagnoseResult(Result):
    """The verdict and what it rests on."""

    run_id: str
    """Name of the run directory."""
    state: RunState
    """Where the run stands; the verdict on a living one is preliminary."""
    verdict: Verdict
    """What the curve looks like."""
    evidence: list[str]
    """The numbers behind the verdict."""
    next_change: str
    """What to change in the recipe or the rows next."""
    last_step: int
    """Newest step looked at."""
    picture: str
    """PNG of loss, learning rate and gradient norm; empty without matplotlib."""

    def is_negative(self) -> bool:
        """True for every verdict that asks for a change."""
        return self.verdict not in {"healthy", "too early"}


def diagnose_run(request: TrainDiagnoseRequest) -> TrainDiagnoseResult:
    """Say what a training curve shows: healthy, under-fit, over-fit, unstable, nothing learned or a data problem.

    Raises:
        InvalidInputError: If no run matches, or it is not a training run.
    """
    training = open_training_run(request.run_id)
    found = judge(training.curve, training.recipe, training.outcome, training.error)
    picture = draw_picture(training, request.out, found.verdict)
    warnings = [] if picture else ["curve.png was not drawn: matplotlib is missing"]
    if training.state in {"running", "queued"}:
        warnings.append("the run is still going: the verdict is preliminary")
    if training.state == "failed" and training.error:
        warnings.append(f"the run failed: {training.error.get('message', '')}")
    return TrainDiagnoseResult(
        run_id=training.run.id,
        state=training.state,
        verdict=found.verdict,
        evidence=found.evidence,
        next_change=found.next_change,
        last_step=training.curve.last_step,
        picture=shown_path(picture) if picture else "",
        warnings=warnings,
        next_step=_next_step(training, found.verdict),
    )


def draw_picture(training: TrainingRun, out: str, note: str) -> Path | None:
    """Write curve.png and return its path; None without matplotlib."""
    if installed_version("matplotlib") is None:
        return None
    from pipeline.train.backends.curve_plots import draw_curve

    path = report_folder(training, out) / "curve.png"
    draw_curve(training.curve, f"{training.run.id}: {note}", path)
    return path


def report_folder(training: TrainingRun, out: str) -> Path:
    """Return where files about a run go: not into the run, which is never edited after its end."""
    return resolve_path(out or f"reports/{training.run.id}")


def _next_step(training: TrainingRun, verdict: Verdict) -> str:
    if training.state in {"running", "queued"}:
        return f"llmops jobs status {training.run.id} --wait-seconds 50"
    if verdict == "healthy":
        return f"llmops export run run:{training.run.id}"
    return "llmops train run DATA --recipe JSON, with the change; then llmops train compare of both runs"


TRAIN_DIAGNOSE = Operation(
    name="train.diagnose",
    request=TrainDiagnoseRequest,
    result=TrainDiagnoseResult,
    run=diagnose_run,
    read_only=True,
    positional=("run_id",),
)
