"""train.compare on run directories written by hand."""

import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json, write_json
from pipeline.core.operation import Operation
from pipeline.core.runs import Run
from pipeline.request_arguments import read_request
from pipeline.train.compare import TRAIN_COMPARE, find_changes


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    return tmp_path.resolve()


def make_run(learning_rate: float, eval_losses: list[float], train_sha256: str = "a") -> Run:
    recipe = {"learning_rate": learning_rate, "rank": 8}
    run = Run.create("train.run", {"recipe": recipe, "data": "d"})
    with run.active():
        for step, loss in enumerate(eval_losses, start=1):
            run.log_metrics(step=step, loss=1.0, eval_loss=loss, train_seconds=2.0 * step)
        write_json(
            run.artifacts / "training.json", {"recipe": recipe, "data": {"train_sha256": train_sha256}}
        )
        run.finish({})
    return run


def test_runs_are_ordered_by_evaluation_loss_and_show_only_what_differed(workspace: Path) -> None:
    high, low = make_run(1e-3, [0.9, 0.5, 0.6]), make_run(1e-4, [0.9, 0.7, 0.4])
    result = TRAIN_COMPARE.call({"run_ids": [high.id, low.id]})
    assert result.best == low.id
    assert [row.changed for row in result.runs] == [{"learning_rate": 1e-4}, {"learning_rate": 1e-3}]
    worse = result.runs[1]
    assert (worse.eval_loss, worse.lowest_eval_loss, worse.lowest_at_step) == (0.6, 0.5, 2)
    assert worse.train_seconds == 6.0
    assert not result.data_differs
    assert (workspace / result.picture).read_bytes().startswith(b"\x89PNG")
    assert read_json(workspace / "reports/train-compare/compare.json")["best"] == low.id


def test_a_run_that_got_worse_at_its_end_is_still_best_when_the_weights_it_keeps_are(workspace: Path) -> None:
    steady, peaked = make_run(1e-4, [0.9, 0.7, 0.6]), make_run(1e-3, [0.9, 0.5, 0.8])
    result = TRAIN_COMPARE.call({"run_ids": [steady.id, peaked.id]})
    assert result.best == peaked.id
    assert [row.lowest_eval_loss for row in result.runs] == [0.5, 0.6]


def test_an_evaluation_that_is_not_a_number_is_never_the_lowest(workspace: Path) -> None:
    broken, finite = make_run(1e-3, [math.nan, 0.7]), make_run(1e-4, [0.6])
    result = TRAIN_COMPARE.call({"run_ids": [broken.id, finite.id]})
    assert [row.lowest_eval_loss for row in result.runs] == [0.6, 0.7]


def test_runs_of_different_rows_are_not_said_to_compare(workspace: Path) -> None:
    result = TRAIN_COMPARE.call({"run_ids": [make_run(1e-3, [0.5]).id, make_run(1e-3, [0.4], "b").id]})
    assert result.data_differs
    assert "do not compare" in result.warnings[0]


def test_without_evaluation_no_run_is_called_best(workspace: Path) -> None:
    assert TRAIN_COMPARE.call({"run_ids": [make_run(1e-3, []).id, make_run(1e-4, []).id]}).best is None


def test_a_run_named_twice_is_refused(workspace: Path) -> None:
    run = make_run(1e-3, [0.5])
    with pytest.raises(InvalidInputError, match="twice"):
        TRAIN_COMPARE.call({"run_ids": [run.id, run.id[-6:]]})


CASES: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], [{"b": 2}, {"b": 3}]),
    ([{"a": 1}, {"a": 1}], [{}, {}]),
    ([{"a": 1}, {}], [{"a": 1}, {"a": None}]),
]


@pytest.mark.parametrize(("recipes", "expected"), CASES)
def test_changes_are_what_not_all_recipes_share(
    recipes: list[dict[str, Any]], expected: list[dict[str, Any]]
) -> None:
    assert find_changes(recipes) == expected


def test_the_command_takes_any_number_of_runs_without_flags(workspace: Path) -> None:
    operation: Operation[Any, Any] = TRAIN_COMPARE
    values, _ = read_request(operation, ["one", "two", "three", "--out", "here"])
    assert values == {"run_ids": ["one", "two", "three"], "out": "here"}
    values, _ = read_request(operation, ["--run-ids", "one,two"])
    assert values == {"run_ids": ["one", "two"]}
