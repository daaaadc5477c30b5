"""Which trials a search makes, which it prunes and how it goes on: with losses made by hand, without training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json
from pipeline.core.runs import Run
from pipeline.train import tune
from pipeline.train.backends.search import Search, first_places
from pipeline.train.curve import Point
from pipeline.train.learning_rate import find_turn
from pipeline.train.tune import TRAIN_TUNE

SPACE: dict[str, list[Any]] = {"rank": [4, 8, 16], "target_modules": [["all-linear"], ["q_proj", "v_proj"]]}


def open_search(tmp_path: Path, num_trials: int = 6, **changes: Any) -> Search:
    options: dict[str, Any] = {"strategy": "grid", "num_trials": num_trials, "prune": True, "seed": 0}
    return Search(tmp_path / "study.journal", SPACE, **{**options, **changes})


def test_a_grid_is_every_combination_once(tmp_path: Path) -> None:
    search = open_search(tmp_path)
    tried: list[dict[str, Any]] = []
    while (trial := search.ask()) is not None:
        tried.append(trial.values)
        search.tell(trial, 1.0)
    assert len(tried) == 3 * 2
    assert all(
        values in tried
        for values in (
            {"rank": r, "target_modules": t} for r in SPACE["rank"] for t in SPACE["target_modules"]
        )
    )


def test_an_ablation_changes_one_value_at_a_time() -> None:
    # The recipe itself, two other ranks, one other set of targets.
    assert first_places(SPACE, "one_at_a_time") == [
        {"rank": 0, "target_modules": 0},
        {"rank": 1, "target_modules": 0},
        {"rank": 2, "target_modules": 0},
        {"rank": 0, "target_modules": 1},
    ]


def test_a_sampled_search_begins_with_the_recipe_and_ends_after_its_trials(tmp_path: Path) -> None:
    search = open_search(tmp_path, num_trials=5, strategy="sampled")
    tried: list[dict[str, Any]] = []
    while (trial := search.ask()) is not None:
        tried.append(trial.values)
        search.tell(trial, float(trial.values["rank"]))
    assert tried[0] == {"rank": 4, "target_modules": ["all-linear"]}
    assert len(tried) == 5


def test_a_trial_above_the_median_of_the_earlier_ones_is_pruned_after_its_first_evaluation(
    tmp_path: Path,
) -> None:
    search = open_search(tmp_path)
    for losses in ([1.0, 0.5, 0.25], [1.0, 0.75, 0.5]):
        trial = search.ask()
        assert trial is not None
        assert not any(trial.report(ordinal, loss) for ordinal, loss in enumerate(losses))
        search.tell(trial, losses[-1])
    # Median of 0.5 and 0.75 at the second evaluation: 0.625.
    worse, better = search.ask(), search.ask()
    assert worse is not None
    assert better is not None
    assert not worse.report(0, 9.0)
    assert worse.report(1, 0.63)
    assert not better.report(0, 9.0)
    assert not better.report(1, 0.62)
    search.tell(worse, None, pruned=True)
    assert [state for _, _, _, state in search.closed()] == ["complete", "complete", "pruned"]


def test_without_pruning_every_trial_goes_on(tmp_path: Path) -> None:
    search = open_search(tmp_path, prune=False)
    for _ in range(2):
        trial = search.ask()
        assert trial is not None
        trial.report(1, 0.1)
        search.tell(trial, 0.1)
    trial = search.ask()
    assert trial is not None
    assert not trial.report(1, 99.0)


def test_a_search_that_is_opened_again_goes_on_with_its_unfinished_trial(tmp_path: Path) -> None:
    first = open_search(tmp_path)
    done = first.ask()
    assert done is not None
    done.set_run("run-a")
    first.tell(done, 0.5)
    begun = first.ask()
    assert begun is not None
    begun.set_run("run-b")
    begun.report(0, 0.9)
    second = open_search(tmp_path)
    (again,) = second.unfinished()
    assert (again.run_id, again.values) == ("run-b", begun.values)
    again.report(0, 0.9)
    second.tell(again, 0.4)
    num_more = 0
    while (trial := second.ask()) is not None:
        second.tell(trial, 1.0)
        num_more += 1
    assert num_more == 4  # 6 in all
    assert [run_id for run_id, *_ in second.closed()][:2] == ["run-a", "run-b"]


def test_values_that_come_twice_are_found_with_their_loss(tmp_path: Path) -> None:
    search = open_search(tmp_path)
    trial = search.ask()
    assert trial is not None
    trial.set_run("run-a")
    search.tell(trial, 0.5)
    assert search.find_equal(trial) == ("run-a", 0.5)


def test_the_turning_rate_is_that_of_the_lowest_loss() -> None:
    # V shape: down by 0.1 a step to step 20, then up; smoothing over 5 points is symmetric, so the place stays.
    points = [(i * 1e-4, 3.0 - 0.1 * i if i <= 20 else 1.0 + 0.1 * (i - 20)) for i in range(1, 51)]
    turning, has_turned, smoothed = find_turn(points)
    assert turning == pytest.approx(20e-4)
    assert has_turned
    assert len(smoothed) == 50


def test_a_loss_that_only_falls_has_not_turned() -> None:
    turning, has_turned, _ = find_turn([(i * 1e-4, 3.0 - 0.01 * i) for i in range(1, 51)])
    assert (turning, has_turned) == (pytest.approx(50e-4), False)


def test_a_loss_that_stops_being_a_number_has_turned_before() -> None:
    points = [(i * 1e-4, 3.0 - 0.01 * i) for i in range(1, 41)] + [
        (i * 1e-4, float("nan")) for i in range(41, 51)
    ]
    turning, has_turned, _ = find_turn(points)
    assert has_turned
    assert 35e-4 <= turning <= 40e-4


def test_trials_are_told_apart_by_the_lowest_loss_of_each_because_its_weights_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "validation.jsonl").touch()
    curves = {4: [0.9, 0.5, 0.8], 8: [0.9, 0.7, 0.6]}
    reported: dict[int, list[float]] = {4: [], 8: []}

    def follow(run: Run, on_evaluation: Callable[[int, Point], bool]) -> str:
        rank = read_json(run.path / "request.json")["recipe"]["rank"]
        for ordinal, loss in enumerate(curves[rank]):
            run.log_metrics(step=ordinal + 1, eval_loss=loss)
            assert on_evaluation(ordinal, (ordinal + 1, loss))
            reported[rank].append(loss)
        run.finish({})
        return "succeeded"

    monkeypatch.setattr(tune, "follow_trial", follow)
    result = TRAIN_TUNE.call({"data": "rows", "search": {"rank": [4, 8]}})
    assert [(trial.values["rank"], trial.eval_loss) for trial in result.trials] == [(4, 0.5), (8, 0.6)]
    assert result.best_run_id == result.trials[0].run_id
    assert result.trials[1].difference == pytest.approx(0.1)
    assert reported == curves  # pruning still sees every evaluation


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"no_such_field": [1]}, "'no_such_field' is not a field"),
        ({"rank": []}, "no values to try"),
        ({"rank": [0]}, "does not make a recipe"),
    ],
)
def test_a_search_that_makes_no_recipe_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: dict[str, list[Any]], words: str
) -> None:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    with pytest.raises(InvalidInputError, match=words):
        TRAIN_TUNE.call({"data": "rows", "search": search})


def test_rows_without_a_validation_file_cannot_be_tuned_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    (tmp_path / "rows").mkdir()
    with pytest.raises(InvalidInputError, match=r"no validation\.jsonl"):
        TRAIN_TUNE.call({"data": "rows"})


def test_a_recipe_that_is_none_is_refused_with_its_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"recipe: .*rank: Input should be greater than"):
        TRAIN_TUNE.parse({"data": "rows", "recipe": {"rank": 0}})
