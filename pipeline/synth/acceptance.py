"""May these words become a row? Facts first, then novelty: the same gates for the host agent and for an endpoint."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date

from pipeline.core.messages import Example
from pipeline.synth.check import find_personal_data
from pipeline.synth.checks import find_faults, text_problem
from pipeline.synth.diversity import grams, similarity, words_of
from pipeline.synth.full_mix import row_tags
from pipeline.synth.grounding import said_days
from pipeline.synth.scenario import Need, Realised, Repair, Scenario, realise

MAX_SIMILARITY = 0.75
"""Jaccard index of character 4-grams, values left out, from which two texts say it in the same words."""
_GRAM_WORDS = 3
_MIN_USES, _MAX_SHARE = 4, 0.03
_MAX_AVOIDED = 30
_PRIORITY = re.compile(r"\b(?:low|medium|high|top)[- ]prio|\burgent|\basap\b", re.IGNORECASE)
_DATE_WORD = re.compile(r"\b(?:by|due|until|before|deadline(?: is)?)\b[: ]+([^.;]{3,30})", re.IGNORECASE)


class Corpus:
    """The texts accepted so far, values left out: what is new, and what is over-used."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[str, frozenset[object]]] = {}
        self._rows_with: Counter[tuple[str, ...]] = Counter()
        self.num_rows = 0

    def add(self, needs: Sequence[Need], texts: Sequence[str], name: str) -> None:
        """Take in an accepted row."""
        self.num_rows += 1
        found: set[tuple[str, ...]] = set()
        for need, text in zip(needs, texts, strict=True):
            shape = mask(need, text)
            self._shapes.setdefault(shape, (name, _char_grams(shape)))
            found |= grams(words_of(shape), _GRAM_WORDS).keys()
        self._rows_with.update(found)

    def overused(self) -> list[str]:
        """Return the word triples that too many rows hold, most used first."""
        limit = max(_MIN_USES, _MAX_SHARE * self.num_rows)
        often = sorted((-count, gram) for gram, count in self._rows_with.items() if count > limit)
        return [" ".join(gram) for _, gram in often[:_MAX_AVOIDED]]

    def find_twin(self, need: Need, text: str) -> str | None:
        """Return the row that has nearly the same words."""
        shape = mask(need, text)
        if shape in self._shapes:
            return self._shapes[shape][0]
        own = _char_grams(shape)
        return next(
            (name for name, other in self._shapes.values() if similarity(own, other) >= MAX_SIMILARITY), None
        )


def wording_hash(name: str, texts: Sequence[str]) -> str:
    """Return what identifies a submitted row."""
    return hashlib.sha256(json.dumps([name, list(texts)]).encode()).hexdigest()[:16]


def accept(scenario: Scenario, texts: Sequence[str], corpus: Corpus, avoid: Iterable[str] = ()) -> Realised:
    """Return the finished row, or what to repair."""
    group = "cell:" + hashlib.sha1(json.dumps(scenario.cell, sort_keys=True).encode()).hexdigest()[:10]
    tags = {**row_tags(scenario), "formulation": scenario.id, "wording": wording_hash(scenario.id, texts)}
    made = realise(scenario, texts, f"{scenario.id.rpartition('-')[0]}:{group}", tags)
    if made.row is None:
        return made
    repairs = [*_check_facts(made.row), *_check_words(scenario, texts, corpus, avoid)]
    return Realised(None if repairs else made.row, repairs)


def _check_facts(row: Example) -> list[Repair]:
    turn_of = [sum(m.role == "user" for m in row.messages[: i + 1]) for i in range(len(row.messages))]
    return [
        Repair(
            kind=fault.kind, turn=turn_of[fault.message] if fault.message >= 0 else 0, problem=fault.problem
        )
        for fault in (*find_faults(row), *find_personal_data(row))
    ]


def _check_words(
    scenario: Scenario, texts: Sequence[str], corpus: Corpus, avoid: Iterable[str]
) -> Iterable[Repair]:
    avoided = [tuple(phrase.split()) for phrase in avoid]
    for number, (need, text) in enumerate(zip(scenario.needs, texts, strict=True), start=1):
        if problem := text_problem(text, "user"):
            yield Repair(kind=problem[0], turn=number, problem=problem[1])
        if problem := _find_unused(need, text, date.fromisoformat(scenario.today)):
            yield Repair(kind="unused_fact", turn=number, problem=problem)
        if twin := corpus.find_twin(need, text):
            yield Repair(
                kind="not_novel", turn=number, problem=f"nearly the words of {twin}: say it another way"
            )
        used = grams(words_of(mask(need, text)), _GRAM_WORDS)
        if worn := [" ".join(gram) for gram in avoided if gram in used]:
            yield Repair(kind="overused_phrase", turn=number, problem=f"avoid {', '.join(map(repr, worn))}")


def _find_unused(need: Need, text: str, today: date) -> str:
    """Return what is said beyond the need, so that the right call would be another one."""
    rest = mask(need, text)
    if "priority" not in {slot.rstrip("2") for slot in need.mentions} and (match := _PRIORITY.search(rest)):
        return f"{match[0]!r} says a priority, and none is to be set"
    if not need.prepositions and need.bank in {"create", "update", "list", "followup", "by_title", "ask"}:
        for match in _DATE_WORD.finditer(rest):
            if list(said_days(match[1], today)):
                return f"{match[0]!r} says a date, and none is to be set"
    return ""


def mask(need: Need, text: str) -> str:
    """Return a text with the mentioned values replaced by their names."""
    shape = text
    for slot, value in sorted(need.mentions.items(), key=lambda item: -len(item[1])):
        if value:
            shape = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", f"_{slot}_", shape, flags=re.IGNORECASE)
    return " ".join(shape.lower().split())


def _char_grams(text: str) -> frozenset[object]:
    return frozenset(text[i : i + 4] for i in range(max(1, len(text) - 3)))
