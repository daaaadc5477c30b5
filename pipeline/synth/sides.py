"""What belongs to training, validation or test, so that no row can be looked up on another side: days, numbers, names.

Dates go by their day number modulo 5 and task numbers by their block of ten, so that small and large numbers, near and
far dates occur on every side. Values that name a person or a firm of the test bank are kept out of the train bank.
"""

import random
import re
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import NamedTuple

from pipeline.synth.due_words import DueWord, draw_impossible, draw_word
from pipeline.synth.formulations import Bank
from pipeline.task_api.due_dates import resolve_due_date
from pipeline.task_api.errors import PastDueDateError, TaskApiError

_RESIDUES = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
_BLOCK = 10
_MAX_FIRST_PLACE = 7  # the last places of a block are for tasks that a conversation creates
_FIRST_DAY = date(2026, 1, 5)
_NUM_DAYS = 700
_MAX_DRAWS = 2000
_WEEKDAY = re.compile(r"\b(mon|tues?|wed|thur?s?|fri|sat|sun)(day|nesday|urday)?\b", re.IGNORECASE)
_CALENDAR = re.compile(
    r"\d(st|nd|rd|th)\b|/|\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b", re.IGNORECASE
)
_NAME = re.compile(r"(?<=\s)[A-Z][a-z]{2,}\b")
_NO_NAME = frozenset(
    [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "English",
        "Spanish",
        "French",
        "German",
        "Christmas",
        "Easter",
        "Wi",
        "Excel",
        "PowerPoint",
        "Word",
    ]
)


class Side(NamedTuple):
    """One part of a data set and what it may use."""

    name: str
    """train, validation or test."""
    bank: Bank
    """Its formulations and values."""

    def owns_day(self, day: date) -> bool:
        """True when the day may occur on this side only."""
        return day.toordinal() % 5 in _RESIDUES[self.name]

    def draw_today(self, rng: random.Random) -> date:
        """Return a day to be today."""
        return self._first(lambda: _FIRST_DAY + timedelta(days=rng.randrange(_NUM_DAYS)))

    def draw_day(self, rng: random.Random, today: date) -> date:
        """Return the due date of a task that is there already."""
        return self._first(lambda: today + timedelta(days=rng.randint(-5, 40)))

    def _first(self, draw: Callable[[], date]) -> date:
        while not self.owns_day(day := draw()):
            pass
        return day

    def draw_ids(self, rng: random.Random, count: int) -> list[int]:
        """Return rising task numbers of one block of this side."""
        blocks = [b for b in range(60) if b % 5 in _RESIDUES[self.name]]
        block = rng.choices(blocks, [8 if b < 5 else 2 if b < 12 else 1 for b in blocks])[0]
        places = [block * _BLOCK + place for place in range(_MAX_FIRST_PLACE) if block or place]
        return sorted(rng.sample(places, count))

    def draw_date(self, rng: random.Random, today: date, form: str) -> DueWord:
        """Return an expression of a form whose day is on this side."""
        for _ in range(_MAX_DRAWS):
            if form in {"past", "impossible"}:
                value = draw_impossible(rng, today)
                word = DueWord(value, ("",) if value == "yesterday" else ("on", "by"))
            else:
                word = draw_word(rng, today)
            if date_form(word.value, today) == form and self._owns_date(word.value, today):
                return word
        raise AssertionError(f"no {form} date on the side {self.name}")

    def _owns_date(self, text: str, today: date) -> bool:
        try:
            return self.owns_day(resolve_due_date(text, today, allow_past=True))
        except TaskApiError:
            return True  # no real date


def date_form(text: str, today: date) -> str:
    """Return how a date is said: iso, weekday, relative, calendar, past or impossible."""
    try:
        resolve_due_date(text, today)
    except PastDueDateError:
        return "past"
    except TaskApiError:
        return "impossible"
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        return "iso"
    if _CALENDAR.search(text):
        return "calendar"
    return "weekday" if _WEEKDAY.search(text) else "relative"


def without_names(bank: Bank, others: Iterable[Bank]) -> Bank:
    """Return the bank without titles and notes that name somebody whom the other banks name too."""
    theirs = {
        name for other in others for lines in other.values.values() for line in lines for name in _names(line)
    }
    values = {
        file: tuple(line for line in lines if not theirs.intersection(_names(line)))
        for file, lines in bank.values.items()
    }
    return Bank(bank.formulations, values)


def _names(line: str) -> set[str]:
    return set(_NAME.findall(f" {line}")) - _NO_NAME
