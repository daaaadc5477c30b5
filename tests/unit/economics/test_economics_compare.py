"""economics.compare: the lesson's example, real token prices, hidden costs, and what is refused.

Expected values are hand arithmetic; each is written out where it is used.
"""

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.core.errors import InvalidInputError
from pipeline.core.prices import ModelPrice, find_price, find_price_warnings, read_prices
from pipeline.economics.compare import ECONOMICS_COMPARE, EconomicsCompareResult, judge_payback
from pipeline.economics.cost import Costs

LESSON: dict[str, Any] = {
    "requests_per_day": 10_000,
    "api_usd_per_request": 0.003,
    "serving_usd_per_month": 300,
    "training_usd": 200,
}
REAL_PRICE: dict[str, Any] = {
    "requests_per_day": 10_000,
    "api_model": "gpt-4o-mini",
    "input_tokens": 500,
    "output_tokens": 500,
    "serving_usd_per_month": 300,
    "training_usd": 200,
}
ROW: dict[str, Any] = {
    "model": "house-api",
    "input_usd": 2.0,
    "cached_input_usd": 0.5,
    "output_usd": 8.0,
    "as_of": "2026-11-01",
    "source": "contract",
}


def compare(base: dict[str, Any], **changes: Any) -> EconomicsCompareResult:
    return ECONOMICS_COMPARE.call({**base, **changes})


def test_the_lesson_s_example_breaks_even_after_100000_requests_which_is_10_days_and_a_third_of_a_month() -> (
    None
):
    result = compare(LESSON)
    # 200 / (0.003 - 300/300,000) = 200 / 0.002; 200 / (900 - 300)
    assert result.break_even_requests == 100_000
    assert result.break_even_days == 10
    assert result.payback_months == pytest.approx(1 / 3, abs=1e-4)
    direct = result.cases[0]
    assert (direct.api_usd, direct.own_usd, direct.saving_usd) == (900, 300, 600)
    assert direct.min_requests_per_month == 100_000  # 300 / 0.003
    assert any("guessed price" in warning for warning in result.warnings)


def test_three_months_would_need_a_setup_of_1800() -> None:
    assert compare(LESSON, training_usd=1800).payback_months == 3


def test_with_real_token_prices_the_same_volume_never_pays_back_and_that_is_a_normal_answer() -> None:
    result = compare(REAL_PRICE)
    # 500 x 0.15/1M + 500 x 0.60/1M = 0.000375; x 300,000 = 112.50 < 300
    assert result.api_usd_per_request == pytest.approx(0.000375)
    assert result.cases[0].api_usd == 112.50
    assert result.cases[0].saving_usd == -187.50
    assert result.cases[0].min_requests_per_month == 800_000  # 300 / 0.000375
    assert result.verdict == "never pays back"
    assert (result.payback_months, result.break_even_requests, result.break_even_days) == (None, None, None)
    assert result.is_negative() is False
    assert "Infinity" not in result.model_dump_json()


def test_cached_tokens_lower_the_price() -> None:
    base = {key: value for key, value in REAL_PRICE.items() if key != "api_model"} | {
        "api_model": "house-api",
        "prices": [ROW],
    }
    # 300 x 2/1M + 200 x 0.5/1M + 500 x 8/1M = 0.0006 + 0.0001 + 0.004
    assert compare(base, cached_input_tokens=200).api_usd_per_request == pytest.approx(0.0047)


def test_a_row_of_the_request_replaces_the_row_of_the_package() -> None:
    mine = {**ROW, "model": "gpt-4o-mini", "input_usd": 1.0, "output_usd": 1.0}
    result = compare(REAL_PRICE, prices=[mine])
    assert result.api_usd_per_request == pytest.approx(0.001)
    assert result.price is not None
    assert result.price.source == "contract"


def test_an_unknown_model_is_an_error_that_names_the_known_ones_and_never_free() -> None:
    with pytest.raises(InvalidInputError, match="no price is known for 'gpt-9'") as caught:
        compare(REAL_PRICE, api_model="gpt-9")
    assert "gpt-6-luna" in caught.value.hint


def test_every_shipped_price_is_dated_and_has_a_source() -> None:
    rows = read_prices()
    assert len({row.model for row in rows}) == len(rows) >= 5
    assert all(row.as_of <= date(2026, 11, 25) and len(row.source) > 10 for row in rows)
    mini = find_price("gpt-4o-mini", [])
    assert (mini.input_usd, mini.cached_input_usd, mini.output_usd) == (0.15, 0.075, 0.60)


