"""jobs.list, jobs.status and jobs.logs: what they say about runs in every state."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.jobs.watch import (
    JobsListRequest,
    JobsLogsRequest,
    JobsStatusRequest,
    list_jobs,
    redact,
    report_status,
    show_logs,
)

SECRETS = [
    "hf_AbCdEfGhIjKlMnOpQrSt",
    "sk-proj-0123456789abcdefABCDEF",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat_11ABCDEFG0abcdefghijkl",
    "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc-_~+/=",
    "bearer 0123456789abcdef",
]


def fail(run: Run, message: str) -> None:
    with pytest.raises(OperationFailedError), run.active():
        raise OperationFailedError(message, hint="Mend it.")


def test_no_runs_is_an_empty_list(workspace: Path) -> None:
    result = list_jobs(JobsListRequest())
    assert (result.jobs, result.total) == ([], 0)


def test_runs_are_listed_newest_first_and_filtered(workspace: Path) -> None:
    ids = {name: Run.create(name, {}).id for name in ("demo.one", "demo.two")}
    fail(Run.open(ids["demo.one"]), "no")
    everything = list_jobs(JobsListRequest())
    assert everything.total == 2
    assert [row.run_id for row in everything.jobs] == sorted(ids.values(), reverse=True)
    assert [row.operation for row in list_jobs(JobsListRequest(state="failed")).jobs] == ["demo.one"]
    assert [row.operation for row in list_jobs(JobsListRequest(operation="demo.two")).jobs] == ["demo.two"]
    assert len(list_jobs(JobsListRequest(limit=1)).jobs) == 1
    assert list_jobs(JobsListRequest(limit=1)).total == 2


def test_a_running_run_says_plainly_that_it_is_not_finished(workspace: Path) -> None:
    run = Run.create("demo.train", {})
    with run.active():
        with Progress("train", 20, unit="steps", run=run) as progress:
            progress.update(5, "loss 1.5")
        run.log_metrics(step=5, loss=1.5)
        result = report_status(JobsStatusRequest(run_id=run.id))
        run.finish({})
    assert result.state == "running"
    assert result.progress is not None
    assert (result.progress.label, result.progress.done, result.progress.total) == ("train", 5, 20)
    assert result.metrics["loss"] == 1.5
    assert (result.result, result.error) == (None, None)
    assert result.next_step.startswith("Still running, not finished.")
    assert "wait_seconds=50" in result.next_step


def test_a_finished_run_shows_its_result(workspace: Path) -> None:
    run = Run.create("demo.train", {})
    with run.active():
        run.finish({"loss": 0.5})
    result = report_status(JobsStatusRequest(run_id="demo-train"))
    assert (result.state, result.result, result.error) == ("succeeded", {"loss": 0.5}, None)
    assert result.elapsed_seconds is not None
    assert result.elapsed_seconds < 60
    assert result.next_step.startswith("Finished.")


def test_a_failed_run_shows_its_error_without_secrets(workspace: Path) -> None:
    run = Run.create("demo.pull", {})
    fail(run, f"401 for {SECRETS[0]}")
    result = report_status(JobsStatusRequest(run_id=run.id))
    assert result.state == "failed"
    assert result.error is not None
    assert result.error["message"] == "401 for hf_[redacted]"
    assert result.error["hint"] == "Mend it."
    assert "jobs_resume" in result.next_step


def test_a_stale_error_is_not_shown_while_the_run_is_tried_again(workspace: Path) -> None:
    run = Run.create("demo.pull", {})
    fail(run, "no")
    with run.active():
        assert report_status(JobsStatusRequest(run_id=run.id)).error is None
        run.finish({})


def test_an_interrupted_run_says_that_nothing_is_running(workspace: Path) -> None:
    run = Run.create("demo.pull", {})
    run.write_manifest(process_started=0.0, started_at="2026-03-11T10:00:00+00:00")
    result = report_status(JobsStatusRequest(run_id=run.id))
    assert result.state == "interrupted"
    assert "Not running" in result.next_step


def test_waiting_ends_when_the_time_is_over(workspace: Path) -> None:
    run = Run.create("demo.pull", {})  # this process is alive, so the run is
    begun = time.monotonic()
    assert report_status(JobsStatusRequest(run_id=run.id, wait_seconds=0.5)).state == "running"
    assert 0.4 < time.monotonic() - begun < 10


@pytest.mark.parametrize("wait_seconds", [-1, 50.1, float("nan")])
def test_waiting_is_limited_to_what_mcp_clients_allow(wait_seconds: float) -> None:
    with pytest.raises(ValueError, match="wait_seconds"):
        JobsStatusRequest(run_id="x", wait_seconds=wait_seconds)


def test_an_unknown_run_is_invalid_input(workspace: Path) -> None:
    for call in (
        lambda: report_status(JobsStatusRequest(run_id="nope")),
        lambda: show_logs(JobsLogsRequest(run_id="nope")),
    ):
        with pytest.raises(InvalidInputError, match="no run matches"):
            call()


def write_log(lines: list[str]) -> Run:
    run = Run.create("demo.log", {})
    (run.path / "log.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return run


def test_logs_show_the_end_and_only_what_is_asked_for(workspace: Path) -> None:
    run = write_log([f"line {number} {'ERROR' if number % 10 == 0 else 'ok'}" for number in range(100)])
    last = show_logs(JobsLogsRequest(run_id=run.id))
    assert last.num_lines == 40
    assert last.log.splitlines()[-1] == "line 99 ok"
    found = show_logs(JobsLogsRequest(run_id=run.id, tail=2, grep="error"))
    assert found.log.splitlines() == ["line 80 ERROR", "line 90 ERROR"]


def test_a_log_that_is_not_utf8_or_very_long_is_still_shown(workspace: Path) -> None:
    run = Run.create("demo.log", {})
    (run.path / "log.txt").write_bytes(b"x" * 3_000_000 + b"\n\xff\xfe end\n" + b"y" * 5000 + b"\n")
    shown = show_logs(JobsLogsRequest(run_id=run.id)).log.splitlines()
    assert shown[0].endswith(" end")
    assert shown[1] == "y" * 500


def test_a_run_without_a_log_says_why(workspace: Path) -> None:
    result = show_logs(JobsLogsRequest(run_id=Run.create("demo.log", {}).id))
    assert result.num_lines == 0
    assert "No log" in result.warnings[0]


@pytest.mark.parametrize("secret", SECRETS)
def test_access_tokens_never_leave_a_log(workspace: Path, secret: str) -> None:
    run = write_log([f"GET /model Authorization: {secret}, token={secret}"])
    shown = show_logs(JobsLogsRequest(run_id=run.id)).log
    assert shown.count("[redacted]") == 2
    assert secret.split()[-1] not in shown
    assert secret[-8:] not in shown


def test_ordinary_words_are_not_redacted() -> None:
    text = "task-agent risk-assessment-of-models half_of hf_hub the bearer of news: disk-full sk-learn"
    assert redact(text).replace("bearer [redacted]", "bearer of") == text


def test_results_are_json_safe(workspace: Path) -> None:
    run = Run.create("demo.train", {})
    values: dict[str, Any] = report_status(JobsStatusRequest(run_id=run.id)).model_dump(mode="json")
    assert json.loads(json.dumps(values)) == values
