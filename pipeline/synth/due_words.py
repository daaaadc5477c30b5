"""Date expressions as users write them, for a given today; all of them are in the policy of ``task_api.due_dates``."""

import calendar
import random
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

_ON_BY = ("on", "by")
_BY = ("by",)
_NONE = ("",)
_NONE_BY = ("", "by")
_COUNTS = ("two", "three", "four", "five", "six", "2", "3", "4", "5", "6", "8", "10", "12")
_DAY_COUNTS = (*_COUNTS, "7", "9", "14", "15", "20", "30")
_TIMES_OF_DAY = ("morning", "afternoon", "evening", "night")


class DueWord(NamedTuple):
    """One date expression."""

    value: str
    """What becomes the argument."""
    prepositions: Sequence[str] = _ON_BY
    """What may stand before it in a sentence; empty text where it needs none."""
    nominal: bool = True
    """Fits behind "by", "due", "deadline:" as well."""
    distant: bool = True
    """Later than today in its very meaning, so that it makes sense in "due before ...". """


_Form = Callable[[random.Random, date], DueWord]


def draw_due(rng: random.Random, today: date, *, distant: bool = False) -> str:
    """Return an expression for the slot ``{due}``; ``distant`` leaves out today's own names."""
    while True:
        word = draw_word(rng, today)
        if word.nominal and (word.distant or not distant):
            return word.value


def draw_when(rng: random.Random, today: date, *, distant: bool = False) -> tuple[str, str]:
    """Return (preposition or empty, expression) for the slot ``{when}``."""
    while True:
        word = draw_word(rng, today)
        if word.distant or not distant:
            return rng.choice(word.prepositions), word.value


def draw_impossible(rng: random.Random, today: date) -> str:
    """Return an expression that the Task API refuses: past, or no real date."""
    past = today - timedelta(days=rng.randint(2, 300))
    return rng.choice(
        [
            past.isoformat(),
            f"{calendar.month_name[past.month]} {past.day}, {past.year}",
            "yesterday",
            f"{past.month}/{past.day}/{past.year}",
            rng.choice(["November", "April", "June", "September"]) + " 31",
            f"February {rng.choice([30, 31])}",
            f"{today.year + 1}-02-{rng.choice([29, 30]) if not calendar.isleap(today.year + 1) else 30}",
            f"the {rng.choice(['32nd', '35th', '40th'])}",
        ]
    )


def draw_word(rng: random.Random, today: date) -> DueWord:
    """Return any expression, in the shares of everyday use."""
    forms, weights = zip(*_FORMS, strict=True)
    return rng.choices(forms, weights)[0](rng, today)


def _weekday(rng: random.Random) -> str:
    return calendar.day_name[rng.randrange(7)]


def _workday(rng: random.Random) -> str:
    return calendar.day_name[rng.randrange(5)]


def _month(rng: random.Random) -> str:
    return calendar.month_name[rng.randint(1, 12)]


def _nth(day: int) -> str:
    suffix = "th" if 10 < day % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


def _future(rng: random.Random, today: date) -> date:
    return today + timedelta(days=rng.choice([rng.randint(1, 30), rng.randint(1, 30), rng.randint(31, 200)]))


def _month_day(rng: random.Random, _: date) -> DueWord:
    month, day = rng.randint(1, 12), rng.randint(1, 28)
    name = calendar.month_name[month]
    short = calendar.month_abbr[month]
    texts = [
        f"{name} {day}",
        f"{name} {day}",
        f"{name} {_nth(day)}",
        f"{day} {name}",
        f"the {_nth(day)} of {name}",
    ]
    return DueWord(rng.choice([*texts, f"{short} {day}", f"{short} {_nth(day)}"]))


def _full_date(rng: random.Random, today: date) -> DueWord:
    day = _future(rng, today)
    name = calendar.month_name[day.month]
    return DueWord(rng.choice([f"{name} {day.day}, {day.year}", f"{day.day} {name} {day.year}"]))


def _weekday_and_date(rng: random.Random, today: date) -> DueWord:
    day = _future(rng, today)
    return DueWord(f"{calendar.day_name[day.weekday()]}, {calendar.month_name[day.month]} {day.day}")


