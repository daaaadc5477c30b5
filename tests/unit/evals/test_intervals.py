import pytest

from pipeline.evals.intervals import Rate, cluster_bootstrap, mcnemar_exact, percentile, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (48, 50, 0.865, 0.989),
        (50, 50, 0.929, 1.0),
        (0, 10, 0.0, 0.2775),  # upper = (z^2/n) / (1 + z^2/n) = 0.38415 / 1.38415
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
        (1, 29, 0.0061, 0.1718),  # the same table
    ],
)
def test_wilson_intervals_equal_published_values(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-4)


def test_a_rate_over_nothing_is_unknown() -> None:
    assert wilson(0, 0) == (None, None)
    rate = Rate.of(())
    assert (rate.rate, rate.low, rate.high, rate.right, rate.total) == (None, None, None, 0, 0)
    assert str(rate) == "- (0/0)"


def test_a_rate_is_printed_with_interval_and_counts() -> None:
    assert str(Rate.of([True] * 48 + [False] * 2)) == "0.960 [0.865, 0.989] (48/50)"


def test_mcnemar_p_values_equal_hand_computed_binomial_tails() -> None:
    assert mcnemar_exact(1, 9) == 2 * (1 + 10) / 1024
    assert mcnemar_exact(9, 1) == mcnemar_exact(1, 9)
    assert mcnemar_exact(0, 5) == 2 / 32
    assert mcnemar_exact(5, 5) == 1.0
    assert mcnemar_exact(0, 0) == 1.0


def test_rows_of_one_formulation_do_not_count_as_independent() -> None:
    # Two formulations, one always right, one always wrong: a resample has mean 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    found = cluster_bootstrap({"a": [1.0] * 50, "b": [0.0] * 50}, seed=0)
    assert found is not None
    assert (found.value, found.low, found.high, found.num_clusters) == (0.5, 0.0, 1.0, 2)
    low, high = wilson(50, 100)
    assert low is not None
    assert high is not None
    assert low > 0.4
    assert high < 0.6


def test_a_bootstrap_of_single_rows_is_close_to_wilson() -> None:
    found = cluster_bootstrap({str(i): [float(i < 80)] for i in range(100)}, seed=3)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(wilson(80, 100), abs=0.03)


def test_a_bootstrap_is_reproducible_and_needs_two_clusters() -> None:
    clusters = {str(i): [float(i % 3 > 0), 1.0] for i in range(30)}
    assert cluster_bootstrap(clusters, seed=7) == cluster_bootstrap(clusters, seed=7)
    alone = cluster_bootstrap({"only": [1.0, 0.0]}, seed=0)
    assert alone is not None
    assert (alone.value, alone.low, alone.high) == (0.5, None, None)
    assert cluster_bootstrap({}, seed=0) is None


def test_percentiles_are_observed_values() -> None:
    values = [float(v) for v in range(20, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile([5.0], 0.95)) == (10.0, 19.0, 5.0)
    assert percentile([], 0.5) is None