def test_a_price_older_than_90_days_and_a_model_that_goes_away_are_warned_about() -> None:
    row = ModelPrice.model_validate({**ROW, "available_until": "2027-01-14"})
    assert len(find_price_warnings(row, date(2026, 11, 25))) == 1
    fresh, old = date(2027, 1, 30), date(2027, 1, 31)  # 90 and 91 days after 2026-11-01
    assert find_price_warnings(row, fresh) == [
        "house-api stopped being served on 2027-01-14: price its successor too"
    ]
    assert "was read 91 days ago (2026-11-01)" in find_price_warnings(row, old)[0]


def test_hidden_costs_and_repeated_training_are_counted_at_three_points() -> None:
    result = compare(LESSON, hourly_usd=10)
    # setup: 3 x 200 + (40 + 20 + 5) x 10; 6.5 x 200 + (70 + 30 + 12.5) x 10; 10 x 200 + (100 + 40 + 20) x 10
    assert [case.setup_usd for case in result.cases] == [200, 1250, 2425, 3600]
    # saving: 900 - 300 - maintenance of 0, 5, 7.5, 10 hours
    assert [case.saving_usd for case in result.cases] == [600, 550, 525, 500]
    assert result.cases[2].payback_months == pytest.approx(2425 / 525, abs=1e-4)
    assert result.verdict == "pays back"
    assert result.payback_months == pytest.approx(1 / 3, abs=1e-4)  # the formula itself is not moved


def test_without_an_hourly_rate_the_hours_are_reported_as_not_priced() -> None:
    assert any(
        "112.5 hours before the start and 7.5 a month" in warning for warning in compare(LESSON).warnings
    )


def test_a_rented_gpu_is_paid_for_the_hours_it_is_on_and_added_when_the_requests_need_it() -> None:
    base = {key: value for key, value in LESSON.items() if key != "serving_usd_per_month"}
    gpu = {"usd_per_hour": 0.5, "requests_per_second": 0.1, "utilisation": 0.5}
    # one GPU serves 0.1 x 0.5 x 86,400 = 4,320 a day, so 10,000 need 3; 3 x 0.5 x 24 x 30 = 1,080
    result = compare(base, rented_gpu=gpu)
    assert (result.num_gpus, result.cases[0].own_usd) == (3, 1080)
    # a GPU earns 4,320 x 30 x 0.003 = 388.80 and costs 360, so one GPU pays from 360 / 0.003 requests
    assert result.cases[0].min_requests_per_month == 120_000
    # at half the API price it earns 194.40 and never pays, at any volume
    assert compare(base, rented_gpu=gpu, api_usd_per_request=0.0015).cases[0].min_requests_per_month is None


def test_own_hardware_is_spread_over_its_life_and_uses_power() -> None:
    base = {key: value for key, value in LESSON.items() if key != "serving_usd_per_month"}
    machine = {"purchase_usd": 3600, "lifetime_months": 36, "watts": 250, "usd_per_kwh": 0.2}
    # 3600 / 36 + 0.25 kW x 24 h x 30 days x 0.2 = 100 + 36
    assert compare(base, own_hardware=machine).cases[0].own_usd == 136


@pytest.mark.parametrize(
    ("months", "verdict"),
    [
        (0, "pays back fast"),
        (3, "pays back fast"),
        (3.01, "pays back"),
        (12.01, "pays back late"),
        (None, "never pays back"),
    ],
)
def test_the_verdict_follows_the_payback(months: float | None, verdict: str) -> None:
    assert judge_payback(months) == verdict


def test_the_sensitivity_moves_one_input_at_a_time_and_puts_the_strongest_first() -> None:
    rows = {row.factor: row for row in compare(LESSON).sensitivity}
    requests = rows["requests_per_day"]
    # expected case: setup 6.5 x 200 = 1300; at 5,000 a day saving is 450 - 300, at 15,000 it is 1350 - 300
    assert (requests.low, requests.high) == (5000, 15_000)
    assert (requests.saving_low, requests.saving_high) == (150, 1050)
    assert requests.payback_low == pytest.approx(1300 / 150, abs=1e-4)
    assert requests.payback_high == pytest.approx(1300 / 1050, abs=1e-4)
    runs = rows["num_training_runs"]
    assert (runs.payback_low, runs.payback_high) == (1, pytest.approx(10 / 3, abs=1e-4))
    assert next(iter(rows)) == "requests_per_day"
    assert "data_hours" not in rows  # not priced, so it moves nothing


def test_an_input_that_turns_payback_into_never_comes_first() -> None:
    first = compare(LESSON, requests_per_day=5_000).sensitivity[0]
    assert (first.payback_low, first.saving_low) == (None, -75)  # 2,500 x 30 x 0.003 = 225 < 300


