"""Uncertainty of rates: Wilson intervals, bootstrap over clusters, the exact McNemar test.

Plain Python and seeded, so that the same records give the same numbers everywhere. Rates over nothing are None, never
an invented 0 or 1.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from pipeline.core.operation import Part

Z_95 = 1.959964
NUM_RESAMPLES = 2000
_TAIL = 0.025
_MOST_ROWS = 1_000_000


class Rate(Part):
    """A proportion with its 95 % Wilson interval."""

    rate: float | None
    """``right / total``; None when there is nothing to count."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""
    right: int
    """Numerator."""
    total: int
    """Denominator."""

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Self:
        """Count outcomes."""
        counted = list(outcomes)
        return cls.count(sum(counted), len(counted))

    @classmethod
    def count(cls, right: int, total: int) -> Self:
        """Take outcomes that are counted already."""
        low, high = wilson(right, total)
        rate = round(right / total, 4) if total else None
        return cls(rate=rate, low=_rounded(low), high=_rounded(high), right=right, total=total)

    def __str__(self) -> str:
        if self.rate is None or self.low is None or self.high is None:
            return f"- ({self.right}/{self.total})"
        return f"{self.rate:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.right}/{self.total})"


class Interval(Part):
    """A 95 % bootstrap interval over clusters."""

    value: float
    """Estimate on the data as they are."""
    low: float | None
    """2.5th percentile of the resamples; None with fewer than two clusters."""
    high: float | None
    """97.5th percentile."""
    num_clusters: int
    """Formulations that were resampled."""


def wilson(right: int, total: int, z: float = Z_95) -> tuple[float | None, float | None]:
    """Return the Wilson score interval of a proportion, or (None, None) when the total is 0.

    Centre ``(p + z^2/2n) / (1 + z^2/n)``, half width ``z / (1 + z^2/n) * sqrt(p(1-p)/n + z^2/4n^2)``: E. B. Wilson,
    JASA 22 (1927) 209; as recommended by Brown, Cai and DasGupta, Statistical Science 16 (2001) 101.
    """
    if total == 0:
        return None, None
    p = right / total
    scale = 1 + z * z / total
    centre = (p + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def cluster_bootstrap(
    clusters: Mapping[str, Sequence[float]], seed: int, num_resamples: int = NUM_RESAMPLES
) -> Interval | None:
    """Return the mean of all values with an interval from resampling whole clusters, or None without any value.

    Rows of one formulation fail together, so that single rows are not independent draws; formulations are. For a
    before/after difference the values are -1, 0 and 1.
    """
    sums = [(sum(values), len(values)) for values in clusters.values() if values]
    if not sums:
        return None
    value = sum(part for part, _ in sums) / sum(count for _, count in sums)
    if len(sums) == 1:
        return Interval(value=round(value, 4), low=None, high=None, num_clusters=1)
    source = random.Random(seed)
    means: list[float] = []
    for _ in range(num_resamples):
        drawn = source.choices(sums, k=len(sums))
        means.append(sum(part for part, _ in drawn) / sum(count for _, count in drawn))
    low, high = percentile(means, _TAIL), percentile(means, 1 - _TAIL)
    return Interval(value=round(value, 4), low=_rounded(low), high=_rounded(high), num_clusters=len(sums))


def mcnemar_exact(num_lost: int, num_gained: int) -> float:
    """Return the two-sided exact p-value that lost and gained cases are equally likely.

    Binomial(lost + gained, 1/2), twice the smaller tail, at most 1: McNemar, Psychometrika 12 (1947) 153, in its
    exact form. Without any changed case it is 1.
    """
    changed = num_lost + num_gained
    tail = sum(math.comb(changed, k) for k in range(min(num_lost, num_gained) + 1))
    return min(1.0, 2 * tail / 2**changed)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile: the smallest value with at least that share at or below it."""
    if not values:
        return None
    rank = math.ceil(round(share * len(values), 9))
    return sorted(values)[max(rank, 1) - 1]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def pass_hat_k(outcomes: Iterable[Sequence[bool]], k: int) -> float | None:
    """Return the chance that k independent tries at one case are all right, averaged over cases.

    ``C(c, k) / C(n, k)`` with c right of n tries, an unbiased estimate: Yao et al., tau-bench, arXiv 2406.12045,
    section 3. None unless every case has at least k tries.
    """
    counted = [(sum(tries), len(tries)) for tries in outcomes]
    if not counted or min(total for _, total in counted) < k:
        return None
    return sum(math.comb(right, k) / math.comb(total, k) for right, total in counted) / len(counted)


def rows_needed(bound: float, rate: float) -> int | None:
    """Return how many rows prove at least ``bound`` when a share ``rate`` of them is right; None if none would.

    The smallest n whose Wilson lower end reaches the bound with ``round(rate * n)`` right.
    """
    if not bound < rate <= 1:
        return None
    for total in range(1, _MOST_ROWS):
        low, _ = wilson(round(rate * total), total)
        if low is not None and low >= bound:
            return total
    return None


def advise_rows(bound: float) -> str:
    """Return in one sentence how many rows it takes to show a bound."""
    share = bound + (1 - bound) * 0.6
    perfect, good = rows_needed(bound, 1.0), rows_needed(bound, share)
    return f"To show {bound:.1%} you need {perfect:,} rows without an error, or {good:,} at {share:.1%}."
