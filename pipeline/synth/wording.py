"""From a formulation to what a user types: slots filled, then roughened as people do.

A message is a list of pieces, and an argument is the text of its piece after all roughening, so that arguments are
verbatim by construction.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.synth.formulations import SLOT, Formulation
from pipeline.task_api.tools import order_arguments

_ARGUMENT_OF_SLOT = {
    "title": "title",
    "noun": "title",
    "due": "due_date",
    "when": "due_date",
    "priority": "priority",
    "description": "description",
    "search": "search",
    "id": "task_id",
}
_OPEN_ENDED = frozenset({"title", "noun", "description", "search"})
"""Slots whose end only punctuation can show."""
_GREETINGS = ("Hi, ", "hi, ", "Hey, ", "hey ", "Hello, ", "ok, ", "Okay, ", "so, ", "um, ", "Good morning, ")
_THANKS = ("Thanks!", "thanks", "Thanks.", "Thank you!", "thank you", "thx", "cheers")
_IMPERATIVE = re.compile(
    r"(add|create|make|put|mark|delete|remove|show|list|set|move|change|tick|complete|give|find|search|rename|remind"
    r"|note|log|check|cross|update|get rid|push|reschedule|schedule|look|drop|close|erase)\b"
)
_SALUTED = re.compile(r"(hi|hey|hello|good|yo|um|ok|okay|so|yeah|oh|morning)\b", re.IGNORECASE)
_POLITE = re.compile(r"\b(please|pls|thanks|thank|thx|cheers)\b", re.IGNORECASE)


@dataclass
class Piece:
    """A stretch of a message."""

    text: str
    slot: str = ""
    """Slot it fills; empty for the formulation's own words."""


@dataclass
class Wording:
    """One message in the making."""

    formulation: Formulation
    pieces: list[Piece]
    register: list[str] = field(default_factory=list[str])
    """Names of the roughenings applied."""

    @property
    def text(self) -> str:
        """The message as typed."""
        return "".join(piece.text for piece in self.pieces)

    def value(self, *slots: str) -> str | None:
        """Return what was typed for the first of these slots that occurs."""
        return next((piece.text for slot in slots for piece in self.pieces if piece.slot == slot), None)

    def arguments(self, number: str = "") -> dict[str, Any]:
        """Return the arguments that slots and constants carry (``number`` "2": those of the second call)."""
        found: dict[str, Any] = {}
        for piece in self.pieces:
            slot = piece.slot.removesuffix("2")
            if piece.slot and piece.slot.endswith("2") == bool(number):
                found[_ARGUMENT_OF_SLOT[slot]] = _to_argument(slot, piece.text)
        for key in ("priority", "status"):
            if key in self.formulation.constants:
                found[key] = self.formulation.constants[key]
        return found


def ordered(tool: str, *parts: Mapping[str, Any]) -> dict[str, Any]:
    """Merge arguments and put them in canonical order."""
    return order_arguments(tool, {key: value for part in parts for key, value in part.items()})


def fill(formulation: Formulation, values: Mapping[str, str | tuple[str, str]]) -> Wording:
    """Put values into the slots; ``{when}`` takes (preposition, expression)."""
    pieces: list[Piece] = []
    for index, part in enumerate(SLOT.split(formulation.text)):
        if index % 2 == 0:
            pieces.append(Piece(part))
            continue
        value = values[part]
        if isinstance(value, tuple):
            preposition, value = value
            pieces.append(Piece(f"{preposition} " if preposition else ""))
        pieces.append(Piece(value, part))
    return Wording(formulation, [piece for piece in pieces if piece.text])


def roughen(wording: Wording, rng: random.Random) -> None:
    """Change the surface as users do: case, punctuation, politeness, typos. About half of all messages stay clean."""
    for name, probability, change in _ROUGHENINGS:
        if rng.random() < probability and change(wording, rng):
            wording.register.append(name)


def apply_manner(wording: Wording, name: str, rng: random.Random) -> None:
    """Apply one named roughening, if it can be applied."""
    change = next(change for known, change in _MANNERS if known == name)
    if change(wording, rng):
        wording.register.append(name)
    wording.pieces = [piece for piece in wording.pieces if piece.text]


def _to_argument(slot: str, text: str) -> str | int:
    if slot == "id":
        return int(text)
    return text.lower() if slot == "priority" else text


def _add_greeting(wording: Wording, rng: random.Random) -> bool:
    if _SALUTED.match(wording.text) or wording.formulation.file in {"talk", "followup", "answers"}:
        return False
    first = wording.pieces[0]
    if not first.slot and not re.match(r"I\b|[A-Z]{2}", first.text):
        first.text = first.text[0].lower() + first.text[1:]
    wording.pieces.insert(0, Piece(rng.choice(_GREETINGS)))
    return True


