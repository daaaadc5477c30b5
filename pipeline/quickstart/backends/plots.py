# pyright: basic
"""Pictures of the quickstart report."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

_TRAIN_COLOUR, _EVAL_COLOUR = "#3b6ea5", "#c8553d"


def draw_loss_curve(metrics: list[dict[str, Any]], path: Path) -> None:
    """Draw training and evaluation loss over optimizer steps as PNG."""
    train = [(m["step"], m["loss"]) for m in metrics if "loss" in m]
    evaluated = [(m["step"], m["eval_loss"]) for m in metrics if "eval_loss" in m]
    figure, axes = plt.subplots(figsize=(7.2, 3.2), dpi=130)
    if train:
        axes.plot(*zip(*train, strict=True), color=_TRAIN_COLOUR, linewidth=1.2, label="training")
    if evaluated:
        axes.plot(
            *zip(*evaluated, strict=True),
            color=_EVAL_COLOUR,
            marker="o",
            label="validation (unseen formulations)",
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per predicted token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    if train or evaluated:
        axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def draw_before_after(rows: list[tuple[str, dict[str, Any], dict[str, Any]]], path: Path) -> None:
    """Draw rates before and after with their 95 % intervals as PNG; ``rows`` are (name, base, tuned)."""
    figure, axes = plt.subplots(figsize=(7.2, 0.5 + 0.42 * len(rows)), dpi=130)
    for index, (_, base, tuned) in enumerate(reversed(rows)):
        for rate, offset, colour in ((base, 0.14, _EVAL_COLOUR), (tuned, -0.14, _TRAIN_COLOUR)):
            if rate["rate"] is not None:
                spread = [[rate["rate"] - rate["low"]], [rate["high"] - rate["rate"]]]
                axes.errorbar(
                    rate["rate"], index + offset, xerr=spread, fmt="o", color=colour, capsize=3, markersize=4
                )
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("rate with 95 % interval (blue: tuned, red: base)")
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
