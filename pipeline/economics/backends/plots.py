# pyright: basic
"""The tornado picture of a sensitivity analysis."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pipeline.economics.cost import Case
from pipeline.economics.sensitivity import Sensitivity

_LOW_COLOUR, _HIGH_COLOUR = "#c8553d", "#3b6ea5"
_MAX_ROWS = 10


def draw_tornado(rows: list[Sensitivity], expected: Case, path: Path) -> None:
    """Draw payback and monthly saving at the low and the high end of each input as PNG."""
    shown = list(reversed(rows[:_MAX_ROWS]))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 1.6 + 0.42 * len(shown)), dpi=130, sharey=True, layout="constrained"
    )
    paybacks = [(row.payback_low, row.payback_high) for row in shown]
    savings = [(row.saving_low, row.saving_high) for row in shown]
    _draw_bars(left, paybacks, expected.payback_months)
    _draw_bars(right, savings, expected.saving_usd)
    names = [f"{row.factor}\n{row.low:g} to {row.high:g}" for row in shown]
    left.set_yticks(range(len(shown)), names, fontsize=8)
    left.set_xlim(left=0)
    left.set_xlabel("months to payback")
    right.set_xlabel("saving a month (USD)")
    right.axvline(0, color="#8a939c", linewidth=0.8)
    figure.suptitle(f"One input at a time around: {_describe(expected)}", fontsize=10)
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in (_LOW_COLOUR, _HIGH_COLOUR)]
    figure.legend(
        handles,
        ["input at its low end", "input at its high end"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    figure.savefig(path)
    plt.close(figure)


def _describe(expected: Case) -> str:
    sign = "-" if expected.saving_usd < 0 else ""
    saving = f"saving {sign}${abs(expected.saving_usd):,.0f} a month"
    if expected.payback_months is None:
        return f"never pays back, {saving}"
    return f"payback in {expected.payback_months:.2f} months, {saving}"


def _draw_bars(axes: Axes, ends: Sequence[tuple[float | None, float | None]], centre: float | None) -> None:
    """Draw bars from the expected value to each end; none is never, which lies beyond the border."""
    known = [value for pair in (*ends, (centre,)) for value in pair if value is not None]
    border = max(known, default=1.0) * 1.15 or 1.0
    start = border if centre is None else centre
    for index, pair in enumerate(ends):
        for value, colour in zip(pair, (_LOW_COLOUR, _HIGH_COLOUR), strict=True):
            end = border if value is None else value
            axes.barh(index, end - start, left=start, color=colour, height=0.6, alpha=0.85)
            if value is None:
                axes.annotate(
                    "never", (border, index), (4, 0), textcoords="offset points", va="center", fontsize=8
                )
    axes.axvline(start, color="#1c2733", linewidth=1.2, linestyle=":" if centre is None else "-")
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
