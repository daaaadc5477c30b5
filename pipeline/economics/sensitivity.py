"""One-at-a-time sensitivity: each input at its low and its high end, everything else as expected."""

from dataclasses import replace
from math import inf

from pipeline.core.operation import Part
from pipeline.economics.cost import Costs

_VARIED = ("requests_per_day", "api_usd_per_request", "serving_usd_per_month", "training_usd", "hourly_usd")
_RATIO = 0.5  # a convention: half and one and a half
_RANGED = (
    "num_training_runs",
    "data_hours",
    "evaluation_hours",
    "infrastructure_hours",
    "monthly_maintenance_hours",
)


class Sensitivity(Part):
    """What one input does on its own; a payback of none is never."""

    factor: str
    """Input that is varied."""
    low: float
    """Its low end."""
    high: float
    """Its high end."""
    payback_low: float | None
    """Months to payback with the low end."""
    payback_high: float | None
    """Months to payback with the high end."""
    saving_low: float
    """Saving a month in USD with the low end."""
    saving_high: float
    """Saving a month in USD with the high end."""


def analyse_sensitivity(low: Costs, expected: Costs, high: Costs) -> list[Sensitivity]:
    """Vary each input alone, the one that moves payback most first.

    Inputs with a range of their own take its ends; the others are halved and raised by half. Inputs that change
    nothing are left out. Turning payback into never, or back, is the largest move there is.
    """
    ends: list[tuple[str, float, float]] = []
    for factor in _VARIED:
        value: float = getattr(expected, factor)
        ends.append((factor, value * (1 - _RATIO), value * (1 + _RATIO)))
    ends += [(factor, getattr(low, factor), getattr(high, factor)) for factor in _RANGED]
    rows = [_vary(expected, factor, *values) for factor, *values in ends]
    moving = [row for row in rows if _moves(row) != (0, 0)]
    return sorted(moving, key=lambda row: (*_moves(row), row.factor), reverse=True)


def _vary(expected: Costs, factor: str, low: float, high: float) -> Sensitivity:
    at_low, at_high = replace(expected, **{factor: low}), replace(expected, **{factor: high})
    return Sensitivity(
        factor=factor,
        low=round(low, 8),
        high=round(high, 8),
        payback_low=_rounded(at_low.payback_months),
        payback_high=_rounded(at_high.payback_months),
        saving_low=round(at_low.saving_usd, 2),
        saving_high=round(at_high.saving_usd, 2),
    )


def _moves(row: Sensitivity) -> tuple[float, float]:
    """Return how far payback and saving move."""
    saving = abs(row.saving_high - row.saving_low)
    if row.payback_low is None and row.payback_high is None:
        return 0, saving
    if row.payback_low is None or row.payback_high is None:
        return inf, saving
    return abs(row.payback_high - row.payback_low), saving


def _rounded(months: float | None) -> float | None:
    return None if months is None else round(months, 4)
