"""What a trial leaves behind, by how it ended; the worker is made by hand."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.files import write_json
from pipeline.core.runs import Run, process_identity
from pipeline.train import trial


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    found = Run.create("train.run", {"data": "d"}, state="queued")
    write_json(found.artifacts / "checkpoints" / "checkpoint-2" / "complete.json", {"step": 2})
    return found


@pytest.fixture
def work_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the worker write one evaluation and then stand in a state."""

    def set_state(status: str) -> None:
        def start(run: Run, *, ends_with_caller: bool) -> None:
            assert ends_with_caller
            run.log_metrics(step=2, eval_loss=0.5)
            run.write_manifest(status=status, **process_identity(os.getpid()))

        monkeypatch.setattr(trial, "start_worker", start)

    return set_state


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_trial_that_did_not_come_to_its_end_keeps_its_checkpoints_to_go_on_from(
    run: Run, work_as: Callable[[str], None], status: str
) -> None:
    work_as(status)
    assert trial.follow_trial(run, lambda _ordinal, _point: True) == status
    assert (run.artifacts / "checkpoints" / "checkpoint-2" / "complete.json").exists()


def test_a_trial_that_succeeded_gives_back_the_room_of_its_checkpoints(
    run: Run, work_as: Callable[[str], None]
) -> None:
    work_as("succeeded")
    assert trial.follow_trial(run, lambda _ordinal, _point: True) == "succeeded"
    assert not (run.artifacts / "checkpoints").exists()


def test_a_trial_that_was_pruned_gives_back_the_room_of_its_checkpoints(
    run: Run, work_as: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel(pruned: Run) -> bool:
        pruned.write_manifest(status="cancelled")
        return True

    monkeypatch.setattr(trial, "cancel", cancel)
    work_as("running")
    assert trial.follow_trial(run, lambda _ordinal, _point: False) == "cancelled"
    assert not (run.artifacts / "checkpoints").exists()
