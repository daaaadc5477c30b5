"""Due dates in a user's words, resolved against a given day by this policy (nothing is guessed beyond it).

| words (case does not matter) | day |
| --- | --- |
| 2026-03-20, 2026-03-20T17:00 | that day |
| today, tonight, this morning/afternoon/evening, EOD, COB, end of (the) day | today |
| tomorrow, tmrw; (the) day after tomorrow | today + 1; + 2 |
| Friday, Fri, (the) coming Friday | the first Friday after today (never today) |
| this Friday | the first Friday from today on (today, when today is one) |
| next Friday, Friday next week, next week Friday | the Friday of the next ISO week (weeks start on Monday) |
| in 3 days, in two weeks, in a month, 3 days from now/today, in a couple of weeks, in a fortnight | added to today |
| a week from Monday, two weeks from tomorrow | added to that day |
| next week, start/beginning of next week; the week after next | Monday of that week |
| this week, end of the/this week, EOW; end of next week | the first Friday from today on; Friday of next week |
| this weekend, the weekend; next weekend | Saturday of this week (Sunday: today); of next week |
| end of the/this month, EOM; end of next month; end of March | last day of that month |
| end of the quarter, EOQ; end of the/this year, EOY | last day of it |
| next month, start of next month; next year | the first day of it |
| the 15th, 15th, the 15th of the month; of this month; of next month | the first 15th after today; of that month |
| middle of the month; mid-April, mid April | the 15th |
| March 20, Mar 20th, 20 March, the 20th of March | the first one from today on |
| March 20, 2026; 20 March 2026; 3/20/2026; 3/20/26; 3/20 | that day (US order: month first) |
| Friday, March 13 | that date, if it is a Friday; else refused |

A leading by, on, before, until, till, for, at, due, "no later than" is dropped. A time of day after the day
("Monday morning", "Friday at 5pm") is dropped too: tasks have dates only. A month without a day, other languages and
all other words are refused, as are dates that do not exist (November 31) and dates before today (yesterday).
When today is Friday 2026-03-13, "Friday" is 2026-03-20, "this Friday" 2026-03-13 and "next Friday" 2026-03-20.
"""

import calendar
import re
from collections.abc import Callable
from datetime import date, timedelta

from pipeline.task_api.errors import DueDateError, InvalidDueDateError, PastDueDateError

_HINT = "Give the date as YYYY-MM-DD, or as in 'tomorrow', 'Friday', 'next week', 'March 20'."
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = tuple(name.lower() for name in calendar.month_name)
NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_FRIDAY, _SATURDAY, _SUNDAY = 4, 5, 6

_DAY = r"(?P<weekday>mon(?:day)?|tue(?:s|sday)?|wed(?:nesday|s)?|thu(?:r|rs|rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_NTH = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,? (?P<year>[0-9]{4}))?"
_COUNT = rf"(?P<count>[0-9]{{1,6}}|an?(?: couple of)?|{'|'.join(NUMBERS)})"
_UNIT = r"(?P<unit>day|week|fortnight|month|year)s?"

_PREPOSITION = re.compile(r"^(?:due|by|on|before|until|till|for|at|no later than|not later than)\s+")
_TIME_OF_DAY = re.compile(
    r"[ ,]+(?:in the )?(?:at )?(?:early |late )?"
    r"(?:morning|noon|midday|lunchtime|afternoon|evening|night|midnight|eod|cob|[0-9]{1,2}(?::[0-9]{2})? ?[ap]\.?m\.?|[0-9]{1,2}:[0-9]{2})$"
)

_PARTS_OF_TODAY = ("this morning", "this afternoon", "this evening")
_MAX_CHARACTERS = 80

_Words = re.Match[str]


def resolve_due_date(text: str, today: date, *, allow_past: bool = False) -> date:
    """Return the day that the words mean, on or after ``today`` unless ``allow_past``.

    Raises:
        InvalidDueDateError: If the words are not in the policy, or the date does not exist.
        PastDueDateError: If the date lies before today.
    """
    if len(text) > _MAX_CHARACTERS:
        raise _invalid(text[:_MAX_CHARACTERS], "is too long for a date")
    words = _normalise(text)
    try:
        found = _resolve(words, today)
    except (OverflowError, ValueError) as error:  # the calendar's own refusal: day 31 of November, year 10000
        raise _invalid(text, "does not exist") from error
    if found is None:
        raise _invalid(text, "is not a date I know")
    if found < today and not allow_past:
        raise PastDueDateError(f"The date {text.strip()!r} is in the past ({found}).", hint=_HINT)
    return found


