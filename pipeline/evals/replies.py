"""Judge the text of an answer: does it ask for the right thing, does it say only what the tools returned?

Words are compared, not meanings. A question is recognised by ``?`` and a cue; the first topic whose cue occurs counts:

| topic | cues |
| --- | --- |
| due_date | due date, deadline, which/what date/day, when is it, when should, by when |
| task_id | which task, which one, which of, what task do/did/number, number, id |
| change | change, update, edit, modify, "what about task", be different |
| title | call, called, title, name, what should i add/put/remind, what is it, what's the task, what would you like, \
what do you want/need, what has to, what needs to |

"Which task should I change?" asks for a task: ``task_id`` stands before ``change``.

Facts are ids and other numbers, dates, priorities, titles, descriptions, and "no" and "already" where the right reply
says so. Not seen: a priority that is given to the wrong task of a list, ids changed between two tasks of one title, and
a false statement without any fact (16 of 3,758 perturbed replies to 500 test rows passed, all of the first two kinds).
Small talk is judged for calls and claims only.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.messages import Message, ToolCall
from pipeline.evals.turns import Turn

_TASK_ID = r"which (?:task|one|of)|what task (?:do|did|number)|its number|\bnumber\b|\bid\b"
_TOPICS = (
    ("due_date", r"due date|deadline|(?:which|what) (?:date|day)|when (?:is it|should)|by when"),
    ("task_id", _TASK_ID),
    ("change", r"\b(?:change|update|edit|modify)\b|what about task|be different"),
    (
        "title",
        r"\bcall(?:ed)?\b|\btitle\b|\bname\b|what should i (?:add|put|remind)|what(?: i|')s (?:it|the task)\b"
        r"|what (?:would you like|do you (?:want|need)|has to|needs to)",
    ),
)

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
_NUMBER = re.compile(r"\d+|\b(?:" + "|".join(_NUMBER_WORDS) + r")\b")
_PRIORITY = re.compile(r"\b(?:low|medium|high)\b")

_WRITES = frozenset({"create_task", "update_task", "complete_task", "delete_task"})
_CLAIMS: dict[str, frozenset[str]] = {
    "created": frozenset({"create_task"}),
    "added": frozenset({"create_task", "update_task"}),
    "updated": frozenset({"update_task"}),
    "changed": frozenset({"update_task"}),
    "renamed": frozenset({"update_task"}),
    "moved": frozenset({"update_task"}),
    "completed": frozenset({"complete_task"}),
    "finished": frozenset({"complete_task"}),
    "marked": frozenset({"complete_task", "update_task"}),
    "deleted": frozenset({"delete_task"}),
    "removed": frozenset({"delete_task", "update_task"}),
    "done": _WRITES,
}
_CLAIM = "(?:" + "|".join(_CLAIMS) + ")"
_ANYWHERE = re.compile(rf"\b(?P<word>{_CLAIM})\b")
_OWN_DEED = re.compile(
    rf"(?:\b(?:i|i've|i have|i just|has been|have been|is now|are now) (?:just )?|^)(?P<word>{_CLAIM})\b"
)
_QUOTED = re.compile(r"[\"\u201c]([^\"\u201c\u201d]+)[\"\u201d]")
_NEGATIVE = re.compile(r"\b(?:no|not|none|nothing|never|cannot|unknown|invalid|\w+n't)\b")
_ALREADY = re.compile(r"\balready\b")
_WORD = re.compile(r"[a-z]+")
_DENIAL = re.compile(r"\b(?:not|no|nothing|never|cannot|can't|couldn't|wasn't|isn't)\b[^.!?]*$")


def find_topic(text: str) -> str | None:
    """Return what a question asks for, or None when it is none or its topic is unknown."""
    if "?" not in text:
        return None
    words = fold(text)
    return next((topic for topic, cues in _TOPICS if re.search(cues, words)), None)


def judge_question(turn: Turn, text: str) -> list[str]:
    """Return the error codes of a text that should ask the user for something."""
    if "?" not in text:
        return ["no_question"]
    wanted = turn.example.tags.get("ask") or find_topic(turn.gold.content or "")
    codes = ["wrong_question"] if find_topic(text) != wanted else []
    # "What should I change about task 7?" must not name another task than the user did.
    said, gold, known = (find_facts(words, ()) for words in (text, turn.gold.content or "", turn.user_text))
    if _adds_any(said, gold, known):
        codes.append("wrong_fact")
    return codes + judge_claims(turn, text, _OWN_DEED)


def judge_talk(turn: Turn, text: str) -> list[str]:
    """Return the error codes of a text that should only talk."""
    return judge_claims(turn, text, _OWN_DEED)


def judge_reply(turn: Turn, text: str) -> list[str]:
    """Return the error codes of a text that should tell what the tools returned."""
    source = _Source.of(turn.exchange)
    gold, said, known = (
        find_facts(words, source.texts) for words in (turn.gold.content or "", text, turn.user_text)
    )
    says_no = all(not word.search(gold.rest) or word.search(said.rest) for word in (_NEGATIVE, _ALREADY))
    codes = [] if says_no and _holds_all(said, gold, source.facts) else ["missing_fact"]
    # A title may be right so far and then go on: 'pay the rent deposit' for 'pay the rent'.
    names_other = said.quoted - gold.quoted - source.facts.texts.keys() - source.given
    if _adds_any(said, gold, source.facts, known) or source.find_mispaired(said) or names_other:
        codes.append("wrong_fact")
    topic = find_topic(turn.gold.content or "")
    if topic in {"task_id", "due_date"} and find_topic(text) != topic:
        codes.append("wrong_question" if "?" in text else "no_question")
    return codes + judge_claims(turn, said.rest, _ANYWHERE)


def is_grounded(turn: Turn) -> bool:
    """True when the right reply itself says no number, date or priority that neither user nor tools gave."""
    source = _Source.of(turn.exchange)
    gold, known = (find_facts(words, source.texts) for words in (turn.gold.content or "", turn.user_text))
    return not _adds_any(gold, source.facts, known)


def judge_claims(turn: Turn, text: str, pattern: re.Pattern[str]) -> list[str]:
    """Return ``claims_undone_action`` when a text says that something was done which was not."""
    source = _Source.of(turn.exchange)
    gold = Counter(_WORD.findall(find_facts(turn.gold.content or "", source.texts).rest))
    returned = set(_WORD.findall(source.facts.rest))
    words = fold(text)
    claims = Counter(m["word"] for m in pattern.finditer(words) if not _DENIAL.search(words[: m.start()]))
    for word, count in claims.items():
        # Counted, so that "deleted ... deleted" does not pass for one deletion and one completion.
        num_done = sum(source.done[tool] for tool in _CLAIMS[word])
        if word not in returned and count > max(gold[word], num_done):
            return ["claims_undone_action"]
    return []


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
    return str(_NUMBER_WORDS.index(number) + 2) if number in _NUMBER_WORDS else str(int(number))


def _holds_all(said: Facts, gold: Facts, source: Facts) -> bool:
    """True when every fact that the gold text took from the source is said."""
    return (
        (gold.numbers & source.numbers) <= said.numbers
        and (gold.dates & source.dates) <= said.dates
        and (gold.priorities & source.priorities) <= said.priorities
        and set(gold.texts) <= set(said.texts)
    )


def _adds_any(said: Facts, *known: Facts) -> bool:
    """True when a number, date or priority is said that none of the known texts holds."""
    return bool(
        said.numbers.difference(*(facts.numbers for facts in known))
        or said.dates.difference(*(facts.dates for facts in known))
        or said.years.difference(*(facts.years for facts in known))
        or said.priorities.difference(*(facts.priorities for facts in known))
    )


@dataclass(frozen=True)
class _Source:
    """What the tools returned in one exchange."""

    tasks: list[dict[str, Any]]
    texts: frozenset[str]
    facts: Facts
    done: Counter[str]
    """How often each tool wrote something."""
    given: frozenset[str]
    """Texts that the calls passed, folded."""

    @classmethod
    def of(cls, exchange: Iterable[Message]) -> "_Source":
        tasks: list[dict[str, Any]] = []
        done: Counter[str] = Counter()
        raw: list[str] = []
        calls: dict[str | None, ToolCall] = {}
        for message in exchange:
            calls |= {call.id: call for call in message.tool_calls}
            if message.role == "tool":
                result = _parse_result(message.content or "")
                raw += _values(result)
                tasks += [
                    *result.get("tasks", ()),
                    *(result[key] for key in ("task", "deleted") if key in result),
                ]
                call = calls.get(message.tool_call_id)
                if call and call.name in _WRITES and "error" not in result:
                    done[call.name] += 1
        given = frozenset(fold(text) for call in calls.values() for text in _values(call.arguments))
        texts = frozenset(str(task[key]) for task in tasks for key in ("title", "description") if key in task)
        return cls(tasks, texts, find_facts(" ; ".join(raw), texts), done, given)

    def find_mispaired(self, said: Facts) -> bool:
        """True when a title stands beside the number or the date of another task.

        Each title's own id must be the nearest id mentioned before or after it. In a list where all ids are
        mentioned this admits only the right order: the outermost title has one neighbour, and so on inwards.
        """
        titles = [fold(str(task["title"])) for task in self.tasks]
        ids = {str(task["id"]) for task in self.tasks}
        id_places = [place for place in said.number_places if place[1] in ids]
        for task, title in zip(self.tasks, titles, strict=True):
            if title not in said.texts or titles.count(title) > 1:
                continue
            place = said.texts[title]
            if str(task["id"]) in said.numbers and not _is_beside(str(task["id"]), place, id_places):
                return True
            day = _month_day(task.get("due_date"))
            if day in said.dates and not _is_beside(day, place, said.date_places):
                return True
        return False


def _is_beside(value: object, place: int, mentions: list[tuple[int, Any]]) -> bool:
    before = [mention for where, mention in mentions if where < place]
    after = [mention for where, mention in mentions if where > place]
    return value in before[-1:] + after[:1]


def _month_day(due_date: str | None) -> tuple[int, int] | None:
    return (int(due_date[5:7]), int(due_date[8:10])) if due_date else None


def _parse_result(content: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _values(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _values(part)]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [text for part in value for text in _values(part)]  # pyright: ignore[reportUnknownVariableType]
    return [str(value)]
