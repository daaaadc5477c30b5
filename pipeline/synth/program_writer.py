"""The program as a writer: finds a formulation for what a user turn has to say and fills it.

Costs nothing and repeats itself from a seed. Its words are those of the phrase banks (:mod:`formulations`); manners of
speaking are changes of the surface, for want of formulations sorted by manner.
"""

import re
from collections import Counter
from collections.abc import Callable

from pipeline.synth.cells import Cell
from pipeline.synth.dialogues import AFTER_CREATE, AFTER_LIST, DATE_WAS_GIVEN, DATE_WAS_MISSING, find_answer
from pipeline.synth.formulations import PRIORITIES, Formulation
from pipeline.synth.scenario import Need, Scenario
from pipeline.synth.scene import RejectedError, Supply
from pipeline.synth.wording import Wording, apply_manner, fill

_CORRECTS = re.compile(
    r"actually|\bno\b|sorry|meant|\bmean\b|wrong|mistake|misspoke|scratch|rather|second thought|changed my mind|wait"
    r"|should (?:be|have)|instead|correct|oops|hang on|mixed|better|\bhm\b|change"
)
_QUOTED_TITLE = re.compile(r"[\"“']\{(?:title|noun)\}[\"”']")
_POLITE = re.compile(r"please|could you|would you|thank|can you", re.IGNORECASE)
_MANNERS = {
    "plain": (),
    "terse": ("ending",),
    "polite": ("please", "thanks"),
    "typo": ("typo", "apostrophe", "typo"),
    "spoken": ("commas", "apostrophe", "lower"),
    "non_native": ("articles",),
}
_PREFERRED_SHARE = 0.5


class ProgramWriter:
    """Words scenarios from the bank of a supply."""

    def __init__(self, supply: Supply, max_uses: int) -> None:
        """Open the writer.

        Args:
            supply: Formulations, and how often each was used.
            max_uses: How many rows may be about one formulation, so that no template grows too common.
        """
        self.supply, self.rng, self.max_uses = supply, supply.rng, max_uses
        self.rows_about: Counter[str] = Counter()

    def write(self, scenario: Scenario) -> tuple[list[str], Formulation]:
        """Return the user texts, and the formulation that the row is about.

        Raises:
            RejectedError: If no formulation says what is needed.
        """
        cell = Cell(**scenario.cell)
        needs = scenario.needs
        about = _main_turn(cell, len(needs))
        lines = [self._choose(need, cell, is_main=i == about) for i, need in enumerate(needs)]
        texts = [self._word(need, line, cell.register) for need, line in zip(needs, lines, strict=True)]
        for line in lines:
            self.supply.used[line.id] += 1
        self.rows_about[lines[about].id] += 1
        return texts, lines[about]

    def _choose(self, need: Need, cell: Cell, *, is_main: bool) -> Formulation:
        fits = _fit(need)
        lines = [
            line
            for line in self.supply.bank.formulations[need.bank]
            if fits(line) and not (is_main and self.rows_about[line.id] >= self.max_uses)
        ]
        if not lines:
            raise RejectedError(f"no formulation of {need.bank} says {sorted(need.mentions)} {need.implied}")
        least = min(self.supply.used[line.id] for line in lines)
        fresh = [line for line in lines if self.supply.used[line.id] == least]
        return self.rng.choice(_preferred(fresh, cell.register))

    def _word(self, need: Need, line: Formulation, register: str) -> str:
        values: dict[str, str | tuple[str, str]] = {}
        for slot in sorted(line.slots):  # in one order: a set's order changes from process to process
            name = slot.replace("when", "due")
            if slot != name:
                values[slot] = (self.rng.choice(need.prepositions[name]), need.mentions[name])
            else:
                values[slot] = need.mentions[name]
        wording: Wording = fill(line, values)
        for manner in _MANNERS[register]:
            apply_manner(wording, manner, self.rng)
        return wording.text


def _main_turn(cell: Cell, num_turns: int) -> int:
    """Return the turn whose formulation names the row: the one that makes its shape what it is."""
    if cell.shape in {"followup", "correction", "from_list", "talk_after_list", "long"}:
        return 1 if num_turns > 1 else 0
    return 0


def _preferred(lines: list[Formulation], register: str) -> list[Formulation]:
    if register == "terse":
        return sorted(lines, key=lambda line: (len(line.text), line.text))[
            : max(1, round(len(lines) * _PREFERRED_SHARE))
        ]
    if register == "polite":
        return [line for line in lines if _POLITE.search(line.text)] or lines
    return lines


def _fit(need: Need) -> Callable[[Formulation], bool]:
    wanted = set(need.mentions)
    constants = {key: value for key, value in need.implied.items() if key not in {"field"}}
    if need.bank in {"ask", "answers"}:
        constants.pop("action", None)

    def fits(line: Formulation) -> bool:
        slots = {slot.replace("when", "due") for slot in line.slots}
        implied = dict(line.constants)
        priority = implied.pop("priority", None)
        if priority and need.mentions.get("priority") == priority:
            slots.add("priority")
        elif priority:
            return False
        if slots != wanted or implied != constants:
            return False
        return _fits_dates(line, need) and _fits_words(line, need)

    return fits


def _fits_dates(line: Formulation, need: Need) -> bool:
    """True unless a date would stand after a word that it does not go with."""
    return all("by" in need.prepositions[slot] for slot in line.slots if slot.startswith("due"))


def _fits_words(line: Formulation, need: Need) -> bool:
    words = line.text.lower()
    if need.mentions.get("title") == "" and not _QUOTED_TITLE.search(line.text):
        return False
    if need.mentions.get("priority", "low") not in PRIORITIES and "priority" not in line.slots:
        return False
    if need.bank == "followup":
        return _fits_context(words, need)
    if need.bank == "ask":
        topic, action = find_answer(line)
        if "field" in need.implied:
            return need.implied["field"] in topic.split("|")
        return action == need.implied["action"]
    return True


def _fits_context(words: str, need: Need) -> bool:
    if need.context == "listed":
        return not AFTER_CREATE.search(words)
    if AFTER_LIST.search(words):
        return False
    if need.context == "correction":
        return bool(_CORRECTS.search(words)) and not DATE_WAS_MISSING.search(words)
    if "due" in need.mentions:
        forbidden = DATE_WAS_MISSING if need.context == "created_with_date" else DATE_WAS_GIVEN
        return not forbidden.search(words)
    return True
