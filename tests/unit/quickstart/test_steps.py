"""Steps: done ones are not repeated, failures name the step, children end with their parent."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.runs import Run
from pipeline.quickstart import steps
from pipeline.quickstart.steps import StepRecord, StepRunner
from pipeline.synth.generate import SYNTH_GENERATE
from pipeline.train.run import TRAIN_RUN


def _values(rows: int) -> dict[str, Any]:
    return {"out": "data", "num_rows": rows, "validation_rows": 4, "test_rows": 4}


def test_a_finished_step_is_not_repeated_and_a_changed_request_is(workspace: Path) -> None:
    runner = StepRunner(Run.create("quickstart.run", {}))
    first = runner.step("data", SYNTH_GENERATE, _values(20))
    run_id = runner.records["data"].run_id
    assert first["num_rows"] == 20
    assert runner.step("data", SYNTH_GENERATE, _values(20)) == first
    assert runner.records["data"].run_id == run_id
    assert runner.step("data", SYNTH_GENERATE, _values(24))["num_rows"] == 24
    assert runner.records["data"].run_id != run_id


def test_a_step_whose_output_is_gone_is_done_again(workspace: Path) -> None:
    runner = StepRunner(Run.create("quickstart.run", {}))
    runner.step("data", SYNTH_GENERATE, _values(20))
    run_id = runner.records["data"].run_id
    (workspace / "data" / "train.jsonl").unlink()
    runner.step(
        "data",
        SYNTH_GENERATE,
        _values(20),
        still_there=lambda _: (workspace / "data" / "train.jsonl").exists(),
    )
    assert runner.records["data"].run_id != run_id
    assert (workspace / "data" / "train.jsonl").exists()


def test_another_run_of_the_same_request_adopts_what_is_done(workspace: Path) -> None:
    first = StepRunner(Run.create("quickstart.run", {}))
    first.step("data", SYNTH_GENERATE, _values(20))
    second = StepRunner(Run.create("quickstart.run", {}))
    second.adopt(first.run)
    second.step("data", SYNTH_GENERATE, _values(20))
    assert second.records["data"].run_id == first.records["data"].run_id


def test_a_failing_step_says_which_and_why(workspace: Path) -> None:
    runner = StepRunner(Run.create("quickstart.run", {}))
    with pytest.raises(OperationFailedError, match=r"step 'train' failed: .*nowhere"):
        runner.step("train", TRAIN_RUN, {"model": "no-such-model", "data": "nowhere"})


def test_a_step_that_another_process_works_on_is_refused_and_left_alone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_LAST_BREATH_SECONDS", 0.0)
    request = SYNTH_GENERATE.parse(_values(20)).model_dump(mode="json")
    living = Run.create(SYNTH_GENERATE.name, request)  # by this process, which is alive
    runner = StepRunner(Run.create("quickstart.run", {}))
    runner.records["data"] = StepRecord(living.id, 1.0, 1)
    with pytest.raises(InvalidInputError, match=f"'data' is running already, as {living.id}") as caught:
        runner.step("data", SYNTH_GENERATE, _values(20))
    assert f"jobs cancel {living.id}" in caught.value.hint
    assert living.state() == "running"
    assert not (workspace / "data").exists()


def test_a_step_that_was_just_started_counts_as_worked_on(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_LAST_BREATH_SECONDS", 0.0)
    request = SYNTH_GENERATE.parse(_values(20)).model_dump(mode="json")
    living = Run.create(SYNTH_GENERATE.name, request, state="queued")
    runner = StepRunner(Run.create("quickstart.run", {}))
    runner.records["data"] = StepRecord(living.id, 1.0, 1)
    with pytest.raises(InvalidInputError, match="'data' is queued already"):
        runner.step("data", SYNTH_GENERATE, _values(20))


def test_an_interrupted_step_goes_on_in_its_own_run(workspace: Path) -> None:
    request = SYNTH_GENERATE.parse(_values(20)).model_dump(mode="json")
    stopped = Run.create(SYNTH_GENERATE.name, request)
    stopped.write_manifest(status="cancelled")
    runner = StepRunner(Run.create("quickstart.run", {}))
    runner.records["data"] = StepRecord(stopped.id, 1.0, 1)
    assert runner.step("data", SYNTH_GENERATE, _values(20))["num_rows"] == 20
    assert runner.records["data"].run_id == stopped.id
    assert stopped.state() == "succeeded"
