"""train.curve, train.watch and train.diagnose on run directories written by hand."""

import math
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.train.curve import read_curve, smooth
from pipeline.train.diagnose import TRAIN_DIAGNOSE
from pipeline.train.watch import TRAIN_CURVE, TRAIN_WATCH

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    return tmp_path.resolve()


@pytest.fixture
def run(workspace: Path) -> Run:
    found = Run.create("train.run", {"preset": "cpu-quality", "data": "d"})
    found.write_manifest(status="queued")
    return found


def log_exponential(run: Run, num: int, time_constant: float = 0.2) -> None:
    for i in range(num):
        run.log_metrics(
            step=i + 1, train_seconds=float(i), loss=0.1 + math.exp(-i / (num - 1) / time_constant)
        )
    run.log_metrics(step=num, eval_loss=0.3)


def test_steps_that_a_resumed_run_logs_again_count_once_with_their_last_value(run: Run) -> None:
    for step, loss in ((1, 3.0), (2, 2.0), (3, 9.0), (2, 2.0), (3, 1.0)):
        run.log_metrics(step=step, loss=loss)
    assert read_curve(run).train == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_half_a_line_and_lines_of_other_activities_are_left_aside(run: Run) -> None:
    run.log_metrics(step=1, loss=1.0)
    run.log_metrics(note="no step")
    with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"step": 2, "los')
    assert read_curve(run).train == [(1, 1.0)]


def test_smoothing_is_the_mean_of_the_neighbours() -> None:
    assert smooth([(1, 3.0), (2, 6.0), (3, 0.0), (4, 4.0)], 3) == [
        (1, 4.5), (2, 3.0), (3, pytest.approx(10 / 3)), (4, 2.0),
    ]  # fmt: skip


def test_the_curve_is_written_as_text_picture_and_page(run: Run, workspace: Path) -> None:
    log_exponential(run, 60)
    result = TRAIN_CURVE.call({"run_id": run.id})
    assert (result.last_step, result.eval_loss) == (60, 0.3)
    assert "training" in result.plot
    assert "\033" not in result.plot
    assert (workspace / result.picture).read_bytes().startswith(PNG)
    page = (workspace / result.page).read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "<td>eval" not in page


def test_a_page_reloads_itself_only_while_the_run_is_alive(run: Run, workspace: Path) -> None:
    log_exponential(run, 20)
    living = TRAIN_CURVE.call({"run_id": run.id})
    assert 'http-equiv="refresh"' in (workspace / living.page).read_text(encoding="utf-8")
    with run.active():
        run.finish({})
    ended = TRAIN_CURVE.call({"run_id": run.id})
    assert 'http-equiv="refresh"' not in (workspace / ended.page).read_text(encoding="utf-8")


def test_a_run_without_a_step_has_an_empty_curve_and_no_verdict_yet(run: Run) -> None:
    assert TRAIN_CURVE.call({"run_id": run.id}).plot == "no step has been logged yet"
    found = TRAIN_DIAGNOSE.call({"run_id": run.id})
    assert (found.verdict, found.is_negative()) == ("too early", False)


def test_the_verdict_on_a_living_run_is_called_preliminary(run: Run) -> None:
    log_exponential(run, 60)
    found = TRAIN_DIAGNOSE.call({"run_id": f"run:{run.id}"})
    assert found.verdict == "healthy"
    assert any("preliminary" in warning for warning in found.warnings)


def test_a_verdict_that_asks_for_a_change_is_a_negative_answer(run: Run, workspace: Path) -> None:
    for step in range(1, 50):
        run.log_metrics(step=step, loss=2.0)
    found = TRAIN_DIAGNOSE.call({"run_id": run.id, "out": "here"})
    assert (found.verdict, found.is_negative()) == ("nothing learned", True)
    assert (workspace / "here" / "curve.png").read_bytes().startswith(PNG)


def test_watching_returns_when_the_run_has_ended(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    log_exponential(run, 20)

    def work() -> None:
        with run.active(), Progress("train", 30, run=run) as progress:
            for step in range(21, 31):
                run.log_metrics(step=step, loss=0.1)
                progress.update(step)
            while "training" not in cast("Any", sys.stderr).getvalue():  # until it has been shown once
                time.sleep(0.02)
            run.finish({})

    worker = threading.Thread(target=work)
    worker.start()
    result = TRAIN_WATCH.call({"run_id": run.id, "interval_seconds": 0.2})
    worker.join()
    assert (result.state, result.last_step, result.num_steps) == ("succeeded", 30, 30)
    assert "step 30/30" in capsys.readouterr().err


def test_only_training_runs_have_a_curve(workspace: Path) -> None:
    other = Run.create("evals.run", {})
    with pytest.raises(InvalidInputError, match=r"run of evals\.run"):
        TRAIN_CURVE.call({"run_id": other.id})
    with pytest.raises(InvalidInputError, match="no run matches"):
        TRAIN_DIAGNOSE.call({"run_id": "nothing"})
