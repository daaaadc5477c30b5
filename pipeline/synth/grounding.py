"""Where the value of an argument comes from: the user's words, an earlier result, or nowhere.

Words are compared, not meanings. Titles and notes may differ from what was typed by typos and endings; a date must be
said, or be the day that a said date means; a priority or status must be said or implied by a known expression (mistyped
ones count). Values that nothing supports are what models learn to invent (Iskander et al., arXiv:2409.16341).
"""

import json
import re
from collections.abc import Iterable
from datetime import date
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from pipeline.task_api.due_dates import NUMBERS, resolve_due_date
from pipeline.task_api.errors import TaskApiError

_WORD = re.compile(r"\w+")
_NUMBER_WORDS = (
    *NUMBERS,
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
_ORDINALS = [
    "zeroth",
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
]
_SLIP = 0.75
"""Similarity of two words from which one is a slip of the other (difflib ratio)."""
_MAX_DATE_WORDS = 7
_NEGATED = r"(?:not|no|nothing|isn'?t|without|never|hardly|far from)(?: \w+){0,3} "
_IMPLIED = {
    "high": r"high|urgen|asap|critical|importan|importance|\btop\b|burning|number one|escalat|first thing|right (?:away|now)"
    r"|immediate|can(?:no|')?t wait|cannot wait|\bmax|drop everything|pressing|crucial|essential|emergency|\bvital|serious"
    r"|(?<!no )\b(?:rush|hurry)|\bbump|\braise|matters? (?:a lot|most)|matter most|on fire|soonest|as soon as|before anything|above all"
    r"|everything else|straight away|at once|without delay|!!|top of"
    r"|priority (?:right |way )?up\b",
    "medium": r"medium|normal|average|\bmid\b|middl|moderate|regular|standard|usual|in[- ]between|ordinary|default|so-so",
    "low": rf"\blow|no (?:real )?(?:rush|hurry|urgency|pressure|stress)|{_NEGATED}(?:urgent|important|pressing|critical|rush|hurry)|when(?:ever| i get)"
    r"|minor|trivial|back ?burner|some ?day|bottom|least|last important|unimportant|can wait|could wait|de-?priorit|some ?time|time on"
    r"|eventually|no longer|nice[- ]to[- ]h|relax|that important|doesn'?t matter|any ?time|lesser|minim|nobody cares|take (?:your|my) time"
    r"|priority (?:right |way )?down\b",
    "open": rf"\bopen|pending|outstanding|unfinished|incomplete|to ?dos?\b|to-do|\bleft\b|remain|\bstill|{_NEGATED}"
    r"|haven'?t|hasn'?t|aren'?t|undone|active|uncomplet|unresolv|have to|waiting|untick|uncheck|exclude|yet to|\byet\b"
    r"|on my plate|on the hook|leave out|except|\bskip|hide|but the|all but|in progress|backlog|minus|unsolved|owe|ahead of me|need",
    "completed": r"complet|\bdone|finish|\btick|closed|check(?:ed)? off|crossed|\bdid\b|achiev|accomplish|behind me|already|manag"
    r"|wrapped|over with|resolved|knocked|sorted|out of the way|archiv|(?:skip|leave out|hide|exclude|except)(?: \w+){0,2} open|got through",
}
"""What says a priority or a status without its name; searched outside titles, dates and notes."""
_STEMS = {
    "high": ("urgent", "emergency", "important", "critical", "asap"),
    "medium": ("normal", "average"),
    "low": ("hurry", "rush", "whenever"),
    "open": ("still", "open", "pending", "without", "unfinished"),
    "completed": ("completed", "finished", "crossed", "ticked"),
}
"""The commonest of them, of which slips count too."""
_CUE_WORDS = (
    "priority urgent urgently urgency critical important importance utmost burning escalate immediate immediately crucial "
    "pressing essential emergency serious highest maximum matter matters everything straight raise medium normal average middle "
    "moderate regular standard ordinary default lowest nothing least minor trivial burner bottom unimportant deprioritise "
    "deprioritize eventually haves outstanding unfinished incomplete uncompleted remain remains remaining haven't hasn't "
    "waiting todos unticked exclude except leave minus progress backlog needs completed finished ticked closed checked "
    "crossed achieved accomplished wrapped resolved archived"
)
"""Words of the expressions that are put right when mistyped, so that the expression around them is found."""
_MIN_LOSS_LETTERS = 6
"""Letters from which a lost one is a slip: shorter words become other words (minus, mins; raise, rise)."""


def _slips_of(word: str) -> Iterable[str]:
    """Yield a word with two inner letters swapped, one lost, or one doubled (Damerau 1964); both ends stay."""
    for i in range(1, len(word) - 1):
        if i + 2 < len(word):
            yield word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if len(word) >= _MIN_LOSS_LETTERS:
            yield word[:i] + word[i + 1 :]
        yield word[:i] + word[i] + word[i:]


_CUES = _CUE_WORDS.split()
_CUE_OF_SLIP = {slip: cue for cue in _CUES for slip in _slips_of(cue) if slip not in _CUES}


class Said(NamedTuple):
    """What is known at some point of a conversation."""

    user: str
    """All user turns so far."""
    shown: str
    """All results so far."""
    today: date

    @property
    def folded(self) -> str:
        """The user's words without differences of case, spaces and typographic quotes."""
        return fold(self.user)


def fold(text: str) -> str:
    """Return a text without differences of case, spaces and typographic quotes."""
    for typographic, plain in (("\u2019", "'"), ("\u201c", '"'), ("\u201d", '"')):
        text = text.replace(typographic, plain)
    return " ".join(text.casefold().split())


def find_ungrounded(arguments: dict[str, Any], said: Said) -> list[tuple[str, str]]:
    """Return (kind, problem) of every argument that nothing supports."""
    found: list[tuple[str, str]] = []
    values = [fold(value) for value in arguments.values() if isinstance(value, str) and value.strip()]
    rest = said.folded
    for value in sorted(values, key=len, reverse=True):
        if value not in _IMPLIED:
            rest = rest.replace(value, " ")
    for name, value in arguments.items():
        if name in {"priority", "status"}:
            problem = _find_unsaid(name, str(value), rest)
        else:
            problem = _find_problem(name, value, said)
        if problem:
            found.append(problem)
    return found


def _find_unsaid(name: str, value: str, text: str) -> tuple[str, str] | None:
    is_said = value in _IMPLIED and (
        re.search(_IMPLIED[value], text)
        or re.search(_IMPLIED[value], _mend_cues(text))
        or _is_slip(value, text)
        or any(_is_slip(stem, text) for stem in _STEMS[value])
    )
    return None if is_said else (f"ungrounded_{name}", f"{name} {value!r} was neither said nor implied")


def _mend_cues(text: str) -> str:
    return re.sub(r"[\w']+", lambda word: _CUE_OF_SLIP.get(word[0], word[0]), text)


def _find_problem(name: str, value: Any, said: Said) -> tuple[str, str] | None:
    if name == "task_id":
        return (
            None
            if _has_number(value, said)
            else ("ungrounded_task_id", f"nobody named task {value}, and no result shows it")
        )
    if name in {"due_date", "due_before"}:
        return _find_date_problem(str(value), said)
    if not str(value).strip() or fold(str(value)) in said.folded or _is_shown(str(value), said):
        return None
    words = _WORD.findall(fold(str(value)))
    missing = [word for word in words if not _is_slip(word, said.folded)]
    return (f"ungrounded_{name}", f"{name} {value!r}: nobody said {' '.join(missing)!r}") if missing else None


def _has_number(value: Any, said: Said) -> bool:
    words = [str(value)]
    if isinstance(value, int) and 0 <= value < len(_NUMBER_WORDS):
        words.append(_NUMBER_WORDS[value])
    if isinstance(value, int) and 0 <= value < len(_ORDINALS):
        words.append(_ORDINALS[value])
    is_said = re.search(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", said.folded)
    return bool(is_said) or bool(re.search(rf'"id": ?{value}\b', said.shown))


def _is_shown(value: str, said: Said) -> bool:
    return json.dumps(value, ensure_ascii=False)[1:-1] in said.shown


def _is_slip(word: str, text: str) -> bool:
    """True when the text has the word, or one that is nearly the same."""
    words = _WORD.findall(text)
    return word in words or any(
        other[0] == word[0]
        and abs(len(word) - len(other)) <= 3
        and (SequenceMatcher(None, word, other).ratio() >= _SLIP or (len(word) > 3 and word[:4] == other[:4]))
        for other in words
    )


def _find_date_problem(value: str, said: Said) -> tuple[str, str] | None:
    if not value.strip() or fold(value) in said.folded or _is_shown(value, said):
        return None
    try:
        wanted = resolve_due_date(value, said.today, allow_past=True)
    except TaskApiError:
        return "ungrounded_date", f"date {value!r} was not said"
    days = set(said_days(said.user, said.today))
    if wanted in days:
        return None
    if days:
        meant = ", ".join(sorted(day.isoformat() for day in days))
        return (
            "stale_date",
            f"date {value!r} is {wanted}, but with today = {said.today} the user's words mean {meant}",
        )
    return "ungrounded_date", f"date {value!r} was not said"


def said_days(text: str, today: date) -> Iterable[date]:
    """Yield the days that expressions in a text mean."""
    words = text.replace("\u2019", "'").split()
    for start in range(len(words)):
        for stop in range(start + 1, min(len(words), start + _MAX_DATE_WORDS) + 1):
            try:
                yield resolve_due_date(
                    " ".join(words[start:stop]).strip(" .,;:!?\"'()-"), today, allow_past=True
                )
            except TaskApiError:
                continue
