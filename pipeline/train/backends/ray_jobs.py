# pyright: basic, reportMissingImports=false
"""Ray Jobs behind three calls: submit or attach, look, stop. Nothing here knows what the job computes."""

import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no request to a server for counting users

from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.core.errors import InvalidInputError, MissingDependencyError

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNeeds:
    """What a job asks of the cluster."""

    num_cpus: float
    num_gpus: float
    requirements: Path | None
    """Libraries to install on the cluster first; None when its image has them."""


class ClusterJob:
    """One job of a cluster, by the id that we gave it."""

    def __init__(self, address: str, job_id: str) -> None:
        self.job_id = job_id
        self._num_shown = 0
        try:
            self._client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, OSError) as error:
            raise MissingDependencyError(
                f"no Ray cluster answers at {address}",
                hint="Start one (`ray start --head`, KubeRay, `ray up`), and forward its dashboard port.",
            ) from error

    def status(self) -> str:
        """Return the status, or an empty text when the cluster does not know the job."""
        try:
            return str(JobStatus(self._client.get_job_status(self.job_id)).value)
        except RuntimeError:
            return ""

    def submit(self, entrypoint: str, folder: Path, needs: ClusterNeeds) -> None:
        """Start the job with a folder as its working directory."""
        runtime = {"working_dir": str(folder), "env_vars": {"PYTHONUNBUFFERED": "1"}}
        if needs.requirements is not None:
            runtime["pip"] = needs.requirements.read_text(encoding="utf-8").split("\n")
        try:
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=self.job_id,
                runtime_env=runtime,
                entrypoint_num_cpus=needs.num_cpus,
                entrypoint_num_gpus=needs.num_gpus,
            )
        except (RuntimeError, ValueError) as error:
            raise InvalidInputError(
                f"the cluster refused the job: {str(error)[:500]}", hint="Check its size and the bundle's."
            ) from error

    def new_log(self) -> str:
        """Return what the job has printed since the last call."""
        try:
            log = self._client.get_job_logs(self.job_id)
        except RuntimeError:
            return ""
        new, self._num_shown = log[self._num_shown :], len(log)
        return new

    def message(self) -> str:
        """Return what the cluster says about the job's state."""
        return str(self._client.get_job_info(self.job_id).message or "")

    def stop(self) -> None:
        """Ask the cluster to stop the job."""
        self._client.stop_job(self.job_id)
