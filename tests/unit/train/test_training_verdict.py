"""Verdicts on curves made by hand: the expected one follows from the formula of the curve."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.curve import Curve, Point
from pipeline.train.recipe import TrainRecipe
from pipeline.train.verdict import Diagnosis, judge, summarise

RECIPE = TrainRecipe(learning_rate=2e-4)


def curve(train: list[Point], evaluation: list[Point] | None = None, **changes: Any) -> Curve:
    values: dict[str, Any] = {
        "train": train,
        "evaluation": evaluation or [],
        "learning_rate": [(step, 2e-4) for step, _ in train],
        "gradient_norm": [(step, 1.0) for step, _ in train],
        "num_steps": train[-1][0] if train else None,
        "seconds": 10.0,
    }
    return Curve(**{**values, **changes})


def verdict(
    found: Curve, outcome: dict[str, Any] | None = None, error: dict[str, Any] | None = None
) -> Diagnosis:
    return judge(found, RECIPE, outcome or {}, error or {})


def falling(time_constant: float, num: int = 100, floor: float = 0.1) -> list[Point]:
    """The curve floor + e^(-t / T), t from 0 to 1."""
    return [(i + 1, floor + math.exp(-(i / (num - 1)) / time_constant)) for i in range(num)]


def test_a_curve_that_has_flattened_is_healthy() -> None:
    # T = 0.2: e^-3.75 - e^-5 = 0.0168 of a fall of 0.9933, so 1.7 % of the fall is in the last quarter.
    evaluation = [(20, 0.5), (40, 0.3), (60, 0.24), (80, 0.22), (100, 0.215)]
    assert verdict(curve(falling(0.2), evaluation)).verdict == "healthy"


def test_a_straight_fall_is_under_fit() -> None:
    # A straight line has a quarter of its fall in the last quarter.
    line = [(i, 2.0 - i / 100) for i in range(1, 101)]
    assert verdict(curve(line)).verdict == "under-fit"
    assert summarise(line).last_quarter_share == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("time_constant", "expected"),
    [(0.5, "healthy"), (1.2, "under-fit")],
    # (e^(-.75/T) - e^(-1/T)) / (1 - e^(-1/T)): 0.101 at T = 0.5 and 0.180 at T = 1.2; the limit is 0.15.
)
def test_the_limit_of_under_fit_lies_where_the_formula_says(time_constant: float, expected: str) -> None:
    assert verdict(curve(falling(time_constant))).verdict == expected


def test_a_cosine_schedule_does_not_make_an_unfinished_run_look_finished() -> None:
    # The loss falls by the same amount for the same summed learning rate, so a quarter of the fall is in its last
    # quarter. In steps the last quarter holds 2.5 %: the integral of (1 + cos pi t) / 2 from 0.75 to 1 over 0.5.
    num = 200
    rates = [(1 + math.cos(math.pi * i / num)) / 2 * 1e-3 for i in range(num)]
    losses = [10.0 - 4.0 * math.fsum(rates[: i + 1]) / math.fsum(rates) for i in range(num)]
    steps = range(1, num + 1)
    found = curve(list(zip(steps, losses, strict=True)), learning_rate=list(zip(steps, rates, strict=True)))
    assert verdict(found).verdict == "under-fit"
    by_steps = summarise(found.train).last_quarter_share
    assert by_steps == pytest.approx(0.025, abs=0.02)
    assert summarise(found.train, found.learning_rate).last_quarter_share == pytest.approx(
        0.25, abs=0.04
    )  # its ends are medians


def test_a_small_but_clear_fall_is_not_called_nothing() -> None:
    # From 10.8 to 10.4 in a straight line: 3.7 % of the loss, far above the noise, and it still falls.
    line = [(i, 10.8 - 0.4 * i / 40) for i in range(1, 41)]
    assert verdict(curve(line)).verdict == "under-fit"


def test_evaluation_loss_that_falls_as_fast_at_the_end_as_before_is_under_fit() -> None:
    evaluation = [
        (20, 1.0),
        (40, 0.9),
        (60, 0.8),
        (80, 0.7),
        (100, 0.6),
    ]  # each quarter of the fall: 0.1 of 0.4
    found = verdict(curve(falling(0.2), evaluation))
    assert found.verdict == "under-fit"
    assert "14%" in found.evidence[0]  # 1 - 0.6 / 0.7


def test_evaluation_loss_that_rises_while_training_loss_falls_is_over_fit() -> None:
    evaluation = [(20, 0.6), (40, 0.5), (60, 0.55), (80, 0.6), (100, 0.65)]
    found = verdict(curve(falling(0.3), evaluation))
    assert found.verdict == "over-fit"
    assert "+30%" in found.evidence[0]  # 0.65 / 0.5
    assert found.next_change.startswith("Stop at step 40 (num_epochs about 0.4)")


def test_a_rise_within_the_noise_of_evaluation_is_not_over_fit() -> None:
    evaluation = [(20, 0.6), (40, 0.52), (60, 0.50), (80, 0.5), (100, 0.51)]  # 2 % above the lowest
    assert verdict(curve(falling(0.2), evaluation)).verdict == "healthy"


def test_a_loss_that_turns_and_climbs_is_unstable() -> None:
    turned = [
        *((i, 2.0 - i * 0.03) for i in range(1, 51)),
        *((i, 0.5 + (i - 50) * 0.05) for i in range(51, 101)),
    ]
    found = verdict(curve(turned))
    assert found.verdict == "unstable"
    assert "learning_rate to 6.7e-05" in found.next_change  # 2e-4 / 3


def test_a_loss_that_is_not_a_number_is_unstable_whatever_came_before() -> None:
    points = [*falling(0.2)[:40], (41, math.nan)]
    found = verdict(curve(points))
    assert found.verdict == "unstable"
    assert "step 41" in found.evidence[0]


def test_one_bad_batch_is_no_divergence() -> None:
    points = falling(0.2)
    points[70] = (71, 1.5)
    assert verdict(curve(points)).verdict == "healthy"


def test_a_flat_noisy_loss_has_learned_nothing() -> None:
    points = [(i, 1.5 + 0.1 * (-1) ** i) for i in range(1, 101)]
    found = verdict(curve(points, [(50, 1.50), (100, 1.49)]))
    assert found.verdict == "nothing learned"
    assert "learning_rate to 0.002" in found.next_change


def test_a_living_run_is_not_blamed_for_what_the_end_may_bring() -> None:
    line = [(i, 2.0 - i / 100) for i in range(1, 41)]
    assert verdict(curve(line, num_steps=100)).verdict == "healthy"
    flat = [(i, 1.5) for i in range(1, 21)]  # within warm-up
    assert verdict(curve(flat, num_steps=100)).verdict == "healthy"


def test_seven_losses_are_too_few() -> None:
    ended = verdict(curve(falling(0.2, num=7)))
    assert (ended.verdict, ended.next_change.startswith("Train for more steps")) == ("too early", True)
    assert verdict(curve(falling(0.2, num=7), num_steps=50)).next_change.startswith("Wait")
    assert verdict(curve([])).verdict == "too early"


@pytest.mark.parametrize(
    ("points", "outcome", "words"),
    [
        ([(i, 1e-4) for i in range(1, 30)], {}, "in the prompts"),
        (falling(0.2), {"num_tokens": 1000, "num_trained_tokens": 4}, "0.40%"),
        (falling(0.2), {"num_rows": 40, "num_rows_too_long": 60}, "60 of 100 rows"),
    ],
)
def test_a_data_problem_is_found_before_the_shape_is_judged(
    points: list[Point], outcome: dict[str, Any], words: str
) -> None:
    found = verdict(curve(points), outcome)
    assert found.verdict == "data problem"
    assert words in " ".join(found.evidence)


def test_a_zero_gradient_is_a_data_problem_not_a_low_learning_rate() -> None:
    flat = [(i, 1.5) for i in range(1, 101)]
    zero = [(i, 0.0) for i in range(1, 101)]
    assert verdict(curve(flat, gradient_norm=zero)).verdict == "data problem"


def test_refused_rows_are_a_data_problem_with_the_hint_of_the_refusal() -> None:
    error = {"code": "invalid_input", "message": "row 3 has no assistant turn", "hint": "Mend row 3."}
    found = verdict(curve([]), error=error)
    assert (found.verdict, found.next_change) == ("data problem", "Mend row 3.")


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=60), st.lists(st.floats(0, 1e6), max_size=8))
def test_every_finite_curve_gets_a_verdict_with_evidence(
    losses: list[float], evaluations: list[float]
) -> None:
    train = list(enumerate(losses, start=1))
    found = verdict(curve(train, list(enumerate(evaluations, start=1))))
    assert found.evidence
    assert found.next_change
