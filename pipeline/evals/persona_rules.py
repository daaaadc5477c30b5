"""Does a reply keep to a persona? Binary items from its spec, checked by program: no model, no scale to argue about.

Forbidden words and the limits on emoji are hard rules: one breach fails the reply. Set phrases are judged over many
replies as a rate: too few and the persona is missing, too many and it is parroted.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Part
from pipeline.evals.intervals import Rate

_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class _SpecPart(BaseModel):
    """Base of the parts of a spec: what else a spec says (names, examples) is not needed here."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class Trait(_SpecPart):
    """One trait, seen by cues."""

    name: str
    """Such as `encouraging`."""
    cues: list[str] = []
    """Regular expressions, any of which shows the trait; without any, only counter-cues count."""
    counter_cues: list[str] = []
    """Regular expressions that show its opposite."""


class VocabularyBand(_SpecPart):
    """Set phrases and how often they may come."""

    phrases: list[str] = []
    """Texts, compared without case."""
    min_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of replies with any of them, at least."""
    max_rate: float = Field(default=1.0, ge=0, le=1)
    """And at most."""


class PersonaRules(_SpecPart):
    """The checkable part of a persona spec."""

    name: str
    """Such as `taskmaster`."""
    system_prompt: str = ""
    """What selects it."""
    traits: list[Trait] = []
    """Its traits."""
    opening: str | None = None
    """Regular expression that the first sentence matches."""
    closing: str | None = None
    """Regular expression that the last sentence matches."""
    vocabulary: VocabularyBand = VocabularyBand()
    """Set phrases."""
    max_emoji: int | None = Field(default=None, ge=0)
    """Emoji in one reply, at most."""
    sentence_words: tuple[int, int] | None = None
    """Fewest and most words in a sentence, on average over a reply."""
    forbidden: list[str] = []
    """Regular expressions that must never match."""


class ReplyVerdict(Part):
    """What one reply keeps and breaks."""

    traits: dict[str, bool]
    """By trait."""
    hard: dict[str, bool]
    """By hard rule: `forbidden`, `emoji`, `not_empty`."""
    pattern: dict[str, bool]
    """By soft rule: `opening`, `closing`, `sentence_length`."""
    uses_phrase: bool
    """A set phrase occurs."""
    breaches: list[str]
    """Texts that broke a hard rule."""

    @property
    def adheres(self) -> bool:
        """All hard rules and all traits hold."""
        return all(self.hard.values()) and all(self.traits.values())


class PersonaSummary(Part):
    """Many replies of one persona."""

    adherence: Rate
    """Replies that keep all hard rules and show all traits."""
    hard_rules: Rate
    """Replies that keep all hard rules."""
    traits: dict[str, Rate]
    """By trait."""
    patterns: dict[str, Rate]
    """By soft rule."""
    phrase_rate: Rate
    """Replies with a set phrase."""
    phrase_verdict: str
    """`in band`, `too rare` or `parroted`; `no band` when the spec has none."""
    distinct_ratio: float | None
    """Different replies among all: the same reply over and over is no persona."""


def read_persona(path: Path) -> PersonaRules:
    """Read a persona spec (YAML or JSON).

    Raises:
        InvalidInputError: If it is missing, no spec, or a regular expression in it is broken.
    """
    import yaml

    hint = "A spec names the persona, its traits with cues, and what is forbidden; see datasets/personas."
    try:
        rules = PersonaRules.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        patterns = [
            *rules.forbidden,
            *(p for trait in rules.traits for p in (*trait.cues, *trait.counter_cues)),
        ]
        for pattern in (*patterns, rules.opening or "", rules.closing or ""):
            re.compile(pattern)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError, re.error) as error:
        raise InvalidInputError(
            f"{path} is no persona spec: {str(error).splitlines()[0]}", hint=hint
        ) from error
    return rules


def judge_reply(rules: PersonaRules, text: str) -> ReplyVerdict:
    """Check one reply."""
    sentences = [part for part in _SENTENCE_END.split(text.strip()) if part]
    breaches = [found[0] for pattern in rules.forbidden if (found := _search(pattern, text))]
    hard = {"not_empty": bool(sentences), "forbidden": not breaches}
    if rules.max_emoji is not None:
        found_emoji = _EMOJI.findall(text)
        hard["emoji"] = len(found_emoji) <= rules.max_emoji
        breaches += found_emoji[rules.max_emoji :]
    pattern: dict[str, bool] = {}
    if rules.opening is not None:
        pattern["opening"] = bool(sentences) and _search(rules.opening, sentences[0]) is not None
    if rules.closing is not None:
        pattern["closing"] = bool(sentences) and _search(rules.closing, sentences[-1]) is not None
    if rules.sentence_words is not None:
        low, high = rules.sentence_words
        mean = len(text.split()) / max(1, len(sentences))
        pattern["sentence_length"] = low <= mean <= high
    return ReplyVerdict(
        traits={trait.name: _shows(trait, text) for trait in rules.traits},
        hard=hard,
        pattern=pattern,
        uses_phrase=any(phrase.casefold() in text.casefold() for phrase in rules.vocabulary.phrases),
        breaches=breaches,
    )


def summarise_replies(rules: PersonaRules, texts: Sequence[str]) -> PersonaSummary:
    """Return the rates over many replies."""
    verdicts = [judge_reply(rules, text) for text in texts]
    phrase_rate = Rate.of(verdict.uses_phrase for verdict in verdicts)
    return PersonaSummary(
        adherence=Rate.of(verdict.adheres for verdict in verdicts),
        hard_rules=Rate.of(all(verdict.hard.values()) for verdict in verdicts),
        traits={t.name: Rate.of(verdict.traits[t.name] for verdict in verdicts) for t in rules.traits},
        patterns=_rates_by_name([verdict.pattern for verdict in verdicts]),
        phrase_rate=phrase_rate,
        phrase_verdict=_judge_band(rules.vocabulary, phrase_rate),
        distinct_ratio=round(len(set(texts)) / len(texts), 4) if texts else None,
    )


def _rates_by_name(checks: Sequence[dict[str, bool]]) -> dict[str, Rate]:
    names = list(dict.fromkeys(name for found in checks for name in found))
    return {name: Rate.of(found[name] for found in checks if name in found) for name in names}


def _judge_band(band: VocabularyBand, rate: Rate) -> str:
    if not band.phrases or rate.rate is None:
        return "no band"
    if rate.rate < band.min_rate:
        return "too rare"
    return "parroted" if rate.rate > band.max_rate else "in band"


def _shows(trait: Trait, text: str) -> bool:
    if any(_search(pattern, text) for pattern in trait.counter_cues):
        return False
    return not trait.cues or any(_search(pattern, text) for pattern in trait.cues)


def _search(pattern: str, text: str) -> Any:
    return re.search(pattern, text, re.IGNORECASE)
