"""The facts in a text: numbers, dates, priorities, quoted texts and known titles, each in whatever form it is said.

Words are compared, not meanings. Used on replies whose right wording is known (:mod:`pipeline.evals.replies`) and on
replies that only what was returned can judge (:mod:`pipeline.evals.tool_calls.reply_facts`).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DATES = (
    re.compile(r"(?P<year>\d{4})-(?P<number>\d{1,2})-(?P<day>\d{1,2})(?:t[\d:]+)?"),
    re.compile(r"\b(?P<number>\d{1,2})/(?P<day>\d{1,2})(?:/(?P<year>\d{2,4}))?\b"),
    re.compile(rf"\b{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (?P<year>\d{{4}}))?"),
    re.compile(rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_MONTH}(?: (?P<year>\d{{4}}))?"),
)
_NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\b(?:" + "|".join(_NUMBER_WORDS) + r")\b")
_PRIORITY = re.compile(r"\b(?:low|medium|high)\b")

_QUOTED = re.compile(r"[\"\u201c]([^\"\u201c\u201d]+)[\"\u201d]")


def fold(text: str) -> str:
    """Return a text without differences of case, spaces and typographic apostrophes."""
    return " ".join(text.replace("\u2019", "'").casefold().split())


@dataclass(frozen=True)
class Facts:
    """What a text mentions, with where: position by position for pairing."""

    numbers: frozenset[str]
    dates: frozenset[tuple[int, int]]
    """(month, day)."""
    years: frozenset[str]
    """Years of dates; a date may go without."""
    priorities: frozenset[str]
    texts: dict[str, int]
    """Known titles and descriptions that occur, folded, with their first position."""
    quoted: frozenset[str] = frozenset()
    """Everything in double quotes, folded."""
    number_places: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    date_places: list[tuple[int, tuple[int, int]]] = field(default_factory=list[tuple[int, tuple[int, int]]])
    rest: str = ""
    """The folded text with all known titles and descriptions blanked."""


def find_facts(text: str, known_texts: Iterable[str]) -> Facts:
    """Return the facts in a text: titles and descriptions first, then dates, then numbers in what is left."""
    rest = fold(text)
    quoted = frozenset(_QUOTED.findall(rest))
    texts: dict[str, int] = {}
    # Longest first: "report" must not be found inside "report for Ann".
    for known in sorted({fold(t) for t in known_texts if t.strip()}, key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(known)}(?!\w)")
        if match := pattern.search(rest):
            texts[known] = match.start()
            rest = pattern.sub(lambda found: " " * len(found[0]), rest)
    blanked = rest
    dates: list[tuple[int, tuple[int, int]]] = []
    years: set[str] = set()
    for pattern in _DATES:
        for match in pattern.finditer(rest):
            parts = match.groupdict()
            month = int(parts["number"]) if parts.get("number") else _MONTHS.index(parts["month"][:3]) + 1
            dates.append((match.start(), (month, int(parts["day"]))))
            if parts["year"]:
                years.add(parts["year"] if len(parts["year"]) > 2 else f"20{parts['year']}")
        rest = pattern.sub(lambda found: " " * len(found[0]), rest)
    numbers = [(match.start(), _digits(match[0])) for match in _NUMBER.finditer(rest)]
    return Facts(
        numbers=frozenset(number for _, number in numbers),
        dates=frozenset(day for _, day in dates),
        years=frozenset(years),
        priorities=frozenset(match[0] for match in _PRIORITY.finditer(rest)),
        texts=texts,
        quoted=quoted,
        number_places=sorted(numbers),
        date_places=sorted(dates),
        rest=blanked,
    )


def _digits(number: str) -> str:
    return str(_NUMBER_WORDS.index(number) + 2) if number in _NUMBER_WORDS else plain_number(number)


def plain_number(number: str) -> str:
    """Return digits without separators of thousands and idle zeros: ``1,200.50`` is ``1200.5``, ``007`` is ``7``."""
    whole, _, decimals = number.replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")


def adds_any(said: Facts, *known: Facts) -> bool:
    """True when a number, date or priority is said that none of the known texts holds."""
    return bool(
        said.numbers.difference(*(facts.numbers for facts in known))
        or said.dates.difference(*(facts.dates for facts in known))
        or said.years.difference(*(facts.years for facts in known))
        or said.priorities.difference(*(facts.priorities for facts in known))
    )


def is_mispaired(tasks: Sequence[dict[str, Any]], said: Facts) -> bool:
    """True when a title stands beside the number or the date of another task.

    Each title's own id must be the nearest id mentioned before or after it. In a list where all ids are
    mentioned this admits only the right order: the outermost title has one neighbour, and so on inwards.
    """
    titles = [fold(str(task["title"])) for task in tasks]
    ids = {str(task["id"]) for task in tasks}
    id_places = [place for place in said.number_places if place[1] in ids]
    for task, title in zip(tasks, titles, strict=True):
        if title not in said.texts or titles.count(title) > 1:
            continue
        place = said.texts[title]
        if str(task["id"]) in said.numbers and not _is_beside(str(task["id"]), place, id_places):
            return True
        day = _month_day(task.get("due_date"))
        if len(said.texts) == 1:
            continue  # "moved from March 13 to March 20" names two days of one task
        if day in said.dates and not _is_beside(day, place, said.date_places):
            return True
    return False


def gives_wrong_priority(tasks: Sequence[dict[str, Any]], said: Facts) -> bool:
    """True when priorities stand beside the titles, one for each or more, and one task's own is not there."""
    own = {fold(str(task["title"])): task.get("priority") for task in tasks}
    places = sorted((place, title) for title, place in said.texts.items() if title in own)
    mentions = [(match.start(), match[0]) for match in _PRIORITY.finditer(said.rest)]
    if not places or len(mentions) < len(places) or len(own) < len(tasks):
        return False
    # Priorities stand after their titles, as in a list, unless one stands before the first.
    are_after = places[0][0] < mentions[0][0]
    starts = [place for place, _ in places]
    ends = [*starts[1:], len(said.rest)] if are_after else starts
    starts = starts if are_after else [0, *starts[:-1]]
    for (_, title), start, end in zip(places, starts, ends, strict=True):
        beside = {word for place, word in mentions if start <= place < end}
        if beside and own[title] in {"low", "medium", "high"} and own[title] not in beside:
            return True
    return False


def tasks_in(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tasks in a result of the Task API, or of tools shaped like it."""
    found: list[Any] = [*_as_list(result.get("tasks")), *(result.get(key) for key in ("task", "deleted"))]
    return [task for task in found if isinstance(task, dict) and {"id", "title"} <= task.keys()]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def _is_beside(value: object, place: int, mentions: list[tuple[int, Any]]) -> bool:
    before = [mention for where, mention in mentions if where < place]
    after = [mention for where, mention in mentions if where > place]
    return value in before[-1:] + after[:1]


def _month_day(due_date: Any) -> tuple[int, int] | None:
    found = _DATES[0].match(due_date) if isinstance(due_date, str) else None
    return (int(found["number"]), int(found["day"])) if found else None


def values_in(value: Any) -> list[str]:
    """Return every value in a JSON value, keys left out, as texts."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in values_in(part)]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [text for part in value for text in values_in(part)]  # pyright: ignore[reportUnknownVariableType]
    return [str(value)]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
