"""Operation ``export.verify``: run the gate on an export, or on one GGUF file, and write the report beside it."""

from pydantic import Field

from pipeline.core.extras import require
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path
from pipeline.core.refs import resolve_path as resolve_ref
from pipeline.core.runs import Run
from pipeline.export.gate import find_subject, run_gate
from pipeline.export.gate_report import GateCheck
from pipeline.export.gate_task import DEFAULT_NUM_TURNS


class ExportVerifyRequest(Request):
    """What to verify."""

    model: WorkspaceRef = Field(default="models/task-agent", min_length=1)
    """Export folder, or one .gguf file; `run:<id>/export` is one that was not published."""
    reference: WorkspaceRef = ""
    """Hugging Face folder the files were made from; default is merged/ beside them."""
    cases: WorkspacePath | None = None
    """Held-out conversations to measure task accuracy on; default is what the export recorded."""
    num_turns: int = Field(default=DEFAULT_NUM_TURNS, ge=1, le=1000)
    """Assistant turns of them to ask of every file; 50 make one turn two points."""


class ExportVerifyResult(Result):
    """Outcome of the gate."""

    passed: bool
    """True when no check failed."""
    checks: list[GateCheck]
    """All checks, in the order they ran."""
    default_gguf: str
    """File the gate would serve."""
    seconds: float
    """Wall time of the gate."""
    report: str
    """Where it was written."""

    def is_negative(self) -> bool:
        """True when a check failed."""
        return not self.passed


def verify_export(request: ExportVerifyRequest, run: Run) -> ExportVerifyResult:
    """Prove that GGUF files say what the merged model says, and can be served.

    Raises:
        InvalidInputError: If there is no GGUF, or nothing to compare it with.
        IntegrityError: If a file is truncated or was changed.
    """
    require("torch", "transformers", "libgguf", extra="train")
    require("xllamacpp", extra="serve")
    subject = find_subject(
        resolve_ref(request.model),
        resolve_ref(request.reference) if request.reference else None,
        resolve_path(request.cases) if request.cases else None,
        request.num_turns,
    )
    report = run_gate(subject, run)
    failed = [check.id for check in report.checks if check.passed is False]
    return ExportVerifyResult(
        passed=report.passed,
        checks=report.checks,
        default_gguf=report.default_gguf,
        seconds=report.seconds,
        report=str(subject.report),
        warnings=[f"failed: {', '.join(failed)}"] if failed else [],
        next_step=f"llmops deploy serve --model {request.model}" if report.passed else "",
    )


EXPORT_VERIFY = Operation(
    name="export.verify",
    request=ExportVerifyRequest,
    result=ExportVerifyResult,
    run=verify_export,
    long_running=True,
    positional=("model",),
)