def _add_please(wording: Wording, rng: random.Random) -> bool:
    first = wording.pieces[0]
    if first.slot or not _IMPERATIVE.match(first.text) or _POLITE.search(wording.text):
        return False
    first.text = rng.choice(["please ", "Please ", "pls ", "can you "]) + first.text
    if first.text.startswith("can you ") and not wording.pieces[-1].slot:
        wording.pieces[-1].text = wording.pieces[-1].text.rstrip(".!")
    return True


def _add_thanks(wording: Wording, rng: random.Random) -> bool:
    if wording.formulation.file == "talk" or _POLITE.search(wording.text):
        return False
    last = wording.pieces[-1]
    thanks = rng.choice(_THANKS)
    if last.text[-1] in ".!?":
        joint = " "
    elif last.slot.removesuffix("2") in _OPEN_ENDED:
        joint = ". "
    else:
        joint = rng.choice([", ", ". ", " - "])
    wording.pieces.append(Piece(joint + thanks))
    return True


def _change_ending(wording: Wording, rng: random.Random) -> bool:
    last = wording.pieces[-1]
    if not last.slot and last.text[-1:] in {".", "!", "?"} and last.text.strip(".!?"):
        last.text = last.text.rstrip(".!?")
        return True
    if last.text[-1:].isalnum() and "?" not in wording.text and _IMPERATIVE.match(wording.text):
        wording.pieces.append(Piece(rng.choice([".", ".", "!"])))
        return True
    return False


def _capitalise(wording: Wording, _: random.Random) -> bool:
    first = wording.pieces[0]
    if not first.text[0].islower():
        return False
    first.text = first.text[0].upper() + first.text[1:]
    return True


def _lower(wording: Wording, _: random.Random) -> bool:
    changed = wording.text != wording.text.lower()
    for piece in wording.pieces:
        piece.text = piece.text.lower()
    return changed


def _drop_apostrophes(wording: Wording, _: random.Random) -> bool:
    before = wording.text
    for piece in wording.pieces:
        if not piece.slot:
            piece.text = re.sub(r"(?<=[a-z])'(?=(m|t|s|ve|re|ll|d)\b)", "", piece.text, flags=re.IGNORECASE)
    return wording.text != before


def _double_space(wording: Wording, rng: random.Random) -> bool:
    return _change_at(wording, rng, r"(?<=\w) (?=\w)", lambda _space: "  ")


def _typo(wording: Wording, rng: random.Random) -> bool:
    def slip(word: str) -> str:
        at = rng.randrange(1, len(word) - 2)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return rng.choice([swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]])

    return _change_at(wording, rng, r"\b[a-z]{5,}\b", slip)


def _drop_articles(wording: Wording, _: random.Random) -> bool:
    before = wording.text
    for piece in wording.pieces:
        if not piece.slot:
            piece.text = re.sub(r"(?<!\w)(?:the|an?) (?=\w)", "", piece.text)
    return wording.text != before


def _drop_punctuation(wording: Wording, _: random.Random) -> bool:
    before = wording.text
    for piece in wording.pieces:
        if not piece.slot:
            piece.text = re.sub(r"[,;:!](?= |$)|[.?]$", "", piece.text)
    return wording.text != before


def _change_at(wording: Wording, rng: random.Random, pattern: str, change: Callable[[str], str]) -> bool:
    """Apply a change to one match, chosen at random, outside the slots."""
    places = [
        (piece, match)
        for piece in wording.pieces
        if not piece.slot
        for match in re.finditer(pattern, piece.text)
    ]
    if not places:
        return False
    piece, match = rng.choice(places)
    changed = change(match[0])
    piece.text = piece.text[: match.start()] + changed + piece.text[match.end() :]
    return changed != match[0]


_ROUGHENINGS = (
    ("please", 0.04, _add_please),
    ("ending", 0.10, _change_ending),
    ("thanks", 0.05, _add_thanks),
    ("apostrophe", 0.05, _drop_apostrophes),
    ("typo", 0.05, _typo),
    ("capital", 0.15, _capitalise),
    ("greeting", 0.06, _add_greeting),
    ("space", 0.02, _double_space),
    ("lower", 0.12, _lower),
)
_MANNERS = (
    *((name, change) for name, _, change in _ROUGHENINGS),
    ("articles", _drop_articles),
    ("commas", _drop_punctuation),
)
