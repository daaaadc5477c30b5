"""The whole chain: weights, data, fine-tune, export with its proof, evaluation before and after, agent, report.

Run it again after an interruption: it goes on where it stopped. Every step is an ordinary operation with a run
directory of its own, so each can be looked at, repeated or replaced by hand.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.agent.run import AGENT_RUN
from pipeline.core.errors import OperationFailedError
from pipeline.core.files import read_json
from pipeline.core.machine import read_cpu, read_gpus
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.core.runs import Run, list_runs
from pipeline.core.settings import Settings
from pipeline.doctor.run import find_slow_processor
from pipeline.evals.compare import EVALS_COMPARE
from pipeline.evals.run import EVALS_RUN
from pipeline.export.convert import EXPORT_CONVERT
from pipeline.export.run import EXPORT_RUN
from pipeline.models.pull import MODELS_PULL
from pipeline.quickstart.report import ReportFacts, write_report
from pipeline.quickstart.steps import StepRunner, exists_below, say
from pipeline.synth.generate import SYNTH_GENERATE
from pipeline.train.recipe import PresetName
from pipeline.train.run import TRAIN_RUN

AGENT_REQUESTS = (
    "Remind me to call Priya about the lease on Friday",
    "Add a high priority task: renew the passport, due March 20",
    "What is still open?",
    "Task 1 is done",
)
# 48 are enough for a loss to two digits; it is computed five times, which a short training should not spend its time on.
_MIN_VALIDATION_ROWS, _MAX_VALIDATION_ROWS = 4, 48
_TRAIN_ROWS_PER_VALIDATION_ROW = 20
_FEW_ROWS = 1200  # from here on a slow processor needs over half an hour
_AGENT_TODAY = "2026-03-11"


class QuickstartRunRequest(Request):
    """What to build; the defaults are the documented quickstart."""

    model: WorkspaceRef = "smollm2-135m"
    """Base model."""
    preset: PresetName = "cpu-quality"
    """Training recipe; `cpu-smoke` proves the chain in minutes and makes no good model."""
    num_rows: int = Field(default=5000, ge=16)
    """Training rows to make."""
    test_rows: int = Field(default=300, ge=4)
    """Held-out conversations to evaluate the tuned model on."""
    base_test_rows: int = Field(default=60, ge=4)
    """The first of them that the base model is evaluated on too; it is slower, because it does not stop."""
    seed: int = 0
    """Seed of the data; the recipe has its own."""
    name: str = "task-agent"
    """The model appears as models/NAME."""
    fresh: bool = False
    """Start from nothing, even if an earlier quickstart of this request got somewhere."""


class QuickstartRunResult(Result):
    """Where to look."""

    model: str
    """Folder of the exported model."""
    report_html: str
    """One-page report."""
    report_markdown: str
    """The same as Markdown."""
    tuned_turns_right: dict[str, Any]
    """Whole turns right after tuning: rate, interval, counts."""
    base_turns_right: dict[str, Any]
    """The same for the base model, on its share of the test rows."""
    gate_passed: bool
    """Whether export was proven equal to training."""
    step_seconds: dict[str, float]
    """Wall time by step, over all attempts."""
    total_seconds: float
    """Sum of the steps."""
    peak_memory_bytes: int
    """Largest of the steps."""


def run_quickstart(request: QuickstartRunRequest, run: Run) -> QuickstartRunResult:
    """Build, prove, measure and try a tool-calling model, from nothing to a report.

    Raises:
        InvalidInputError: If another quickstart of this request, or a job, is working on one of its steps.
        OperationFailedError: If a step fails; run it again to go on with that step.
    """
    runner = StepRunner(run)
    if not request.fresh and (earlier := _earlier_run(request, run)) is not None:
        runner.adopt(earlier)
    settings = Settings.load()
    if request.num_rows > _FEW_ROWS and request.preset == "cpu-quality":
        for problem in find_slow_processor(read_cpu().features, read_gpus()):
            say(f"{problem.what}; shorter, with a weaker model: `{problem.mend}`")
    results = _build(request, runner, settings.workspace, run)
    results |= _measure(request, runner, settings.workspace, results)
    report = write_report(
        ReportFacts(
            request=request.model_dump(mode="json"),
            results=results,
            steps=runner.records,
            train_metrics=Run(settings.runs_dir / results["train"]["run_id"]).metrics(),
            gate=read_json(settings.workspace / results["export"]["path"] / "gate.json"),
            worst=read_json(settings.workspace / Path(results["tuned"]["report"]).with_suffix(".json"))[
                "worst"
            ],
        ),
        run.artifacts,
    )
    seconds = {name: record.seconds for name, record in runner.records.items()}
    return QuickstartRunResult(
        model=results["export"]["path"],
        report_html=str(report.with_suffix(".html").relative_to(settings.workspace)),
        report_markdown=str(report.relative_to(settings.workspace)),
        tuned_turns_right=results["tuned"]["whole_turn"],
        base_turns_right=results["base"]["whole_turn"],
        gate_passed=bool(results["export"]["gate_passed"]),
        step_seconds=seconds,
        total_seconds=round(sum(seconds.values()), 1),
        peak_memory_bytes=max(record.peak_bytes for record in runner.records.values()),
        next_step=f"llmops agent chat   (or: llmops deploy serve --model {results['export']['path']} --port 8080)",
    )


def _earlier_run(request: QuickstartRunRequest, run: Run) -> Run | None:
    wanted = request.model_dump(mode="json", exclude={"fresh"})
    for earlier in list_runs():
        if earlier.id == run.id or earlier.manifest()["operation"] != QUICKSTART_RUN.name:
            continue
        asked = read_json(earlier.path / "request.json")
        if {key: value for key, value in asked.items() if key != "fresh"} == wanted:
            return earlier
    return None


def _build(request: QuickstartRunRequest, runner: StepRunner, workspace: Path, run: Run) -> dict[str, Any]:
    pulled = runner.step(
        "pull", MODELS_PULL, {"model": request.model}, still_there=exists_below(workspace, "path")
    )
    data = f"runs/data-{request.num_rows}-{request.test_rows}-{request.seed}"
    made = runner.step(
        "data",
        SYNTH_GENERATE,
        {
            "out": data,
            "num_rows": request.num_rows,
            "validation_rows": _choose_validation_rows(request.num_rows),
            "test_rows": request.test_rows,
            "seed": request.seed,
        },
        still_there=lambda _: (workspace / data / "test.jsonl").exists(),
    )
    trained = runner.step(
        "train",
        TRAIN_RUN,
        {"model": pulled["path"], "data": data, "preset": request.preset},
        still_there=exists_below(workspace, "output"),
    )
    exported = runner.step(
        "export",
        EXPORT_RUN,
        {"run": f"run:{trained['run_id']}", "name": request.name},
        still_there=exists_below(workspace, "path"),
    )
    return {"pull": pulled, "data": made, "train": trained, "export": exported}


def _choose_validation_rows(num_rows: int) -> int:
    wanted = num_rows // _TRAIN_ROWS_PER_VALIDATION_ROW
    return min(_MAX_VALIDATION_ROWS, max(_MIN_VALIDATION_ROWS, wanted))


def _measure(
    request: QuickstartRunRequest, runner: StepRunner, workspace: Path, built: dict[str, Any]
) -> dict[str, Any]:
    cases = f"{built['data']['out']}/test.jsonl"
    base_gguf = runner.step(
        "base GGUF",
        EXPORT_CONVERT,
        {"model": built["pull"]["path"], "quantization": "q8_0"},
        still_there=exists_below(workspace, "path"),
    )
    base = runner.step(
        "evaluate base",
        EVALS_RUN,
        {"cases": cases, "serve": base_gguf["path"], "limit": request.base_test_rows, "label": "base"},
    )
    tuned = runner.step(
        "evaluate tuned", EVALS_RUN, {"cases": cases, "serve": built["export"]["path"], "label": "tuned"}
    )
    compared = runner.step("compare", EVALS_COMPARE, {"before": base["run_id"], "after": tuned["run_id"]})
    transcript = [item for n, text in enumerate(AGENT_REQUESTS, 1) for item in _ask(n, text, runner, built)]
    return {"base": base, "tuned": tuned, "compare": compared, "agent": {"items": transcript}}


def _ask(number: int, text: str, runner: StepRunner, built: dict[str, Any]) -> list[dict[str, Any]]:
    values = {
        "text": text,
        "model": built["export"]["path"],
        # In the training run's folder: another quickstart of the same model finds the same store and asks nothing twice.
        "store": f"runs/{built['train']['run_id']}/agent.db",
        "today": _AGENT_TODAY,
    }
    try:
        return runner.step(f"agent {number}", AGENT_RUN, values)["items"]
    except OperationFailedError as error:
        # A model that gets lost is a finding for the report, not a reason to withhold it.
        return [{"role": "user", "text": text}, {"role": "assistant", "text": f"(no answer: {error})"}]


QUICKSTART_RUN = Operation(
    name="quickstart.run",
    request=QuickstartRunRequest,
    result=QuickstartRunResult,
    run=run_quickstart,
    long_running=True,
)
