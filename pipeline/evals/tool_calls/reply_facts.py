"""Which facts of a reply does nothing support: neither the conversation, nor what the tools returned?

Facts are dates, numbers, times, texts in double quotes, and values of a declared enumeration such as a priority. A
number also counts as supported when it counts what was returned (two tasks, three of them high) or rounds it; a list
may number its lines. A question is held to its ids only, because it may offer what nobody said. When results name a
date or an enumeration's value and the reply names only others, the reply contradicts them, unless it denies something.
Not seen: titles without quotation marks, except beside the number of another task; a wrong number that some title
happens to hold; weekdays. Sums that the reply works out itself count as unsupported.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from pipeline.evals.cases import Case, text_of
from pipeline.evals.facts import (
    Facts,
    find_facts,
    fold,
    gives_wrong_priority,
    is_mispaired,
    plain_number,
    tasks_in,
    values_in,
)
from pipeline.evals.tool_calls.prediction import PredictedCall, read_calls

_QUESTION = re.compile(r"[^.!?\n]*\?")
_ID = re.compile(r"(?:#|\b(?:task|ticket|order|item|note|number|no\.?|id)s?[ :#]{1,3})(\d+)\b(?![.:/-]\d)")
_LINE_NUMBER = re.compile(r"^[ \t]*(\d+)[.)][ \t]+", re.MULTILINE)
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b")
_TIME = re.compile(
    r"(?<![\d:])(?P<hour>[01]?\d|2[0-4])(?::(?P<minute>[0-5]\d)(?::[0-5]\d(?:\.\d+)?)?(?P<zone>z|[+-]\d\d:?\d\d)?"
    r"(?:\s*(?P<half>[ap])\.?m\b\.?)?|\s*(?P<bare>[ap])\.?m\b\.?)"
)
_DENIAL = re.compile(r"\b(?:no|not|none|nothing|never|cannot|neither|\w+n't)\b")
_SAMPLE = re.compile(
    r"\b(?:say|type|reply|answer|respond|write)(?: with)? [\"\u201c][^\"\u201c\u201d]+[\"\u201d]"
)
_ALSO_A_VERB = re.compile(r"\w+ed|open|all|any|none|other|set|start|stop")
_EDGES = " .,!?;:"
_NOON = 12 * 60


@dataclass(frozen=True)
class Support:
    """What a reply may rely on."""

    case: Case
    calls: Sequence[PredictedCall]
    """Calls of this exchange that were accepted."""
    results: Sequence[Any]
    """What the tools of this exchange returned."""

    @classmethod
    def of(cls, case: Case, calls: Iterable[PredictedCall] = (), results: Iterable[Any] = ()) -> "Support":
        """Return the support in a conversation's last exchange and in calls that were executed after it."""
        messages = exchange_of(case)
        said = [call for message in messages for call in read_calls(message.get("tool_calls") or ()).calls]
        returned = [read_result(text_of(message)) for message in messages if message["role"] == "tool"]
        return cls(case, [*said, *calls], [*returned, *results])

    @cached_property
    def values(self) -> list[str]:
        """Every value that was returned or passed in this exchange."""
        return [
            text
            for part in (*self.results, *(call.arguments for call in self.calls))
            for text in values_in(part)
        ]

    @cached_property
    def texts(self) -> list[str]:
        """Everything anyone said, called or returned."""
        heard = [read_result(text_of(message)) for message in self.case.messages]
        return [*(text for part in heard for text in values_in(part)), *self._called, *self.values]

    @cached_property
    def ids(self) -> list[str]:
        """What may hold an id: where tasks were returned, of the results only theirs, and no total or title."""
        if not self.tasks:
            return self.texts
        said = [text_of(message) for message in self.case.messages if message["role"] != "tool"]
        returned = [
            read_result(text_of(message)) for message in self.case.messages if message["role"] == "tool"
        ]
        return [*said, *self._called, *(str(task["id"]) for task in _tasks_of([*returned, *self.results]))]

    @cached_property
    def _called(self) -> list[str]:
        calls = [
            call
            for message in self.case.messages
            for call in read_calls(message.get("tool_calls") or ()).calls
        ]
        return [text for call in (*calls, *self.calls) for text in values_in(call.arguments)]

    @cached_property
    def titles(self) -> list[str]:
        """Texts of several words, and titles of tasks: numbers inside them are not facts of their own."""
        return [text for text in self.values if " " in text.strip()] + [
            str(task["title"]) for task in self.tasks
        ]

    @cached_property
    def tasks(self) -> list[dict[str, Any]]:
        """Tasks that were returned."""
        return _tasks_of(self.results)