def _normalise(text: str) -> str:
    words = " ".join(text.lower().replace("\u2019", "'").split()).strip(" .,;!?")
    while (shorter := _PREPOSITION.sub("", words)) != words:
        words = shorter
    if words not in _PARTS_OF_TODAY:  # "this morning" is a day, "Monday morning" is Monday
        words = _TIME_OF_DAY.sub("", words)
    return words.removeprefix("the ")


def _resolve(words: str, today: date) -> date | None:
    for pattern, meaning in _POLICY:
        if match := pattern.fullmatch(words):
            return meaning(match, today)
    return None


def _invalid(text: str, reason: str) -> DueDateError:
    return InvalidDueDateError(f"The date {text.strip()!r} {reason}.", hint=_HINT)


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _first_weekday(weekday: int, start: date) -> date:
    return start + timedelta(days=(weekday - start.weekday()) % 7)


def _next_weekday(match: _Words, today: date) -> date:
    return _monday(today) + timedelta(days=7 + _weekday(match))


def _weekday(match: _Words) -> int:
    return next(i for i, name in enumerate(_WEEKDAYS) if name.startswith(match["weekday"][:3]))


def _month(match: _Words) -> int:
    return next(i for i, name in enumerate(_MONTHS) if name and name.startswith(match["month"][:3]))


def _add_months(day: date, count: int) -> date:
    """Return the same day of a later month, or that month's last day when it is shorter."""
    years, month = divmod(day.month - 1 + count, 12)
    return _in_month(day.year + years, month + 1, day.day)


def _in_month(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))


def _month_end(day: date) -> date:
    return _in_month(day.year, day.month, 31)


def _shift(match: _Words, start: date) -> date:
    text = match["count"]
    spelled = {"a": 1, "an": 1, "a couple of": 2} | {word: value for value, word in enumerate(NUMBERS)}
    count = spelled[text] if text in spelled else int(text)
    if match["unit"] in {"month", "year"}:
        return _add_months(start, count * (12 if match["unit"] == "year" else 1))
    return start + timedelta(days=count * {"day": 1, "week": 7, "fortnight": 14}[match["unit"]])


def _shift_from(match: _Words, today: date) -> date:
    start = _resolve(_normalise(match["start"]), today)
    if start is None:
        raise ValueError(match["start"])
    return _shift(match, start)


def _weekend(_: _Words, today: date) -> date:
    return today if today.weekday() == _SUNDAY else _first_weekday(_SATURDAY, today)


def _day_of_month(match: _Words, today: date) -> date:
    wanted = int(match["day"])
    if not 1 <= wanted <= 31:
        raise ValueError(wanted)
    month = today.replace(day=1)
    while True:
        if wanted <= _month_end(month).day and (found := month.replace(day=wanted)) > today:
            return found
        month = _add_months(month, 1)


def _day_of_named_month(match: _Words, today: date) -> date:
    if match["which"] == "the":
        return _day_of_month(match, today)
    return _add_months(today.replace(day=1), match["which"] == "next").replace(day=int(match["day"]))


def _month_and_day(match: _Words, today: date) -> date:
    found = _calendar_date(match, _month(match), today)
    named = match.groupdict().get("weekday")
    if named and found.weekday() != _weekday(match):
        raise InvalidDueDateError(f"The date {found} is a {_WEEKDAYS[found.weekday()].title()}.", hint=_HINT)
    return found


def _numeric_date(match: _Words, today: date) -> date:
    month = int(match["month"])
    if month > 12:
        message = f"The date {match[0]!r} has no month {month}; dates with slashes are month/day/year."
        raise InvalidDueDateError(message, hint=_HINT)
    return _calendar_date(match, month, today)


def _calendar_date(match: _Words, month: int, today: date) -> date:
    day = int(match["day"])
    if match["year"]:
        return date(int(match["year"]) + (2000 if len(match["year"]) == 2 else 0), month, day)
    date(2024, month, day)  # refuses what exists in no year; 2024 is a leap year
    candidates = (year for year in range(today.year, today.year + 9))
    real = (date(year, month, day) for year in candidates if day <= calendar.monthrange(year, month)[1])
    return next(found for found in real if found >= today)


