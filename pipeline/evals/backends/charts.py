# pyright: basic
"""Pictures of evaluations: rates with their intervals, one or two models side by side, and confusion tables."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from pipeline.evals.intervals import Rate

_COLOURS = ("#3b6ea5", "#c8553d", "#5b8c5a", "#8a6fb0")
_INK = "#1c2733"


def draw_rates(columns: Mapping[str, Mapping[str, Rate]], path: Path) -> None:
    """Draw rates as points with 95 % intervals, one row a name, one colour a column; empty rates are left out."""
    names = list(dict.fromkeys(n for rates in columns.values() for n, rate in rates.items() if rate.total))
    height = 1.1 + 0.3 * max(1, len(names)) * (0.7 + 0.3 * len(columns))
    figure, axes = plt.subplots(figsize=(8.5, height), dpi=120, layout="constrained")
    step = 0.7 / max(1, len(columns))
    for number, (label, rates) in enumerate(columns.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        shift = (number - (len(columns) - 1) / 2) * step
        known = [(i, rates[name]) for i, name in enumerate(names) if name in rates and rates[name].total]
        for i, rate in known:
            axes.plot(
                [rate.low or 0.0, rate.high or 0.0], [i + shift] * 2, color=colour, linewidth=2.2, alpha=0.75
            )
        xs = [rate.rate or 0.0 for _, rate in known]
        axes.plot(xs, [i + shift for i, _ in known], "o", color=colour, markersize=5, label=label)
    totals = [next(rates[n].total for rates in columns.values() if n in rates) for n in names]
    axes.set_yticks(
        range(len(names)), [f"{n}  (n={t})" for n, t in zip(names, totals, strict=True)], fontsize=8
    )
    axes.set_xlim(-0.02, 1.02)
    axes.invert_yaxis()
    axes.set_xlabel("rate, with 95 % Wilson interval")
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(columns) > 1:
        figure.legend(loc="outside lower center", ncols=len(columns), frameon=False)
    figure.savefig(path)
    plt.close(figure)


def draw_confusion(table: Mapping[str, Mapping[str, int]], path: Path, across: str, down: str) -> None:
    """Draw a confusion table: shade by the share of its row, the count as text."""
    rows = list(table)
    columns = list(dict.fromkeys([*rows, *sorted({name for row in table.values() for name in row})]))
    shares = [[table[r].get(c, 0) / max(1, sum(table[r].values())) for c in columns] for r in rows]
    figure, axes = plt.subplots(
        figsize=(3.2 + 0.62 * len(columns), 2.2 + 0.42 * len(rows)), dpi=120, layout="constrained"
    )
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            count = table[row].get(column, 0)
            if count:
                colour = "white" if shares[i][j] > 0.55 else _INK
                axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    figure.savefig(path)
    plt.close(figure)
