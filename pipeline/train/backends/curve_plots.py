# pyright: basic
"""Pictures of training runs: loss with learning rate and gradient norm, several runs on one pair of axes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from pipeline.train.curve import Curve, Point, smooth

_TRAIN, _EVALUATION, _RATE, _NORM = "#3b6ea5", "#c8553d", "#5a8f5a", "#8a6fae"
_COLOURS = ("#3b6ea5", "#c8553d", "#5a8f5a", "#8a6fae", "#b8860b", "#2f8f9d", "#a05195", "#6b6b6b")
_DPI = 130
_SMOOTH_SHARE = 0.05
_LOG_SPAN = (
    20  # a loss that falls by this factor is drawn on a logarithmic axis, or its end would be a flat line
)


def draw_curve(curve: Curve, title: str, path: Path) -> None:
    """Draw loss above, learning rate and gradient norm below, as PNG."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7.2, 4.6), dpi=_DPI, sharex=True, height_ratios=(3, 1.2)
    )
    train = finite(curve.train)
    if train:
        top.plot(*zip(*train, strict=True), color=_TRAIN, linewidth=0.7, alpha=0.35)
        width = max(3, round(len(train) * _SMOOTH_SHARE))
        top.plot(*zip(*smooth(train, width), strict=True), color=_TRAIN, linewidth=1.6, label="training")
    evaluation = finite(curve.evaluation)
    if evaluation:
        top.plot(
            *zip(*evaluation, strict=True), color=_EVALUATION, marker="o", markersize=4, label="evaluation"
        )
    for step, value in curve.train:
        if not math.isfinite(value):
            top.axvline(step, color=_EVALUATION, linestyle=":", label=f"not a number at step {step}")
            break
    _set_loss_axis(top, [value for _, value in (*train, *evaluation)])
    if top.get_legend_handles_labels()[0]:
        top.legend(frameon=False)
    top.set_title(title, fontsize=10, loc="left")
    _draw_rate_and_norm(bottom, finite(curve.learning_rate), finite(curve.gradient_norm))
    bottom.set_xlabel("optimizer step")
    _finish(figure, (top, bottom), path)


def draw_comparison(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw the losses of several runs, evaluation as points, training as smoothed lines, as PNG."""
    figure, axes = plt.subplots(figsize=(7.2, 3.8), dpi=_DPI)
    values: list[float] = []
    for index, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        train, evaluation = finite(curve.train), finite(curve.evaluation)
        values += [value for _, value in (*train, *evaluation)]
        if train:
            line = smooth(train, max(3, round(len(train) * _SMOOTH_SHARE)))
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=1, alpha=0.5)
        if evaluation:
            axes.plot(*zip(*evaluation, strict=True), color=colour, marker="o", markersize=4, linewidth=0)
        axes.plot([], [], color=colour, marker="o", markersize=4, linewidth=1, label=name)
    _set_loss_axis(axes, values)
    axes.set_xlabel("optimizer step (line: training, dots: evaluation)")
    axes.legend(frameon=False, fontsize=7)
    _finish(figure, (axes,), path)


def draw_rates(points: Sequence[tuple[float, float, float]], chosen: float, path: Path) -> None:
    """Draw loss over learning rate of a range test as PNG; points are rate, loss and smoothed loss."""
    figure, axes = plt.subplots(figsize=(7.2, 3.4), dpi=_DPI)
    rates, losses, smoothed = zip(*points, strict=True)
    axes.plot(rates, losses, color=_TRAIN, linewidth=0.7, alpha=0.35, label="step")
    axes.plot(rates, smoothed, color=_TRAIN, linewidth=1.6, label="smoothed")
    axes.axvline(chosen, color=_EVALUATION, linestyle="--", label=f"suggested {chosen:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    _set_loss_axis(axes, list(losses))
    axes.legend(frameon=False)
    _finish(figure, (axes,), path)


def finite(points: Sequence[Point]) -> list[Point]:
    """Return the points whose value is a finite number."""
    return [point for point in points if math.isfinite(point[1])]


def _draw_rate_and_norm(axes: Any, rates: Sequence[Point], norms: Sequence[Point]) -> None:
    if rates:
        axes.plot(*zip(*rates, strict=True), color=_RATE, linewidth=1.2)
    axes.set_ylabel("learning rate", color=_RATE, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    if norms:
        other = axes.twinx()
        other.plot(*zip(*norms, strict=True), color=_NORM, linewidth=0.8, alpha=0.7)
        other.set_ylabel("gradient norm", color=_NORM, fontsize=8)
        other.set_ylim(bottom=0)
        other.spines["top"].set_visible(False)


def _set_loss_axis(axes: Any, values: Sequence[float]) -> None:
    axes.set_ylabel("loss (nats per token)", fontsize=9)
    lowest, highest = min(values, default=0.0), max(values, default=1.0)
    if lowest > 0 and highest / lowest > _LOG_SPAN:
        axes.set_yscale("log")
    elif lowest < highest / 2:
        axes.set_ylim(0, highest * 1.05)  # a curve that falls little would be a line at the top
    axes.grid(alpha=0.25)


def _finish(figure: Any, all_axes: Sequence[Any], path: Path) -> None:
    for axes in all_axes:
        axes.spines["top"].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