def find_wrong_facts(text: str, support: Support) -> list[str]:
    """Return what a reply states without support, or against what was returned; the reply's own words."""
    if not support.results:
        return _find_ids(text, support)
    statements = _number_free(_QUESTION.sub(" ", text))
    known = " ; ".join(support.texts)
    times, statements = _take_times(fold(statements))
    known_times, known_rest = _take_times(fold(known))
    said, heard = find_facts(statements, support.titles), find_facts(known_rest, ())
    wrong = [f"{time // 60:02}:{time % 60:02}" for time in times if not _holds_time(time, known_times)]
    wrong += [f"{month:02}-{day:02}" for month, day in sorted(said.dates - heard.dates)]
    wrong += sorted(said.years - heard.years - heard.numbers)
    wrong += [
        number for number in sorted(said.numbers) if not _holds_number(number, statements, heard, support)
    ]
    wrong += _find_quotes(text, known)
    wrong += _find_contradictions(statements, said, support)
    if is_mispaired(support.tasks, said):
        wrong.append("a title beside the number or the date of another")
    last = {str(task["id"]): task for task in support.tasks}  # as it was returned last
    if not _DENIAL.search(said.rest) and gives_wrong_priority(list(last.values()), said):
        wrong.append("a title beside another priority")
    return [*dict.fromkeys([*wrong, *_find_ids(text, support)])]


def exchange_of(case: Case) -> list[dict[str, Any]]:
    """Return the messages after the last one of the user."""
    roles = [message["role"] for message in case.messages]
    last_user = max((i for i, role in enumerate(roles) if role == "user"), default=-1)
    return list(case.messages[last_user + 1 :])


