"""Stop a job, or start an unfinished one again in the same run directory."""

from pydantic import Field

from pipeline.core.jobs import cancel, start_worker
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.runs import Run, RunState
from pipeline.jobs.watch import open_resumable


class JobsCancelRequest(Request):
    """Which run to stop."""

    run_id: str = Field(min_length=1)
    """Run id, or an unambiguous part of it."""


class JobsCancelResult(Result):
    """What became of the run."""

    run_id: str
    """Name of the run directory."""
    state: RunState
    """Where it stands now."""
    stopped: bool
    """True when this call stopped it; false when it had ended before."""


class JobsResumeRequest(Request):
    """Which run to continue."""

    run_id: str = Field(min_length=1)
    """Run id, or an unambiguous part of it; it must be interrupted, failed or cancelled."""


class JobsResumeResult(Result):
    """The job that was started again."""

    run_id: str
    """Name of the run directory: the same as before."""
    previous_state: RunState
    """How it stood."""


def cancel_job(request: JobsCancelRequest) -> JobsCancelResult:
    """Stop a running job and all its child processes.

    Raises:
        InvalidInputError: If no run matches, or the run is this very process.
    """
    run = Run.open(request.run_id)
    stopped = cancel(run)
    return JobsCancelResult(
        run_id=run.id,
        state=run.state(),
        stopped=stopped,
        warnings=[] if stopped else ["It was not running; nothing was stopped."],
        next_step=f"llmops jobs resume {run.id}" if stopped else f"llmops jobs status {run.id}",
    )


def resume_job(request: JobsResumeRequest) -> JobsResumeResult:
    """Continue an interrupted, failed or cancelled run where it stopped.

    Raises:
        InvalidInputError: If no run matches, or it is alive, or it has succeeded.
    """
    run = open_resumable(request.run_id)
    previous = run.state()
    run.queue()
    start_worker(run)
    return JobsResumeResult(
        run_id=run.id,
        previous_state=previous,
        next_step=f"Call jobs_status with run_id={run.id} and wait_seconds=50 until it has ended.",
    )


JOBS_CANCEL = Operation(
    name="jobs.cancel",
    request=JobsCancelRequest,
    result=JobsCancelResult,
    run=cancel_job,
    destructive=True,
    positional=("run_id",),
)
JOBS_RESUME = Operation(
    name="jobs.resume",
    request=JobsResumeRequest,
    result=JobsResumeResult,
    run=resume_job,
    positional=("run_id",),
)
