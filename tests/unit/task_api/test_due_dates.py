"""Expected days are counted by hand on a calendar of 2026; today is Wednesday 2026-03-11."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.task_api.due_dates import resolve_due_date
from pipeline.task_api.errors import DueDateError, InvalidDueDateError, PastDueDateError

TODAY = date(2026, 3, 11)

POLICY = {
    "2026-03-20": "2026-03-20",
    "2026-03-20T17:00:00Z": "2026-03-20",
    "2026-3-11": "2026-03-11",
    "today": "2026-03-11",
    "tonight": "2026-03-11",
    "this afternoon": "2026-03-11",
    "EOD": "2026-03-11",
    "end of the day": "2026-03-11",
    "tomorrow": "2026-03-12",
    "the day after tomorrow": "2026-03-13",
    "Friday": "2026-03-13",
    "Wednesday": "2026-03-18",
    "wed": "2026-03-18",
    "Thurs": "2026-03-12",
    "the coming Monday": "2026-03-16",
    "this Friday": "2026-03-13",
    "this Wednesday": "2026-03-11",
    "next Friday": "2026-03-20",
    "next Thursday": "2026-03-19",
    "Monday next week": "2026-03-16",
    "next week Tuesday": "2026-03-17",
    "in 3 days": "2026-03-14",
    "in two weeks": "2026-03-25",
    "in a month": "2026-04-11",
    "in a year": "2027-03-11",
    "in a fortnight": "2026-03-25",
    "in a couple of days": "2026-03-13",
    "10 days from now": "2026-03-21",
    "a week from Monday": "2026-03-23",
    "two weeks from tomorrow": "2026-03-26",
    "a week from the 15th": "2026-03-22",
    "next week": "2026-03-16",
    "the beginning of next week": "2026-03-16",
    "the week after next": "2026-03-23",
    "this week": "2026-03-13",
    "the end of the week": "2026-03-13",
    "EOW": "2026-03-13",
    "end of next week": "2026-03-20",
    "this weekend": "2026-03-14",
    "the weekend": "2026-03-14",
    "next weekend": "2026-03-21",
    "the end of the month": "2026-03-31",
    "end of month": "2026-03-31",
    "EOM": "2026-03-31",
    "end of next month": "2026-04-30",
    "the end of April": "2026-04-30",
    "end of February": "2027-02-28",
    "end of the quarter": "2026-03-31",
    "the end of the year": "2026-12-31",
    "EOY": "2026-12-31",
    "next month": "2026-04-01",
    "next year": "2027-01-01",
    "the 15th": "2026-03-15",
    "the 11th": "2026-04-11",
    "the 3rd": "2026-04-03",
    "the 15th of next month": "2026-04-15",
    "the 2nd of the month": "2026-04-02",
    "the middle of the month": "2026-03-15",
    "mid-June": "2026-06-15",
    "March 20": "2026-03-20",
    "March 11": "2026-03-11",
    "Mar 20th": "2026-03-20",
    "20 March": "2026-03-20",
    "the 20th of March": "2026-03-20",
    "March 10": "2027-03-10",
    "Feb 29": "2028-02-29",
    "March 20, 2026": "2026-03-20",
    "1 May 2027": "2027-05-01",
    "Friday, March 13": "2026-03-13",
    "3/20/2026": "2026-03-20",
    "3/20/26": "2026-03-20",
    "3/10": "2027-03-10",
    "by Friday": "2026-03-13",
    "due by  the end of the month.": "2026-03-31",
    "until MONDAY": "2026-03-16",
    "before next week": "2026-03-16",
    "Monday morning": "2026-03-16",
    "tomorrow at 5pm": "2026-03-12",
    "this Friday evening": "2026-03-13",
    "March 20 at 17:00": "2026-03-20",
}


@pytest.mark.parametrize(("words", "expected"), POLICY.items())
def test_words_mean_the_day_of_the_policy(words: str, expected: str) -> None:
    assert resolve_due_date(words, TODAY).isoformat() == expected


@pytest.mark.parametrize(
    ("words", "today", "expected"),
    [
        ("Friday", date(2026, 3, 13), date(2026, 3, 20)),  # said on a Friday
        ("this Friday", date(2026, 3, 13), date(2026, 3, 13)),
        ("this Friday", date(2026, 3, 14), date(2026, 3, 20)),
        ("next Friday", date(2026, 3, 15), date(2026, 3, 20)),  # a Sunday ends its week
        ("next week", date(2026, 3, 15), date(2026, 3, 16)),
        ("this weekend", date(2026, 3, 15), date(2026, 3, 15)),
        ("the 31st", date(2026, 3, 31), date(2026, 5, 31)),  # April has none
        ("in a month", date(2026, 1, 31), date(2026, 2, 28)),
        ("in 2 months", date(2026, 11, 30), date(2027, 1, 30)),
        ("next month", date(2026, 12, 31), date(2027, 1, 1)),
        ("end of the quarter", date(2026, 11, 5), date(2026, 12, 31)),
    ],
)
def test_edges_of_week_month_and_year(words: str, today: date, expected: date) -> None:
    assert resolve_due_date(words, today) == expected


@pytest.mark.parametrize(
    "words",
    ["November 31", "2026-02-30", "2026-13-01", "13/20/2026", "20/3", "the 32nd", "February 29, 2027", "the 0th",
     "Monday, March 13", "soon", "", "March", "in 999999 years", "15", "x" * 200],
)  # fmt: skip
def test_words_that_are_no_date_are_refused(words: str) -> None:
    with pytest.raises(InvalidDueDateError) as caught:
        resolve_due_date(words, TODAY)
    assert caught.value.code == "invalid_due_date"


def test_a_slash_date_with_the_day_first_is_told_about_the_order() -> None:
    with pytest.raises(InvalidDueDateError, match="month/day/year"):
        resolve_due_date("20/3/2026", TODAY)


@pytest.mark.parametrize("words", ["yesterday", "2026-03-10", "March 1, 2024", "3/10/2026", "last Friday"])
def test_past_dates_are_refused_under_their_own_code(words: str) -> None:
    with pytest.raises(PastDueDateError) as caught:
        resolve_due_date(words, TODAY)
    assert caught.value.code == "past_due_date"


def test_a_filter_may_name_a_past_date() -> None:
    assert resolve_due_date("2026-01-01", TODAY, allow_past=True) == date(2026, 1, 1)


_GLUE = "of,from,in,on,by,the,this,next,last,end,start,mid,day,days,week,weeks,month,months,year,a,an,two,0,3,99,9999"
_DAYS = "31st,29,30,Friday,Mon,Feb,February,Nov,2026,2026-02-29,2/29,13/1,11/31/2027,tomorrow,weekend,quarter,5pm,.,-"
_PIECES = st.sampled_from([*_GLUE.split(","), *_DAYS.split(",")])


@given(
    words=st.text(max_size=40) | st.lists(_PIECES, max_size=7).map(" ".join) | st.sampled_from(list(POLICY)),
    today=st.dates(),
)
def test_any_text_on_any_day_gives_no_past_date_and_no_other_error(words: str, today: date) -> None:
    try:
        found = resolve_due_date(words, today)
    except DueDateError:
        return
    assert found >= today