def read_result(text: str) -> Any:
    """Return a tool's JSON as values, any other text as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def is_refusal(result: Any) -> bool:
    """True for a result with an ``error``."""
    return isinstance(result, dict) and bool(cast("dict[str, Any]", result).get("error"))


def _tasks_of(results: Iterable[Any]) -> list[dict[str, Any]]:
    found = [cast("dict[str, Any]", result) for result in results if isinstance(result, dict)]
    return [task for result in found for task in tasks_in(result)]


def _find_ids(text: str, support: Support) -> list[str]:
    """Return ids that occur nowhere: "task 9" where there is no 9; counting does not excuse them."""
    if not _ID.search(fold(text)):
        return []
    heard = find_facts(" ; ".join(support.ids), ()).numbers
    words = find_facts(text, support.titles).rest
    return [number for number in map(plain_number, _ID.findall(words)) if number not in heard]


def _number_free(text: str) -> str:
    """Return a text without the numbers of its lines, if they count 1, 2, 3."""
    numbers = [int(number) for number in _LINE_NUMBER.findall(text)]
    return _LINE_NUMBER.sub("", text) if numbers and numbers == list(range(1, len(numbers) + 1)) else text


def _take_times(text: str) -> tuple[set[int], str]:
    """Return times as minutes of the day, and the text without them; a date keeps its place."""
    spaced = re.sub(r"(?<=\d)t(?=\d\d:)", " ", text)
    times: set[int] = set()
    for found in _TIME.finditer(spaced):
        hour, half = int(found["hour"]), found["half"] or found["bare"]
        hour = hour % 12 + (12 if half == "p" else 0) if half else hour % 24
        times.add(hour * 60 + int(found["minute"] or 0))
    return times, _TIME.sub(" ", spaced)


def _holds_time(time: int, known: set[int]) -> bool:
    """True for a known time; "3:30" may mean half past three in the afternoon."""
    return time in known or (time < _NOON + 60 and (time + _NOON) % (2 * _NOON) in known)


def _holds_number(number: str, statements: str, heard: Facts, support: Support) -> bool:
    if number in heard.numbers or number in heard.years or number in _count_parts(support.results):
        return True
    ordinals = {plain_number(found) for found in _ORDINAL.findall(statements)}
    longest = max((len(part) for part in _lists_in(list(support.results))), default=0)
    if number in ordinals and (int(number) <= longest or int(number) in {day for _, day in heard.dates}):
        return True
    decimals = len(number.partition(".")[2])
    finer = [float(other) for other in heard.numbers if len(other.partition(".")[2]) > decimals]
    return any(abs(other - float(number)) <= 0.5 * 10**-decimals for other in finer)


def _count_parts(results: Sequence[Any]) -> set[str]:
    """Return how many parts there are, and how many share a value: what a reply may count."""
    counts = {str(sum(not is_refusal(result) for result in results)), str(sum(map(is_refusal, results)))}
    rows = [*_lists_in(list(results))]
    for row in rows:
        counts.add(str(len(row)))
        fields = [cast("dict[str, Any]", part) for part in row if isinstance(part, dict)]
        shared = Counter((key, str(value)) for part in fields for key, value in part.items())
        counts |= {str(number) for number in shared.values()}
        # How many have a field at all ("two with a due date"), and how many have not.
        present = Counter(key for part in fields for key, value in part.items() if value not in (None, ""))
        counts |= {str(n) for number in present.values() for n in (number, len(fields) - number)}
    return counts


def _lists_in(value: Any) -> list[list[Any]]:
    if isinstance(value, dict):
        return [found for part in cast("dict[str, Any]", value).values() for found in _lists_in(part)]
    if isinstance(value, list):
        parts = cast("list[Any]", value)
        return [parts, *(found for part in parts for found in _lists_in(part))]
    return []


def _find_quotes(text: str, known: str) -> list[str]:
    words = fold(known)
    quoted = (quote.strip(_EDGES) for quote in sorted(find_facts(_SAMPLE.sub(" ", fold(text)), ()).quoted))
    return [quote for quote in quoted if quote not in words]


def _find_contradictions(statements: str, said: Facts, support: Support) -> list[str]:
    """Return dates and enumeration values that stand in the reply instead of what was returned."""
    if _DENIAL.search(said.rest):
        return []
    returned = find_facts(" ; ".join(support.values), ())
    wrong = sorted(f"{month:02}-{day:02}" for month, day in said.dates) if returned.dates else []
    wrong = [] if said.dates & returned.dates else wrong
    for name, members in _enumerations(support.case).items():
        values = {
            fold(value)
            for value in _values_of(name, [*support.results, *(c.arguments for c in support.calls)])
        }
        named = {word for word in members if re.search(rf"\b{re.escape(word)}\b", said.rest)}
        if values and named and not named & values:
            wrong += sorted(named)
    return wrong


def _enumerations(case: Case) -> dict[str, set[str]]:
    """Return the values of enumerated parameters by name, those left out that are everyday verbs."""
    found: dict[str, set[str]] = {}
    for tool in case.openai_tools:
        properties: Mapping[str, Any] = tool["function"]["parameters"].get("properties") or {}
        for name, schema in properties.items():
            values = cast("dict[str, Any]", schema).get("enum") if isinstance(schema, dict) else None
            words = {fold(value) for value in cast("list[Any]", values or []) if isinstance(value, str)}
            found.setdefault(name, set()).update(w for w in words if not _ALSO_A_VERB.fullmatch(w))
    return found


def _values_of(name: str, value: Any) -> list[str]:
    """Return the values under a key, at any depth."""
    if isinstance(value, list):
        return [text for part in cast("list[Any]", value) for text in _values_of(name, part)]
    if not isinstance(value, dict):
        return []
    fields = cast("dict[str, Any]", value)
    own = [fields[name]] if isinstance(fields.get(name), str) else []
    return own + [text for part in fields.values() for text in _values_of(name, part)]
