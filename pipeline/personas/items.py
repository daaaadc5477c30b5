"""Programmatic items: does a reply sound like a persona? Words only, no model; it does not check task facts.

Titles, notes and list lines are taken out first, because they are the user's words. Sentence embeddings are not used:
they measure the topic, not the style.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.core.messages import Record
from pipeline.personas.spec import Persona, compile_cue

PASS_RATIO = 0.9
"""Share of a reply's style items that must pass, beside all hard ones."""

_QUOTED = re.compile(r'"[^"\n]*"')
_LIST_LINE = re.compile(r"^[ \t]*[-*•].*$", re.MULTILINE)
_TASK = re.compile(r"\btask #?\d+", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_WORD = re.compile(r"[\w'-]+")
_EMOJI_FROM = 0x1F000


class Verdict(Record):
    """What one item says of a reply."""

    item: str
    """Name of the item."""
    passed: bool
    """Whether the reply is as it should be."""
    hard: bool = False
    """The reply fails when this item does."""
    evidence: str = ""
    """Words that decided it, or what is missing."""


class ReplySetVerdict(Record):
    """What the items say of many replies of one persona."""

    num_replies: int
    """Replies judged."""
    num_passed: int
    """Replies that pass."""
    passed_by_item: dict[str, tuple[int, int]]
    """Item -> replies that pass it, replies it was asked of."""
    vocabulary_rate: float
    """Share of replies with a signature phrase."""
    vocabulary_in_band: bool
    """Whether that share lies in the persona's band."""


def judge_reply(persona: Persona, text: str) -> list[Verdict]:
    """Return the verdict of every item that applies to a reply."""
    text = text.replace("\u2019", "'")
    prose = _QUOTED.sub('""', _LIST_LINE.sub("", text)).strip()
    sentences = [part for part in _SENTENCE_END.split(prose) if _WORD.search(part)]
    verdicts = [
        Verdict(
            item="no_empty_reply", passed=bool(sentences), hard=True, evidence="" if sentences else "no words"
        )
    ]
    for trait in persona.traits:
        against = _find(trait.counter_cues, prose)
        found = _find(trait.cues, prose)
        evidence = f"against it: {against}" if against else found or "no cue"
        verdicts.append(Verdict(item=trait.name, passed=bool(found) and not against, evidence=evidence))
    verdicts += _judge_pattern(persona, text, prose, sentences)
    verdicts += _judge_size(persona, text, sentences)
    phrases = _said_phrases(persona, prose)
    verdicts.append(
        Verdict(
            item="no_parroting",
            passed=len(phrases) <= persona.vocabulary.max_per_reply,
            hard=True,
            evidence=", ".join(phrases),
        )
    )
    for rule in persona.forbidden:
        found = _find(rule.cues, prose)
        verdicts.append(Verdict(item=rule.name, passed=not found, hard=True, evidence=found))
    return verdicts


def style_ratio(verdicts: Sequence[Verdict]) -> float:
    """Return the share of style items passed; hard items are left out, since any plain reply passes them."""
    style = [verdict.passed for verdict in verdicts if not verdict.hard]
    return sum(style) / len(style)


def passes(persona: Persona, text: str) -> bool:
    """True when a reply passes all hard items and at least :data:`PASS_RATIO` of the style items."""
    verdicts = judge_reply(persona, text)
    return all(verdict.passed for verdict in verdicts if verdict.hard) and style_ratio(verdicts) >= PASS_RATIO


def judge_replies(persona: Persona, texts: Sequence[str]) -> ReplySetVerdict:
    """Return how many replies pass, by item too, and whether signature phrases keep to their band."""
    judged = [judge_reply(persona, text) for text in texts]
    asked = Counter(verdict.item for verdicts in judged for verdict in verdicts)
    passed = Counter(verdict.item for verdicts in judged for verdict in verdicts if verdict.passed)
    with_phrase = sum(any(_said_phrases(persona, text.replace("\u2019", "'"))) for text in texts)
    rate = with_phrase / len(texts) if texts else 0.0
    return ReplySetVerdict(
        num_replies=len(texts),
        num_passed=sum(passes(persona, text) for text in texts),
        passed_by_item={item: (passed[item], number) for item, number in asked.items()},
        vocabulary_rate=round(rate, 4),
        vocabulary_in_band=persona.vocabulary.min_rate <= rate <= persona.vocabulary.max_rate,
    )


def _judge_pattern(persona: Persona, text: str, prose: str, sentences: Sequence[str]) -> Iterable[Verdict]:
    places = {"opening": sentences[0] if sentences else "", "closing": sentences[-1] if sentences else ""}
    if _TASK.search(text) or _QUOTED.search(text):
        places["confirmation"] = prose
    for name, place in places.items():
        found = _find(getattr(persona.pattern, name).cues, place)
        yield Verdict(item=name, passed=bool(found), evidence=found or "no cue")


def _judge_size(persona: Persona, text: str, sentences: Sequence[str]) -> Iterable[Verdict]:
    longest = max((len(_WORD.findall(sentence)) for sentence in sentences), default=0)
    fits = longest <= persona.length.max_sentence_words and len(sentences) <= persona.length.max_sentences
    yield Verdict(
        item="length", passed=fits, evidence=f"{len(sentences)} sentences, the longest of {longest} words"
    )
    emoji = sum(ord(letter) >= _EMOJI_FROM or unicodedata.category(letter) == "So" for letter in text)
    yield Verdict(item="emoji", passed=emoji <= persona.max_emoji, hard=True, evidence=f"{emoji} emoji")


def _said_phrases(persona: Persona, text: str) -> list[str]:
    return [
        match[0]
        for phrase in persona.vocabulary.phrases
        for match in compile_cue(re.escape(phrase)).finditer(text)
    ]


def _find(cues: Iterable[str], text: str) -> str:
    """Return the first words that a cue matches, or nothing."""
    return next((match[0] for cue in cues if (match := compile_cue(cue).search(text))), "")
