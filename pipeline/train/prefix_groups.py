"""Which rows of a batch share which prompt prefix: plain token lists in, groups out.

Rows with the same tools begin alike, rows of other tool sets begin otherwise; each group computes its common prefix
once. Knows nothing of models; ``backends/prefix.py`` computes with the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

MIN_PREFIX_TOKENS = 16
"""A shorter prefix costs more in a second pass than it saves."""


@dataclass(frozen=True, slots=True)
class PrefixPlan:
    """How a batch is divided."""

    prefixes: tuple[tuple[int, ...], ...]
    """Token ids that are computed once each."""
    prefix_of_row: tuple[int, ...]
    """By row: which prefix it begins with."""
    prefix_lengths: tuple[int, ...]
    """By row: how many tokens of that prefix; 0 when it shares none."""


def plan_prefixes(rows: Sequence[Sequence[int]], limits: Sequence[int]) -> PrefixPlan | None:
    """Divide a batch so that few tokens are computed, padding included; None when sharing saves nothing.

    ``limits`` says by row how many leading tokens a prefix may take.
    """
    groups = _best_groups(rows, limits)
    if not groups:
        return None
    prefixes = [tuple(rows[members[0]][:length]) for members, length in groups]
    of_row, lengths = [0] * len(rows), [0] * len(rows)
    for index, (members, length) in enumerate(groups):
        for row in members:
            of_row[row], lengths[row] = index, length
    _take_in_single_rows(rows, limits, prefixes, of_row, lengths)
    widest = max(len(prefix) for prefix in prefixes)
    rest = max(len(row) - length for row, length in zip(rows, lengths, strict=True))
    if len(prefixes) * widest + len(rows) * rest >= len(rows) * max(len(row) for row in rows):
        return None
    return PrefixPlan(tuple(prefixes), tuple(of_row), tuple(lengths))


def _take_in_single_rows(
    rows: Sequence[Sequence[int]],
    limits: Sequence[int],
    prefixes: list[tuple[int, ...]],
    of_row: list[int],
    lengths: list[int],
) -> None:
    # A long row that shares nothing would widen the rest of every row; its own prompt joins the prefixes instead.
    widest = max(len(prefix) for prefix in prefixes)
    shared = [len(row) - length for row, length in zip(rows, lengths, strict=True) if length]
    for row, length in enumerate(lengths):
        if length == 0 and len(rows[row]) > max(shared):
            lengths[row] = min(limits[row], widest)
            of_row[row] = len(prefixes)
            prefixes.append(tuple(rows[row][: lengths[row]]))


def _best_groups(rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[tuple[list[int], int]]:
    """Return the (rows, prefix length) of groups that save the most tokens.

    Sorted rows that share a prefix are neighbours, so the best division is one of the sorted list into stretches:
    ``saved[j]`` is the most that the first j rows can save (dynamic programming over where the last stretch begins).
    """
    order = sorted(range(len(rows)), key=lambda row: list(rows[row]))
    shared = [_common_length(rows[a], rows[b]) for a, b in pairwise(order)]
    saved, cut = [0], [0]
    for end in range(1, len(order) + 1):
        best, start_of_best = saved[end - 1], end - 1
        length = limits[order[end - 1]]
        for start in range(end - 2, -1, -1):
            length = min(length, shared[start], limits[order[start]])
            if length < MIN_PREFIX_TOKENS:
                break
            if (total := saved[start] + (end - start - 1) * length) > best:
                best, start_of_best = total, start
        saved.append(best)
        cut.append(start_of_best)
    groups: list[tuple[list[int], int]] = []
    end = len(order)
    while end:
        members = order[cut[end] : end]
        if len(members) > 1:
            length = min(limits[row] for row in members)
            length = min(length, *shared[cut[end] : end - 1])
            groups.append((members, length))
        end = cut[end]
    return groups


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