def _slash_date(rng: random.Random, today: date) -> DueWord:
    day = _future(rng, today)
    return DueWord(rng.choice([f"{day.month}/{day.day}/{day.year}", f"{day.month}/{day.day}"]))


def _time_of_day(rng: random.Random, _: date) -> DueWord:
    time = rng.choice(_TIMES_OF_DAY)
    return rng.choice([DueWord(f"tomorrow {time}", _NONE_BY), DueWord(f"{_weekday(rng)} {time}")])


def _one_of(words: Sequence[str], prepositions: Sequence[str], *, distant: bool = True) -> _Form:
    return lambda rng, _: DueWord(rng.choice(words), prepositions, distant=distant)


_FORMS: tuple[tuple[_Form, float], ...] = (
    (lambda rng, _: DueWord(_weekday(rng)), 9),
    (lambda rng, _: DueWord(f"next {_weekday(rng)}", _NONE_BY), 5),
    (lambda rng, _: DueWord(f"this {_weekday(rng)}", _NONE_BY), 3),
    (lambda rng, _: DueWord(_weekday(rng)[:3]), 1),
    (lambda rng, _: DueWord(f"{_workday(rng)} next week", ("", "on", "by")), 1),
    (_one_of(["tomorrow"], _NONE_BY), 7),
    (_one_of(["the day after tomorrow"], _NONE_BY), 1.5),
    (_one_of(["today"], _NONE_BY, distant=False), 3),
    (_one_of(["tonight"], _NONE_BY, distant=False), 2),
    (_one_of(["EOD", "end of day", "the end of the day"], _BY, distant=False), 1.5),
    (lambda rng, _: DueWord(f"in {rng.choice(_DAY_COUNTS)} days", _NONE, nominal=False), 4),
    (lambda rng, _: DueWord(f"in {rng.choice(_COUNTS)} weeks", _NONE, nominal=False), 2.5),
    (lambda rng, _: DueWord(f"in {rng.choice(_COUNTS[:9])} months", _NONE, nominal=False), 1),
    (
        lambda rng, _: DueWord(
            f"in a {rng.choice(['week', 'month', 'year', 'fortnight'])}", _NONE, nominal=False
        ),
        2,
    ),
    (lambda rng, _: DueWord(f"{rng.choice(_DAY_COUNTS)} days from now", _NONE), 1),
    (lambda rng, _: DueWord(f"{rng.choice(['a week', 'two weeks'])} from {_workday(rng)}", _NONE), 1.5),
    (lambda rng, _: DueWord(f"a week from {rng.choice(['today', 'tomorrow', 'now'])}", _NONE), 1),
    (_one_of(["next week"], _NONE), 5),
    (_one_of(["the week after next", "the beginning of next week", "the end of next week"], _BY), 1.5),
    (_one_of(["this weekend"], _NONE_BY), 3),
    (_one_of(["next weekend"], _NONE_BY), 1.5),
    (_one_of(["the end of the week", "end of the week", "the end of this week", "EOW"], _BY), 3.5),
    (_one_of(["the end of the month", "end of the month", "end of month", "EOM"], _BY), 4.5),
    (_one_of(["the end of next month", "end of next month"], _BY), 1),
    (lambda rng, _: DueWord(f"{rng.choice(['the end of', 'end of'])} {_month(rng)}", _BY), 1.5),
    (_one_of(["the end of the quarter", "end of the quarter", "EOQ"], _BY), 1),
    (_one_of(["the end of the year", "end of the year", "end of year", "EOY"], _BY), 1.5),
    (_one_of(["next month"], _NONE_BY), 2.5),
    (lambda rng, _: DueWord(f"the {_nth(rng.randint(1, 28))}"), 6),
    (lambda rng, _: DueWord(f"the {_nth(rng.randint(1, 28))} of next month"), 1),
    (lambda rng, _: DueWord(f"mid-{_month(rng)}", _BY), 0.7),
    (_month_day, 9),
    (_full_date, 3),
    (_weekday_and_date, 1.2),
    (lambda rng, today: DueWord(_future(rng, today).isoformat()), 7),
    (_slash_date, 3.5),
    (_time_of_day, 2),
)
