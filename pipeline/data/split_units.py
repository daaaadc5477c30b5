"""Divide whole units of rows into sides of wanted sizes, each side with about the same mix of strata.

A unit is what may not be torn apart. Knows nothing of files and conversations; same seed, same answer.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.core.errors import InvalidInputError

UNUSED = -1
_MAX_DRAWS = 20
_SEARCHED_ROWS = (
    4096  # the rest of a side is filled in order; finding an exact sum for it all takes quadratic time
)


class Unit(NamedTuple):
    """Rows that stay together."""

    size: int
    """How many."""
    strata: Counter[int]
    """How many of each stratum."""


class Division(NamedTuple):
    """Where each unit goes."""

    sides: list[int]
    """Side of each unit, or ``UNUSED``."""
    is_stratified: bool
    """False when the strata had to be left aside to reach exact sizes."""


def find_sizes(total: int, ratios: Sequence[float]) -> list[int]:
    """Return whole numbers in the ratios that add up to the total (largest remainders get the rest)."""
    exact = [total * ratio / sum(ratios) for ratio in ratios]
    sizes = [int(size) for size in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda side: sizes[side] - exact[side])
    for side in by_remainder[: total - sum(sizes)]:
        sizes[side] += 1
    return sizes


def divide(units: Sequence[Unit], sizes: Sequence[int], seed: int, *, exactly: bool) -> Division:
    """Choose a side for each unit.

    Not exactly: every unit gets a side, and sizes are met as well as the units allow. Exactly: the sizes are met, and
    units beyond them stay unused.

    Raises:
        InvalidInputError: If no choice of whole units gives exactly these sizes.
    """
    source = random.Random(seed)
    order = list(range(len(units)))
    source.shuffle(order)
    sides, open_rows = _divide_by_need(units, sizes, order)
    if exactly and any(open_rows):
        return Division(_divide_exactly(units, sizes, order, source), is_stratified=False)
    if not exactly:
        for index in order:
            if sides[index] == UNUSED:
                side = max(range(len(sizes)), key=open_rows.__getitem__)
                sides[index] = side
                open_rows[side] -= units[index].size
    return Division(sides, is_stratified=True)


def _divide_by_need(
    units: Sequence[Unit], sizes: Sequence[int], order: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Give each unit, large ones first, to the side that will still need the most of its strata, relative to its size.

    The idea of iterative stratification (Sechidis, Tsoumakas, Vlahavas: ECML PKDD 2011), for units instead of labels.
    No side grows beyond its size; a unit that fits nowhere stays unused.
    """
    total = sum(unit.size for unit in units)
    strata: Counter[int] = Counter()
    for unit in units:
        strata.update(unit.strata)
    wanted = [{stratum: size * count / total for stratum, count in strata.items()} for size in sizes]
    given: list[Counter[int]] = [Counter() for _ in sizes]
    open_rows = list(sizes)
    sides = [UNUSED] * len(units)

    def need(side: int, unit: Unit) -> float:
        parts = (
            count * (1 - (given[side][stratum] + count) / wanted[side][stratum])
            for stratum, count in unit.strata.items()
        )
        return sum(parts)

    for index in sorted(order, key=lambda index: -units[index].size):
        unit = units[index]
        fitting = [side for side in range(len(sizes)) if open_rows[side] >= unit.size]
        if fitting:
            side = max(fitting, key=lambda side: need(side, unit))
            sides[index] = side
            open_rows[side] -= unit.size
            given[side].update(unit.strata)
    return sides, open_rows


def _divide_exactly(
    units: Sequence[Unit], sizes: Sequence[int], order: list[int], source: random.Random
) -> list[int]:
    """Fill the sides one after the other, the smallest first, in some order of the units in which all come out even."""
    short: dict[int, int] = {}
    for _ in range(_MAX_DRAWS):
        sides = [UNUSED] * len(units)
        for side in sorted(range(len(sizes)), key=lambda side: sizes[side]):
            free = [index for index in order if sides[index] == UNUSED]
            chosen = _fill([units[index].size for index in free], sizes[side])
            for place in chosen:
                sides[free[place]] = side
            reached = sum(units[free[place]].size for place in chosen)
            if reached != sizes[side]:
                short[side] = max(reached, short.get(side, 0))
                break
        else:
            return sides
        source.shuffle(order)
    missing = ", ".join(f"{reached} instead of {sizes[side]}" for side, reached in sorted(short.items()))
    raise InvalidInputError(
        f"whole groups do not add up to the counts {list(sizes)}: {missing} rows are the most",
        hint="Ask for counts with a smaller sum (rows may be left over), use ratios, or group by fewer fields.",
    )


def _fill(sizes: Sequence[int], target: int) -> list[int]:
    """Return the places of sizes whose sum is the target, or the largest sum below it that can be reached."""
    chosen: list[int] = []
    while len(chosen) < len(sizes) and sizes[len(chosen)] <= target - _SEARCHED_ROWS:
        target -= sizes[len(chosen)]
        chosen.append(len(chosen))
    reached, mask = 1, (1 << (target + 1)) - 1  # bit n: some of the sizes so far add up to n
    last: dict[int, int] = {}
    for place in range(len(chosen), len(sizes)):
        size = sizes[place]
        new = (reached << size) & mask & ~reached
        reached |= new
        while new:
            lowest = new & -new
            last[lowest.bit_length() - 1] = place
            new ^= lowest
        if reached >> target:
            break
    total = reached.bit_length() - 1
    while total:
        chosen.append(last[total])
        total -= sizes[last[total]]
    return chosen
