"""How far two raters agree beyond chance: Cohen's kappa, Gwet's AC1, and kappa's bootstrap interval.

Kappa collapses when nearly all items get one label; AC1 does not, so both are shown. Plain Python and seeded.
"""

import random
from collections import Counter
from collections.abc import Sequence

from pipeline.core.operation import Part
from pipeline.evals.intervals import percentile

_NUM_RESAMPLES = 2000
Pair = tuple[str, str]


class Agreement(Part):
    """Agreement of two raters on the same items."""

    num_items: int
    """Items both rated."""
    raw: float | None
    """Share of equal labels."""
    kappa: float | None
    """Cohen's kappa; None when chance alone would agree on everything."""
    kappa_low: float | None
    """2.5th percentile of the bootstrap over items."""
    kappa_high: float | None
    """97.5th percentile."""
    ac1: float | None
    """Gwet's AC1."""


def cohen_kappa(pairs: Sequence[Pair]) -> float | None:
    """Return (p_o - p_e) / (1 - p_e) with p_e from each rater's own label shares.

    J. Cohen, Educational and Psychological Measurement 20 (1960) 37.
    """
    if not pairs:
        return None
    total = len(pairs)
    observed = sum(one == two for one, two in pairs) / total
    first, second = Counter(one for one, _ in pairs), Counter(two for _, two in pairs)
    chance = sum(first[label] * second[label] for label in first) / total**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def gwet_ac1(pairs: Sequence[Pair]) -> float | None:
    """Return (p_o - p_e) / (1 - p_e) with p_e = sum of q(1-q) / (labels - 1), q the mean share of a label.

    K. L. Gwet, British Journal of Mathematical and Statistical Psychology 61 (2008) 29. With one label only it is 1.
    """
    if not pairs:
        return None
    total = len(pairs)
    observed = sum(one == two for one, two in pairs) / total
    shares = Counter(label for pair in pairs for label in pair)
    if len(shares) == 1:
        return 1.0
    means = [count / (2 * total) for count in shares.values()]
    chance = sum(q * (1 - q) for q in means) / (len(shares) - 1)
    return (observed - chance) / (1 - chance)


def measure_agreement(pairs: Sequence[Pair], seed: int = 0) -> Agreement:
    """Return all agreement numbers of a list of (label of A, label of B)."""
    source = random.Random(seed)
    drawn = [cohen_kappa(source.choices(pairs, k=len(pairs))) for _ in range(_NUM_RESAMPLES if pairs else 0)]
    kappas = [value for value in drawn if value is not None]
    return Agreement(
        num_items=len(pairs),
        raw=_rounded(sum(one == two for one, two in pairs) / len(pairs)) if pairs else None,
        kappa=_rounded(cohen_kappa(pairs)),
        kappa_low=_rounded(percentile(kappas, 0.025)),
        kappa_high=_rounded(percentile(kappas, 0.975)),
        ac1=_rounded(gwet_ac1(pairs)),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