@given(
    requests=st.floats(1, 1e6),
    api=st.floats(1e-6, 1),
    serving=st.floats(0, 1e5),
    training=st.floats(0, 1e6),
)
def test_after_the_payback_time_both_ways_have_cost_the_same(
    requests: float, api: float, serving: float, training: float
) -> None:
    costs = Costs(
        requests_per_day=requests,
        api_usd_per_request=api,
        serving_usd_per_month=serving,
        training_usd=training,
    )
    months = costs.payback_months
    if months is None:
        assert costs.api_usd <= costs.serving_usd
    else:
        spent = training + months * costs.serving_usd
        assert math.isclose(months * costs.api_usd, spent, rel_tol=1e-6, abs_tol=1e-6)


@given(
    api=st.floats(1e-5, 1),
    serving=st.floats(1, 1e4),
    per_unit=st.floats(10, 1e5),
    num_units=st.integers(1, 4),
    maintenance=st.floats(0, 500),
)
def test_the_smallest_volume_that_pays_is_the_one_that_trying_units_finds(
    api: float, serving: float, per_unit: float, num_units: int, maintenance: float
) -> None:
    costs = Costs(
        requests_per_day=1,
        api_usd_per_request=api,
        serving_usd_per_month=serving,
        num_units=num_units,
        requests_per_unit_day=per_unit,
        training_usd=0,
        hourly_usd=maintenance,
        monthly_maintenance_hours=1,
    )
    volumes = [
        ((units * serving + maintenance) / api, units * per_unit * 30) for units in range(num_units, 500)
    ]
    assume(all(abs(needed - served) > 1e-6 * served for needed, served in volumes))
    paying = [needed for needed, served in volumes if needed <= served]
    found = costs.min_requests_per_month
    if paying:
        assert found == pytest.approx(paying[0], rel=1e-9, abs=1)
    else:
        assert found is None or found > volumes[-1][1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"requests_per_day": 0}, "requests_per_day: Input should be greater than 0"),
        ({"requests_per_day": -5}, "requests_per_day: Input should be greater than 0"),
        ({"requests_per_day": math.nan}, "requests_per_day: Input should be a finite number"),
        ({"api_usd_per_request": math.inf}, "api_usd_per_request: Input should be a finite number"),
        ({"api_usd_per_request": 0}, "api_usd_per_request: Input should be greater than 0"),
        ({"training_usd": -1}, "training_usd: Input should be greater than or equal to 0"),
        ({"serving_usd_per_month": math.nan}, "serving_usd_per_month: Input should be a finite number"),
        ({"input_tokens": 5}, "contradicts token counts"),
        ({"api_model": "gpt-4o-mini"}, "either api_model"),
        (
            {"own_hardware": {"purchase_usd": 1, "watts": 1, "usd_per_kwh": 1}},
            "exactly one of serving_usd_per_month",
        ),
        ({"serving_usd_per_month": None}, "exactly one of serving_usd_per_month"),
        (
            {"serving_usd_per_month": None, "rented_gpu": {"usd_per_hour": 1, "utilisation": 1.2}},
            "rented_gpu.utilisation: Input should be less than or equal to 1",
        ),
        (
            {"serving_usd_per_month": None, "rented_gpu": {"usd_per_hour": 1, "hours_per_day": 25}},
            "rented_gpu.hours_per_day: Input should be less than or equal to 24",
        ),
        (
            {"data_hours": [5, 3, 9]},
            "data_hours: Value error, must rise from low over expected to high, not 5, 3, 9",
        ),
        (
            {"num_training_runs": [0, 1, 1]},
            "num_training_runs must be 1 or more",
        ),
        ({"cost": 3}, "cost: Extra inputs are not permitted"),
    ],
)
def test_bad_input_names_the_field_and_the_range(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        compare(LESSON, **changes)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"input_tokens": -1}, "input_tokens: Input should be greater than or equal to 0"),
        ({"cached_input_tokens": 501}, "cached_input_tokens (501) must be from 0 to input_tokens (500)"),
        ({"input_tokens": 0, "output_tokens": 0}, "must be at least 1"),
        ({"output_tokens": None}, "api_model needs input_tokens and output_tokens"),
        ({"prices": [{**ROW, "input_usd": math.nan}]}, "prices.0.input_usd: Input should be a finite number"),
        ({"prices": [{**ROW, "output_usd": 0}]}, "prices.0.output_usd: Input should be greater than 0"),
    ],
)
def test_bad_tokens_and_prices_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        compare(REAL_PRICE, **changes)
    assert problem in str(caught.value)


def test_the_files_say_what_the_result_says(workspace: Path) -> None:
    result = compare(LESSON, out="money")
    folder = workspace / "money"
    stored = json.loads((folder / "economics.json").read_text(encoding="utf-8"))
    assert stored == json.loads(result.model_dump_json())
    table = (folder / "economics.md").read_text(encoding="utf-8")
    assert "| direct | 200.00 | 900.00 | 300.00 | 600.00 | 0.33 | 100,000 | 100,000 |" in table
    assert (folder / "tornado.png").read_bytes().startswith(b"\x89PNG")
