"""What makes two conversations the same, or nearly the same: keys, shingles, and the one decision about a pair.

Exact: equal roles, texts (up to Unicode form and white space), calls and tools. Near: equal calls and tools, the same
roles in order, and Jaccard similarity over word 3-grams of all turns at or above the threshold. System turns are shared
boilerplate, so they do not count in the 3-grams; they are compared like every turn by a lower bar of their own, which
keeps conversations apart that share a long opening and differ in one later turn, and so are symbols, which no word holds
(docs/decisions/0013). Where nothing is
dropped but two files are held apart (leak check, split), the looser :meth:`Fingerprint.across_labels` counts. Searching
for candidates is :mod:`pipeline.data.backends.near_duplicates`' work.
"""

import json
import re
import unicodedata
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

from pipeline.core.messages import Message
from pipeline.data.conversation import Conversation

DEFAULT_THRESHOLD = 0.8
MIN_SHINGLES = 8
"""Fewer than this and only equal rows are duplicates: one word more or less is then another sentence."""
MIN_TURN_SIMILARITY = 0.5
"""Share of common words that every single pair of turns needs."""
_WORD_NGRAM, _CHARACTER_NGRAM = 3, 5
_TURN_END, _FIELD_END = "\x1e", "\x1f"  # ASCII record and unit separators: no word holds them
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)
_WORD = re.compile(r"\w+")
_NO_WORD = re.compile(r"[^\w\s.,;:!?'\"()\-\x00-\x1f\x7f]+")
# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, kana, Han (with extensions A and B on)
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class Answer(NamedTuple):
    """One assistant turn for the search of contradictions, as 64-bit numbers."""

    prefix: int
    """Equal for equal tools and turns before it."""
    calls: int
    """Equal for equal calls; one number for all turns without calls."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A conversation as words, for comparing."""

    roles: tuple[str, ...]
    """Who speaks, in order."""
    words: tuple[tuple[str, ...], ...]
    """Case-folded words of each turn; single characters where a script has no spaces."""
    ngram: int
    """Words in a shingle: 3, or 5 where the words are characters."""
    symbols: tuple[str, ...]
    """Operators, emoji and the like of each turn, in order; no punctuation."""

    @classmethod
    def of(cls, messages: Sequence[Message]) -> "Turns":
        """Cut the turns of a conversation into words."""
        texts = [_fold(message.content or "") for message in messages]
        num_unspaced = sum(len(_UNSPACED.findall(text)) for text in texts if not text.isascii())
        is_unspaced = num_unspaced > sum(map(len, texts)) / 2
        split = _split_characters if is_unspaced else _WORD.findall
        return cls(
            roles=tuple(message.role for message in messages),
            words=tuple(tuple(split(text)) for text in texts),
            ngram=_CHARACTER_NGRAM if is_unspaced else _WORD_NGRAM,
            symbols=tuple(map(_find_symbols, texts)),
        )

    def shingles(self) -> set[str]:
        """Return the n-grams of all turns but system turns, with a mark of the role where a turn begins."""
        tokens: list[str] = []
        for role, words in zip(self.roles, self.words, strict=True):
            if role != "system":
                tokens += [f"<{role}>", *words]
        return set(map(" ".join, zip(*(tokens[start:] for start in range(self.ngram)), strict=False)))

    def pack(self) -> bytes:
        """Return the turns as bytes for a work file."""
        turns = [
            _FIELD_END.join((role, " ".join(words), symbols))
            for role, words, symbols in zip(self.roles, self.words, self.symbols, strict=True)
        ]
        return _TURN_END.join([str(self.ngram), *turns]).encode("utf-8")

    @classmethod
    def unpack(cls, packed: bytes) -> "Turns":
        """Read what :meth:`pack` wrote."""
        ngram, *turns = packed.decode("utf-8").split(_TURN_END)
        fields = [turn.split(_FIELD_END) for turn in turns]
        return cls(
            roles=tuple(role for role, _, _ in fields),
            words=tuple(tuple(words.split()) for _, words, _ in fields),
            ngram=int(ngram),
            symbols=tuple(symbols for _, _, symbols in fields),
        )


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a row is compared by."""

    exact: bytes
    """Equal for equal conversations."""
    label: bytes
    """Equal for equal tools and calls; near-duplicates are sought only inside one label."""
    turns: Turns
    """Its words."""
    shingles: frozenset[str]
    """Its n-grams."""

    @classmethod
    def of(cls, conversation: Conversation) -> "Fingerprint":
        """Describe a conversation."""
        tools = _canonical(conversation.tools) if conversation.tools else ""
        calls = [
            (position, call.name, call.arguments)
            for position, message in enumerate(conversation.messages)
            for call in message.tool_calls
        ]
        turns = Turns.of(conversation.messages)
        return cls(
            exact=_digest(tools, *(_describe(message) for message in conversation.messages)),
            label=_digest(tools, _canonical(calls)),
            turns=turns,
            shingles=frozenset(turns.shingles()),
        )

    @classmethod
    def across_labels(cls, conversation: Conversation) -> "Fingerprint":
        """Describe what was said, for a search that looks across labels.

        System turns and tools are how a conversation was set up: a copy that only gained one is still a leak, and so is
        one that gained an emoji or a bold word, so symbols are left aside.
        """
        said = tuple(message for message in conversation.messages if message.role != "system")
        # A row of system turns alone keeps them: without any turn all such rows would be equal.
        found = cls.of(replace(conversation, messages=said or conversation.messages, tools=()))
        return replace(found, turns=replace(found.turns, symbols=("",) * len(found.turns.roles)))


def find_similarity(one: Turns, other: Turns, threshold: float) -> float | None:
    """Return the exact Jaccard similarity of a near-duplicate pair, or None when it is no such pair.

    Labels are not looked at: whoever pairs rows up decides whether they must be equal.
    """
    if one.roles != other.roles or one.symbols != other.symbols:
        return None
    similarity = jaccard(one.shingles(), other.shingles())
    if similarity < threshold:
        return None
    for mine, theirs in zip(one.words, other.words, strict=True):
        if mine != theirs and jaccard(set(mine), set(theirs)) < MIN_TURN_SIMILARITY:
            return None
    return similarity


def jaccard(one: set[str] | frozenset[str], other: set[str] | frozenset[str]) -> float:
    """Return the share of common elements among all; 1 for two empty sets."""
    common = len(one & other)
    total = len(one) + len(other) - common
    return common / total if total else 1.0


def list_answers(conversation: Conversation) -> Generator[Answer]:
    """Yield the assistant turns of a conversation that has tools, each with what came before it."""
    if not conversation.tools and not any(message.tool_calls for message in conversation.messages):
        return
    prefix = _number(_canonical(conversation.tools))
    for message in conversation.messages:
        if message.role == "assistant":
            calls = [(call.name, call.arguments) for call in message.tool_calls]
            yield Answer(prefix, _number(_canonical(calls)))
        prefix = _number(f"{prefix} {_describe(message)}")


def _describe(message: Message) -> str:
    text = " ".join(unicodedata.normalize("NFC", message.content or "").split())
    calls = [(call.name, call.arguments) for call in message.tool_calls]
    return _canonical([message.role, text, calls])


def _canonical(value: Any) -> str:
    return _ENCODER.encode(value)


def _digest(*parts: str) -> bytes:
    return blake2b(_TURN_END.join(parts).encode("utf-8"), digest_size=16).digest()


def _number(text: str) -> int:
    return int.from_bytes(_digest(text)[:8], "little")


def _fold(text: str) -> str:
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _find_symbols(text: str) -> str:
    found = "".join(_NO_WORD.findall(text))
    return found if found.isascii() else "".join(filter(_is_symbol, found))


def _is_symbol(character: str) -> bool:
    # Beyond ASCII: marks belong to words (vowel signs of Thai and Hindi), controls and formats are invisible, and what
    # Unicode calls punctuation are quotes, dashes and stops. Unknown characters count: emoji newer than Python's tables.
    category = unicodedata.category(character)
    return character.isascii() or (category[0] not in "MP" and category not in {"Cc", "Cf"})


def _split_characters(text: str) -> list[str]:
    return [character for word in _WORD.findall(text) for character in word]
