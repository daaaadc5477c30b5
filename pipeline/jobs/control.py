"""Stop a job, or start an unfinished one again in the same run directory."""

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.jobs import cancel, start_worker, stop_orphans, submitting
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
        InvalidInputError: If no run matches, or the run is this very process or on another machine.
    """
    run = Run.open(request.run_id)
    if run.state() == "running" and run.process() is None:
        raise InvalidInputError(
            f"{run.id} is running on {run.manifest()['host']}", hint="Cancel it on that machine."
        )
    stopped = cancel(run)
    num_orphans = stop_orphans(run)
    return JobsCancelResult(
        run_id=run.id,
        state=run.state(),
        stopped=stopped,
        warnings=_describe_stopped(stopped, num_orphans),
        next_step=f"llmops jobs resume {run.id}" if stopped else f"llmops jobs status {run.id}",
    )


def resume_job(request: JobsResumeRequest) -> JobsResumeResult:
    """Continue an interrupted, failed or cancelled run where it stopped.

    Raises:
        InvalidInputError: If no run matches, or it is alive, or it has succeeded.
    """
    with submitting():  # or two callers would both find it resumable and start two workers on one directory
        run = open_resumable(request.run_id)
        previous = run.state()
        num_orphans = stop_orphans(run)  # a child that still writes would spoil what the new worker does
        run.queue()
        start_worker(run)
    return JobsResumeResult(
        run_id=run.id,
        previous_state=previous,
        warnings=_describe_stopped(True, num_orphans),
        next_step=f"Call jobs_status with run_id={run.id} and wait_seconds=50 until it has ended.",
    )


def _describe_stopped(stopped: bool, num_orphans: int) -> list[str]:
    if num_orphans:
        return [f"{num_orphans} processes that its worker had left behind were stopped."]
    return [] if stopped else ["It was not running; nothing was stopped."]


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
