"""Dividing a batch by shared prefixes: every row begins with its prefix, and the padded work never grows."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.prefix_groups import MIN_PREFIX_TOKENS, plan_prefixes


def test_rows_of_two_tool_sets_get_two_prefixes() -> None:
    first, second = list(range(100, 140)), list(range(200, 230))
    rows = [[*first, 1, 2], [*second, 3], [*first, 4], [*second, 5, 6]]
    plan = plan_prefixes(rows, [40, 30, 40, 30])
    assert plan is not None
    assert sorted(plan.prefixes) == [tuple(first), tuple(second)]
    assert plan.prefix_lengths == (40, 30, 40, 30)
    assert [plan.prefixes[index] for index in plan.prefix_of_row] == [tuple(p) for p in (first, second) * 2]


def test_a_header_that_all_share_does_not_hide_the_longer_prefixes_of_groups() -> None:
    header = list(range(20))
    rows = [[*header, *[tool] * 30, number] for tool in (50, 60) for number in (1, 2, 3)]
    plan = plan_prefixes(rows, [50] * 6)
    assert plan is not None
    # One prefix of 20 would save 5 x 20 = 100 tokens; two of 50 save 2 x 2 x 50 = 200.
    assert {len(prefix) for prefix in plan.prefixes} == {50}


def test_rows_that_differ_at_once_share_nothing() -> None:
    assert plan_prefixes([[1, *range(30)], [2, *range(30)]], [30, 30]) is None


def test_a_short_common_header_is_not_worth_a_pass() -> None:
    header = list(range(MIN_PREFIX_TOKENS - 1))
    assert plan_prefixes([[*header, 90], [*header, 91]], [15, 15]) is None


def test_a_prefix_stops_where_a_row_begins_to_predict() -> None:
    row = list(range(60))
    plan = plan_prefixes([[*row, 1], [*row, 2]], [50, 20])
    assert plan is not None
    assert plan.prefix_lengths == (20, 20)


_ROW = st.tuples(st.integers(0, 3), st.integers(0, 40), st.lists(st.integers(0, 2), min_size=2, max_size=30))


@given(st.lists(_ROW, min_size=1, max_size=12), st.integers(1, 60))
def test_prefixes_are_true_within_limits_and_save_work(
    shapes: list[tuple[int, int, list[int]]], limit: int
) -> None:
    rows = [[tool] * length + rest for tool, length, rest in shapes]
    limits = [min(limit, len(row) - 1) for row in rows]
    plan = plan_prefixes(rows, limits)
    if plan is None:
        return
    for row, index, length, most in zip(rows, plan.prefix_of_row, plan.prefix_lengths, limits, strict=True):
        assert length <= most
        assert tuple(row[:length]) == plan.prefixes[index][:length]
    rest = max(len(row) - length for row, length in zip(rows, plan.prefix_lengths, strict=True))
    work = len(plan.prefixes) * max(len(prefix) for prefix in plan.prefixes) + len(rows) * rest
    assert work < len(rows) * max(len(row) for row in rows)
