"""The coverage matrix: which conversations there can be, and which of them to make.

A cell is one combination of nine attributes. A shape is a family of conversations with one structure; it says which
values its cells may have, so that no cell is impossible. Cells are chosen by pairwise covering (every possible pair of
values of two attributes at least once, D. R. Kuhn et al., NIST SP 800-142), then by how rare their pairs still are.
This module decides no calls: see :mod:`pipeline.synth.planner`.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

DIMENSIONS = (
    "intent", "slots", "date_form", "reference", "register", "outcome", "turns", "calls", "persona",
)  # fmt: skip
REGISTERS = ("plain", "terse", "polite", "typo", "spoken", "non_native")
PERSONAS = ("neutral", "taskmaster", "analyst", "planner")
MIX = {"single": 0.40, "multi_turn": 0.20, "parallel": 0.10, "errors": 0.12, "ask": 0.08, "no_call": 0.10}
"""Shares of the categories: data_and_eval notes, section 3."""
COMPOSITIONAL = frozenset(
    {("create", "description+priority"), ("update", "date+title"), ("list", "priority+search")}
)
"""Pairs of intent and slots that only test rows have, each part of which training knows from other rows."""
_CANDIDATES, _FEW = 60, 4  # few, once all pairs are covered: then the weights of the shapes count


class Cell(NamedTuple):
    """One combination of attributes."""

    shape: str
    """Family of conversations."""
    intent: str
    """What the user wants done."""
    slots: str
    """What the user tells beside the task, joined by plus signs."""
    date_form: str
    """How a date is said."""
    reference: str
    """How the task is named."""
    register: str
    """Manner of speaking."""
    outcome: str
    """What comes of it."""
    turns: str
    """User turns."""
    calls: str
    """Calls and how they hang together."""
    persona: str
    """Who the assistant is."""

    @property
    def category(self) -> str:
        """The part of the mix it counts for."""
        return SHAPES[self.shape].category

    def pairs(self) -> list[tuple[str, str, str, str]]:
        """Return all pairs of two attributes and their values."""
        values = [(name, str(getattr(self, name))) for name in DIMENSIONS]
        pairs = [(a, x, b, y) for (a, x), (b, y) in itertools.combinations(values, 2)]
        return [*pairs, ("shape", self.shape, "intent", self.intent)]


class Shape(NamedTuple):
    """A family of conversations."""

    category: str
    intent: Sequence[str]
    slots: Sequence[str] = ("none",)
    reference: Sequence[str] = ("none",)
    outcome: Sequence[str] = ("ok",)
    turns: Sequence[str] = ("1",)
    calls: Sequence[str] = ("1",)
    weight: float = 1.0
    """How often it is drawn beside the other shapes of its category."""


_CHANGES = ("update", "complete", "delete")
_CREATE_SLOTS = (
    "none", "date", "priority", "description", "date+priority", "date+description", "description+priority",
    "date+description+priority",
)  # fmt: skip
_UPDATE_SLOTS = ("date", "priority", "title", "description", "date+priority", "date+title")
_LIST_SLOTS = (
    "none", "status", "priority", "date", "search", "priority+status", "date+status", "search+status",
    "date+priority", "priority+search",
)  # fmt: skip
_ACT_SLOTS = ("none", "date", "priority", "description")
_PAIRED = tuple(f"{a}+{b}" for a in ("create", *_CHANGES) for b in ("create", *_CHANGES))
SHAPES: dict[str, Shape] = {
    "create": Shape("single", ("create",), _CREATE_SLOTS, weight=3),
    "change": Shape("single", ("update",), _UPDATE_SLOTS, ("id",), weight=2),
    "close": Shape("single", ("complete", "delete"), ("none",), ("id",), weight=1),
    "lookup": Shape(
        "single", _CHANGES, (*_ACT_SLOTS, "date+priority"), ("exact_title", "partial_title"), calls=("2_dependent",),
        weight=1.5,
    ),
    "list": Shape("single", ("list",), _LIST_SLOTS, weight=1.5),
    "list_empty": Shape("single", ("list",), _LIST_SLOTS[1:], outcome=("none_found",), weight=0.5),
    "followup": Shape(
        "multi_turn", _CHANGES, ("none", "date", "priority", "title", "description", "date+priority"), ("pronoun",),
        turns=("2-3",), calls=("2_dependent",), weight=3,
    ),
    "correction": Shape(
        "multi_turn", ("update",), ("date", "priority", "title"), ("pronoun",), turns=("2-3",), calls=("2_dependent",),
        weight=2,
    ),
    "from_list": Shape(
        "multi_turn", _CHANGES, _ACT_SLOTS, ("exact_title",), turns=("2-3",), calls=("2_dependent",), weight=2
    ),
    "long": Shape(
        "multi_turn", _CHANGES, _ACT_SLOTS, ("id", "pronoun"), turns=("4+",), calls=("3+",), weight=2
    ),
    "parallel": Shape("parallel", _PAIRED, ("any",), ("id",), calls=("2_parallel",)),
    "missing": Shape("errors", _CHANGES, _ACT_SLOTS, ("id",), ("not_found",)),
    "parallel_missing": Shape(
        "errors", tuple(f"{a}+{b}" for a in _CHANGES for b in _CHANGES), ("any",), ("id",), ("not_found",),
        calls=("2_parallel",), weight=0.5,
    ),
    "done_already": Shape("errors", ("complete",), ("none",), ("id",), ("already_completed",), weight=0.7),
    "bad_date": Shape(
        "errors", ("create", "update"), ("date", "date+priority"), ("none", "id"),
        ("past_due_date", "invalid_due_date"), ("1", "2-3"), ("1", "2_dependent"), weight=2,
    ),
    "timeout": Shape(
        "errors", ("create", *_CHANGES), _ACT_SLOTS, ("none", "id"), ("timeout",), calls=("2_dependent",), weight=1.5
    ),
    "conflict": Shape("errors", _CHANGES, _ACT_SLOTS, ("id",), ("conflict",), calls=("3+",), weight=1.5),
    "no_title": Shape("errors", _CHANGES, _ACT_SLOTS, ("exact_title",), ("none_found",), weight=1.5),
    "ambiguous": Shape(
        "errors", _CHANGES, _ACT_SLOTS, ("ambiguous",), ("several_found",), ("1", "2-3"), ("1", "2_dependent"),
        weight=1.5,
    ),
    "missing_title": Shape(
        "ask", ("create",), ("none", "date", "priority"), ("missing",), ("asked",), ("1", "2-3"), ("0", "1"), weight=2
    ),
    "missing_id": Shape(
        "ask", _CHANGES, ("none", "date", "priority"), ("missing",), ("asked",), ("1", "2-3"), ("0", "1"), weight=2
    ),
    "missing_change": Shape("ask", ("update",), ("none",), ("id",), ("asked",), ("1", "2-3"), ("0", "1"), weight=1.5),
    "invalid_priority": Shape(
        "ask", ("create", "update"), ("priority",), ("none", "id"), ("invalid_priority",), ("1", "2-3"), ("0", "1"),
        weight=1.5,
    ),
    "empty_title": Shape(
        "ask", ("create",), ("none", "date"), ("none",), ("empty_title",), ("1", "2-3"), ("0", "1"), weight=1
    ),
    "talk": Shape("no_call", ("none",), outcome=("no_call",), calls=("0",), weight=4),
    "talk_after_list": Shape("no_call", ("none",), outcome=("no_call",), turns=("2-3",), weight=1),
}  # fmt: skip


class Matrix(NamedTuple):
    """Cells to make, and how much of the possible they cover."""

    cells: list[Cell]
    pairs: frozenset[tuple[str, str, str, str]]
    """Pairs of values that can occur together."""
    missing: list[str]
    """Of those, pairs that no cell holds, in words."""


def possible_cells(accept: Callable[[Cell], bool], personas: Sequence[str] = PERSONAS) -> list[Cell]:
    """Return every cell of every shape that is accepted, in a fixed order."""
    return [cell for name in SHAPES for cell in _cells_of(name, personas) if accept(cell)]


def choose_cells(cells: Sequence[Cell], num_rows: int, rng: random.Random) -> Matrix:
    """Choose cells in the shares of :data:`MIX`: first those that cover new pairs, then those with rare pairs."""
    possible = frozenset(pair for cell in cells for pair in cell.pairs())
    counts: Counter[tuple[str, str, str, str]] = Counter()
    chosen: list[Cell] = []
    reached = 0.0
    for category, share in MIX.items():
        reached += share
        wanted = round(reached * num_rows) - len(chosen)
        chosen += _cover([cell for cell in cells if cell.category == category], wanted, counts, rng)
    rng.shuffle(chosen)
    missing = sorted(pair for pair in possible if not counts[pair])
    return Matrix(chosen, possible, [f"{a}={x} with {b}={y}" for a, x, b, y in missing])


def _cover(
    cells: Sequence[Cell], wanted: int, counts: Counter[tuple[str, str, str, str]], rng: random.Random
) -> list[Cell]:
    pairs_of = {cell: cell.pairs() for cell in cells} if wanted > 0 else {}
    holding: dict[tuple[str, str, str, str], list[Cell]] = {}
    for cell, pairs in pairs_of.items():
        for pair in pairs:
            holding.setdefault(pair, []).append(cell)
    weights = _weights(cells) if wanted > 0 else []
    open_pairs = sorted(pair for pair in holding if not counts[pair])
    rng.shuffle(open_pairs)
    chosen: list[Cell] = []
    while len(chosen) < wanted:
        while open_pairs and counts[open_pairs[-1]]:
            open_pairs.pop()
        pool = holding[open_pairs[-1]] if open_pairs else None
        candidates = rng.choices(pool, k=_CANDIDATES) if pool else rng.choices(cells, weights, k=_FEW)
        best = max(candidates, key=lambda cell: sum(1 / (1 + counts[pair]) for pair in pairs_of[cell]))
        counts.update(pairs_of[best])
        chosen.append(best)
    return chosen


def _weights(cells: Iterable[Cell]) -> list[float]:
    listed = list(cells)
    per_shape = Counter(cell.shape for cell in listed)
    return [SHAPES[cell.shape].weight / per_shape[cell.shape] for cell in listed]


def _cells_of(name: str, personas: Sequence[str]) -> Iterable[Cell]:
    shape = SHAPES[name]
    for intent, slots, reference, outcome, turns, calls in itertools.product(
        shape.intent, shape.slots, shape.reference, shape.outcome, shape.turns, shape.calls
    ):
        if not _fits(name, intent, slots, reference, outcome) or not _is_answered_alike(name, turns, calls):
            continue
        for date_form, register, persona in itertools.product(
            _date_forms(slots, outcome), REGISTERS, personas
        ):
            yield Cell(
                shape=name, intent=intent, slots=slots, date_form=date_form, reference=reference, register=register,
                outcome=outcome, turns=turns, calls=calls, persona=persona,
            )  # fmt: skip


def _fits(name: str, intent: str, slots: str, reference: str, outcome: str) -> bool:
    if intent in {"complete", "delete"} and slots != "none":
        return False  # they take nothing beside the task
    if intent == "update" and slots == "none" and name not in {"missing_change"}:
        return False
    if intent in {"create", "update"} and reference in {"none", "id"} and "id" in SHAPES[name].reference:
        return (reference == "none") == (intent == "create")  # a new task has no number yet
    return not (reference == "none" and intent in _CHANGES)


def _is_answered_alike(name: str, turns: str, calls: str) -> bool:
    """True unless the number of turns and of calls tell two stories: an answered question is followed by a call."""
    shape = SHAPES[name]
    return len(shape.turns) == 1 or shape.turns.index(turns) == shape.calls.index(calls)


def _date_forms(slots: str, outcome: str) -> Sequence[str]:
    if outcome in {"past_due_date", "invalid_due_date"}:
        return ("past",) if outcome == "past_due_date" else ("impossible",)
    if slots == "any":
        return ("any",)
    return ("iso", "weekday", "relative", "calendar") if "date" in slots.split("+") else ("none",)
