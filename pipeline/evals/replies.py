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
from dataclasses import dataclass
from typing import Any

from pipeline.core.messages import Message, ToolCall
from pipeline.evals.facts import (
    Facts,
    adds_any,
    find_facts,
    fold,
    is_mispaired,
    tasks_in,
    values_in,
)
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
    if adds_any(said, gold, known):
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
    if adds_any(said, gold, source.facts, known) or is_mispaired(source.tasks, said) or names_other:
        codes.append("wrong_fact")
    topic = find_topic(turn.gold.content or "")
    if topic in {"task_id", "due_date"} and find_topic(text) != topic:
        codes.append("wrong_question" if "?" in text else "no_question")
    return codes + judge_claims(turn, said.rest, _ANYWHERE)


def is_grounded(turn: Turn) -> bool:
    """True when the right reply itself says no number, date or priority that neither user nor tools gave."""
    source = _Source.of(turn.exchange)
    gold, known = (find_facts(words, source.texts) for words in (turn.gold.content or "", turn.user_text))
    return not adds_any(gold, source.facts, known)


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


def _holds_all(said: Facts, gold: Facts, source: Facts) -> bool:
    """True when every fact that the gold text took from the source is said."""
    return (
        (gold.numbers & source.numbers) <= said.numbers
        and (gold.dates & source.dates) <= said.dates
        and (gold.priorities & source.priorities) <= said.priorities
        and set(gold.texts) <= set(said.texts)
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
                raw += values_in(result)
                tasks += tasks_in(result)
                call = calls.get(message.tool_call_id)
                if call and call.name in _WRITES and "error" not in result:
                    done[call.name] += 1
        given = frozenset(fold(text) for call in calls.values() for text in values_in(call.arguments))
        texts = frozenset(str(task[key]) for task in tasks for key in ("title", "description") if key in task)
        return cls(tasks, texts, find_facts(" ; ".join(raw), texts), done, given)


def _parse_result(content: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]
