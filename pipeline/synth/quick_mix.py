"""The quickstart's mix: one maker a kind of conversation, in the shares from which a small model learns fastest.

Train and validation use different formulations of the train bank; test uses the test bank only (other formulations,
titles, dates). For errors, recovery and many turns see :mod:`pipeline.synth.full_mix`.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from pipeline.core.errors import OperationFailedError
from pipeline.core.messages import Example
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.synth.dialogues import make_ask, make_by_title, make_followup
from pipeline.synth.formulations import Bank, hold_back, load_bank, without
from pipeline.synth.scene import RejectedError, Scene, Supply
from pipeline.synth.setbacks import make_no_priority, make_timeout
from pipeline.synth.single_turns import make_by_id, make_create, make_list, make_multi, make_talk

_MAX_REJECTED_IN_A_ROW = 500
_DAY_STEP = timedelta(days=17)  # coprime to 7, so the days spread over all weekdays
_DOCUMENTED_DAY = date(2026, 3, 11)
_TRAIN_DAYS = tuple(_DOCUMENTED_DAY + _DAY_STEP * step for step in range(-3, 37))
_TEST_DAYS = (_DOCUMENTED_DAY, *(_TRAIN_DAYS[0] + timedelta(days=8) + _DAY_STEP * step for step in range(39)))

_MAKERS: dict[str, Callable[[Scene], Example]] = {
    "create": make_create,
    "update": lambda scene: make_by_id(scene, "update"),
    "complete": lambda scene: make_by_id(scene, "complete"),
    "delete": lambda scene: make_by_id(scene, "delete"),
    "list": make_list,
    "multi": make_multi,
    "by_title": make_by_title,
    "followup": make_followup,
    "ask": make_ask,
    "talk": make_talk,
}
# Kinds in the order of _MAKERS. Tests have what users ask for in the shares in which they might ask it; training has
# more of what is hard to learn (several arguments, two calls, asking back) and less of what a few rows teach.
_TEST_MIX = (0.24, 0.11, 0.06, 0.06, 0.13, 0.08, 0.09, 0.08, 0.07, 0.08)
_TRAIN_MIX = (0.25, 0.13, 0.04, 0.04, 0.14, 0.11, 0.09, 0.05, 0.10, 0.05)
_SETBACKS = {"timeout": make_timeout, "no_priority": make_no_priority}
# Of each; with 0.03 a model asked what the priority was at 4 of 27 sentences that said it (docs/experiments.md).
_SETBACK_RATIO = 0.04
_SHORTENED_KINDS = frozenset({"create", "update", "complete", "delete", "list", "multi"})

_Plan = list[tuple[str, Callable[[Scene], Example]]]


class _Side(NamedTuple):
    """One split to be made."""

    name: str
    num_rows: int
    bank: Bank
    days: Sequence[date]
    mix: Sequence[float]


class QuickMix(NamedTuple):
    """What was made."""

    rows: dict[str, list[Example]]
    """By side."""
    banks: dict[str, Bank]
    """By side."""
    rejections: Counter[str]
    """Draws thrown away, by reason."""
    removed: int
    """Lines of the test bank that the train bank also holds."""


def make_quick_mix(
    seed: int, num_rows: dict[str, int], call_only_ratio: float, run: Run | None, *, setbacks: bool = False
) -> QuickMix:
    """Make the rows of training, validation and test, with time-outs and unknown priorities among them if asked.

    Raises:
        InvalidInputError: If a phrase bank has a bad line.
        OperationFailedError: If the banks are too small to draw a conversation of some kind.
    """
    train_bank, held_back = hold_back(load_bank("train"), random.Random(f"{seed}:hold back"))
    test_bank, removed = without(load_bank("test"), load_bank("train"))
    sides = (
        _Side("train", num_rows["train"], train_bank, _TRAIN_DAYS, _TRAIN_MIX),
        _Side("validation", num_rows["validation"], held_back, _TRAIN_DAYS, _TEST_MIX),
        _Side("test", num_rows["test"], test_bank, _TEST_DAYS, _TEST_MIX),
    )
    rejections: Counter[str] = Counter()
    rows: dict[str, list[Example]] = {}
    with Progress("synth", sum(side.num_rows for side in sides), unit="rows", run=run) as progress:
        for side in sides:
            rng = random.Random(f"{seed}:{side.name}")
            rows[side.name] = _make_rows(side, _plan(side, rng, setbacks=setbacks), rng, rejections, progress)
    shorten = random.Random(f"{seed}:call only")
    rows["train"] = [_shorten(row, shorten, call_only_ratio) for row in rows["train"]]
    return QuickMix(rows, {side.name: side.bank for side in sides}, rejections, removed)


def _make_rows(
    side: _Side, plan: _Plan, rng: random.Random, rejections: Counter[str], progress: Progress
) -> list[Example]:
    supply = Supply(side.bank, rng, side.days)
    made: list[Example] = []
    for kind, make in plan:
        made.append(_make_row(kind, make, supply, rejections))
        progress.advance()
    return [row.model_copy(update={"id": f"{side.name}-{i:05d}"}) for i, row in enumerate(made, start=1)]


def _shorten(row: Example, rng: random.Random, ratio: float) -> Example:
    if row.tags["kind"] not in _SHORTENED_KINDS or rng.random() >= ratio:
        return row
    first_call = next(i for i, message in enumerate(row.messages) if message.tool_calls)
    return row.model_copy(update={"messages": row.messages[: first_call + 1]})


def _plan(side: _Side, rng: random.Random, *, setbacks: bool) -> _Plan:
    """Return the kinds of all rows, in the shares of the mix, shuffled."""
    shares = [(kind, make, ratio) for (kind, make), ratio in zip(_MAKERS.items(), side.mix, strict=True)]
    if setbacks:
        left = 1 - _SETBACK_RATIO * len(_SETBACKS)
        shares = [(kind, make, ratio * left) for kind, make, ratio in shares]
        shares += [(kind, make, _SETBACK_RATIO) for kind, make in _SETBACKS.items()]
    plan: _Plan = []
    reached = 0.0
    for kind, make, ratio in shares:
        reached += ratio
        plan += [(kind, make)] * (round(reached * side.num_rows) - len(plan))
    rng.shuffle(plan)
    return plan


def _make_row(
    kind: str, make: Callable[[Scene], Example], supply: Supply, rejections: Counter[str]
) -> Example:
    for _ in range(_MAX_REJECTED_IN_A_ROW):
        try:
            with Scene(supply) as scene:
                return make(scene)
        except RejectedError as rejected:
            rejections[f"{kind}: {rejected}"] += 1
    raise OperationFailedError(
        f"no sound conversation of kind {kind} in {_MAX_REJECTED_IN_A_ROW} draws",
        hint="Add formulations to its phrase bank.",
        reasons=[f"{reason} ({count})" for reason, count in rejections.most_common(5)],
    )
