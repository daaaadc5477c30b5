"""What a writer is told: the situation, what each user turn has to say, and what the assistant will do; no example.

Examples are left out on purpose, because writers copy them.
"""

import json
from typing import Any

from pipeline.core.operation import Part
from pipeline.synth.scenario import CONTEXTS, VERBATIM, Need, PlannedCall, Scenario, Step

RULES = (
    "Write what a person types to a task assistant, one text for each user turn, in the given manner.",
    "What stands under `word_for_word` must be in the text exactly so (capitals do not matter); build the sentence around it.",
    "A `priority` may be said or plainly implied; `numbers` are named as digits.",
    "Say nothing that would need another call or argument: no other date, priority, note, number or task.",
    "Ask for each thing in a way of your own: other openings, other order, other length, other verbs from text to text.",
    "Use none of the phrases to avoid. Name no real person, address, phone number or key.",
)
_MANNERS = {
    "plain": "plain and friendly",
    "terse": "as few words as possible",
    "polite": "polite, in whole sentences",
    "typo": "typed in a hurry, with one or two slips outside the words given",
    "spoken": "dictated: no punctuation, fillers, a restart",
    "non_native": "a careful non-native speaker: small errors of article, tense or preposition",
}
_REQUESTS = {
    "create": "asks for a new task",
    "update": "asks to change the task of this number",
    "complete": "says or asks that the task of this number be marked as completed",
    "delete": "asks to delete the task of this number for good",
    "list": "asks to see tasks, with these limits and no other; a date is the day before which they are due",
    "answers": "answers the assistant's question",
    "talk": "says something that needs no call",
}
_TALK = {
    "greeting": "a greeting",
    "thanks": "thanks",
    "goodbye": "a goodbye",
    "capability": "asks what the assistant can do",
    "offtopic": "asks for something that has nothing to do with a task list",
    "acknowledge": "takes note of what was said",
}
_DEEDS = {
    "update": "change",
    "complete": "mark as completed",
    "delete": "delete for good",
    "create": "create",
}
_MISSING = {"title": "what it should be called", "task_id": "which task it is", "change": "what to change"}


class BriefTurn(Part):
    """One user turn to be written."""

    asks: str
    """What the user wants."""
    word_for_word: list[str] = []
    """Texts that must be in it exactly so."""
    numbers: list[str] = []
    """Task numbers to name."""
    details: dict[str, str] = {}
    """What each of these is, and what else must be clear."""
    then: str
    """What the assistant does about it."""


class BriefItem(Part):
    """One conversation to be worded."""

    id: str
    """Name to submit it under."""
    manner: str
    """How this person writes."""
    today: str
    """The simulated day."""
    initial_state: list[dict[str, Any]]
    """Tasks at the start."""
    turns: list[BriefTurn]
    """User turns, in order."""


def make_item(scenario: Scenario) -> BriefItem:
    """Return the brief of one scenario."""
    turns: list[BriefTurn] = []
    for position, step in enumerate(scenario.steps):
        if step.need:
            rest = scenario.steps[position + 1 :]
            until = next((i for i, other in enumerate(rest) if other.need), len(rest))
            turns.append(_make_turn(step.need, rest[:until]))
    return BriefItem(
        id=scenario.id,
        manner=_MANNERS[scenario.cell["register"]],
        today=scenario.today,
        initial_state=scenario.initial_state,
        turns=turns,
    )


def _make_turn(need: Need, steps: list[Step]) -> BriefTurn:
    verbatim = {slot: value for slot, value in need.mentions.items() if slot.rstrip("2") in VERBATIM}
    details = {
        slot.replace("noun", "title"): value
        for slot, value in need.mentions.items()
        if not slot.startswith("id")
    }
    for slot, words in need.prepositions.items():
        details[f"{slot} stands after"] = " or ".join(word or "no preposition" for word in words)
    if "status" in need.implied:
        details["status"] = f"only {need.implied['status']} tasks"
    if need.implied.get("shared"):
        details["shared"] = f"the {need.implied['shared']} holds for both"
    return BriefTurn(
        asks=_describe(need),
        word_for_word=[value for value in verbatim.values() if value],
        numbers=[value for slot, value in need.mentions.items() if slot.startswith("id")],
        details=details,
        then="; ".join(_tell(step) for step in steps),
    )


def _describe(need: Need) -> str:
    if need.bank == "talk":
        return f"{_REQUESTS['talk']}: {_TALK[need.implied['reply']]}"
    if need.bank == "multi":
        first, second = need.implied["calls"].split("+")
        return f"asks for two things at once: {_DEEDS[first]} one task; {_DEEDS[second]} another (its details end in 2)"
    if need.bank == "ask":
        missing = _MISSING[need.implied["ask"]]
        field = f" (it will be the {need.implied['field']})" if "field" in need.implied else ""
        return f"asks to {_DEEDS[need.implied['action']]} a task, but leaves out {missing}{field}"
    if need.bank == "by_title":
        return f"asks to {_DEEDS[need.implied['action']]} the task of this title, without its number"
    if need.bank == "followup":
        return f"asks to {_DEEDS[need.implied['action']]} it: {CONTEXTS[need.context]}"
    if need.mentions.get("title") == "":
        return 'asks for a new task whose title is empty: ""'
    if need.bank == "list" and not need.mentions and not need.implied:
        return "asks to see all tasks"
    return _REQUESTS[need.bank]


def _tell(step: Step) -> str:
    if step.calls:
        return "calls " + ", ".join(map(_tell_call, step.calls))
    return {"report": "reports the result", "text": f"says: {step.text}"}.get(
        step.reply, "says what was found"
    )


def _tell_call(call: PlannedCall) -> str:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return f"{call.name}({arguments})" + (f", which fails with {call.fails}" if call.fails else "")
