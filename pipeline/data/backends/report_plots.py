# pyright: basic
"""Pictures of the data report."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from pipeline.core.files import write_atomic

_COLOURS = ("#3b6ea5", "#c8553d", "#5a8f5a", "#8a6fae")
_DPI = 130
_NUM_BINS = 40
_MAX_LABEL = 28
_MAX_CELL_NAMES = 40


def draw_lengths(lengths: dict[str, list[int]], unit: str, limit: int | None, path: Path) -> None:
    """Draw row lengths of each split as PNG, as shares because splits differ in size."""
    figure, axes = plt.subplots(figsize=(7.2, 3.2), dpi=_DPI)
    longest = max((length for found in lengths.values() for length in found), default=0) + 1
    edges = [longest * i / _NUM_BINS for i in range(_NUM_BINS + 1)]
    for colour, (name, found) in zip(_COLOURS, lengths.items(), strict=False):
        if found:
            weights = [100 / len(found)] * len(found)
            axes.hist(
                found, bins=edges, weights=weights, histtype="step", linewidth=1.5, color=colour, label=name
            )
    if limit is not None and limit <= longest * 1.5:
        axes.axvline(limit, color="#444444", linestyle="--", linewidth=1, label=f"max_length {limit}")
    axes.set_xlabel(f"{unit} in a row")
    axes.set_ylabel("rows (%)")
    axes.legend(frameon=False)
    _finish(figure, axes, path)


def draw_coverage(coverage: dict[str, Any], path: Path) -> None:
    """Draw rows by two properties as a heat map with the counts in its cells; empty cells stay white."""
    rows, columns = coverage["row_names"][:_MAX_CELL_NAMES], coverage["column_names"][:_MAX_CELL_NAMES]
    counts = [row[: len(columns)] for row in coverage["counts"][: len(rows)]]
    size = (max(4.5, 1.9 + 0.62 * len(columns)), max(2.6, 1.5 + 0.36 * len(rows)))
    figure, axes = plt.subplots(figsize=size, dpi=_DPI)
    highest = max((count for row in counts for count in row), default=1)
    shown = [[count if count else float("nan") for count in row] for row in counts] or [[float("nan")]]
    axes.imshow(shown, aspect="auto", cmap="Blues", norm=LogNorm(1, max(2, highest)))
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            colour = "white" if count**2 > highest else "#333333"
            axes.text(x, y, str(count), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(
        range(len(columns)), [_cut(name) for name in columns], rotation=35, ha="right", fontsize=8
    )
    axes.set_yticks(range(len(rows)), [_cut(name) for name in rows], fontsize=8)
    axes.set_xlabel(_cut(coverage["columns"]))
    axes.set_ylabel(_cut(coverage["rows"]))
    _finish(figure, axes, path)


def draw_clusters(sizes: dict[str, dict[int, int]], path: Path) -> None:
    """Draw how many near-duplicate clusters there are of each size as PNG."""
    figure, axes = plt.subplots(figsize=(7.2, 2.8), dpi=_DPI)
    labels = sorted({size for found in sizes.values() for size in found})
    width = 0.8 / max(1, len(sizes))
    for place, (colour, (name, found)) in enumerate(zip(_COLOURS, sizes.items(), strict=False)):
        positions = [index + (place - (len(sizes) - 1) / 2) * width for index in range(len(labels))]
        counts = [found.get(size, 0) for size in labels]
        bars = axes.bar(positions, counts, width * 0.9, color=colour, label=name)
        if len(labels) * len(sizes) <= 24:
            axes.bar_label(bars, fontsize=7, labels=[str(count) if count else "" for count in counts])
    if labels:
        step = -(-len(labels) // 20)
        axes.set_xticks(range(0, len(labels), step), [str(size) for size in labels[::step]])
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no near-duplicates", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([0])
    axes.set_xlabel("rows in a cluster of near-duplicates with the same calls")
    axes.set_ylabel("clusters")
    _finish(figure, axes, path)


def _finish(figure: Any, axes: Any, path: Path) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    plt.close(figure)
    write_atomic(path, picture.getvalue())


def _cut(name: str) -> str:
    # A dollar would begin a formula.
    return (name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…").replace("$", r"\$")