def _month_named(match: _Words, today: date, day: int) -> date:
    month = _month(match)
    found = _in_month(today.year, month, day)
    return found if found >= today else _in_month(today.year + 1, month, day)


def _quarter_end(_: _Words, today: date) -> date:
    return _in_month(today.year, (today.month - 1) // 3 * 3 + 3, 31)


def _rule(
    pattern: str, meaning: Callable[[_Words, date], date]
) -> tuple[re.Pattern[str], Callable[[_Words, date], date]]:
    return re.compile(pattern), meaning


def _days(count: int) -> Callable[[_Words, date], date]:
    return lambda _, today: today + timedelta(days=count)


_START = r"(?:(?:the )?(?:start|beginning) of )?"
_END = r"end of (?:the |this )?"
_POLICY = (
    _rule(
        r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})(?:[t ][0-9:.]+z?)?",
        lambda m, _: date(int(m["year"]), int(m["month"]), int(m["day"])),
    ),
    _rule(
        rf"today|tonight|{'|'.join(_PARTS_OF_TODAY)}|eod|cob|close of business|end of (?:the )?(?:day|today)",
        _days(0),
    ),
    _rule(r"tomorrow|tmrw|tmr|end of tomorrow", _days(1)),
    _rule(r"day after tomorrow", _days(2)),
    _rule(r"yesterday", _days(-1)),
    _rule(rf"(?:coming )?{_DAY}", lambda m, today: _first_weekday(_weekday(m), today + timedelta(days=1))),
    _rule(rf"this (?:coming )?{_DAY}", lambda m, today: _first_weekday(_weekday(m), today)),
    _rule(rf"next {_DAY}", _next_weekday),
    _rule(rf"{_DAY} (?:of )?next week", _next_weekday),
    _rule(rf"next week,? (?:on )?{_DAY}", _next_weekday),
    _rule(rf"last {_DAY}", lambda m, today: _first_weekday(_weekday(m), today - timedelta(days=7))),
    _rule(rf"in {_COUNT} {_UNIT}", _shift),
    _rule(rf"{_COUNT} {_UNIT} from (?:now|today)", _shift),
    _rule(rf"{_COUNT} {_UNIT} (?:from|after) (?P<start>.+)", _shift_from),
    _rule(rf"{_START}next week", lambda _, today: _monday(today) + timedelta(days=7)),
    _rule(r"week after next", lambda _, today: _monday(today) + timedelta(days=14)),
    _rule(rf"this week|{_END}week|eow", lambda _, today: _first_weekday(_FRIDAY, today)),
    _rule(r"end of next week", lambda _, today: _monday(today) + timedelta(days=7 + _FRIDAY)),
    _rule(r"(?:this )?weekend", _weekend),
    _rule(r"next weekend", lambda _, today: _monday(today) + timedelta(days=7 + _SATURDAY)),
    _rule(rf"{_END}month|eom|month end", lambda _, today: _month_end(today)),
    _rule(r"end of next month", lambda _, today: _month_end(_add_months(today.replace(day=1), 1))),
    _rule(rf"end of {_MONTH}", lambda m, today: _month_named(m, today, 31)),
    _rule(rf"{_END}quarter|eoq", _quarter_end),
    _rule(rf"{_END}year|eoy", lambda _, today: date(today.year, 12, 31)),
    _rule(rf"{_START}next month", lambda _, today: _add_months(today.replace(day=1), 1)),
    _rule(rf"{_START}next year", lambda _, today: date(today.year + 1, 1, 1)),
    _rule(r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)", _day_of_month),
    _rule(rf"{_NTH} of (?P<which>the|this|next) month", _day_of_named_month),
    _rule(r"middle of (?:the|this) month", lambda _, today: today.replace(day=15)),
    _rule(rf"mid[- ]{_MONTH}", lambda m, today: _month_named(m, today, 15)),
    _rule(rf"(?:{_DAY},? )?{_MONTH} (?:the )?{_NTH}{_YEAR}", _month_and_day),
    _rule(rf"(?:{_DAY},? )?(?:the )?{_NTH} (?:of )?{_MONTH}{_YEAR}", _month_and_day),
    _rule(r"(?P<month>[0-9]{1,2})/(?P<day>[0-9]{1,2})(?:/(?P<year>[0-9]{4}|[0-9]{2}))?", _numeric_date),
)
