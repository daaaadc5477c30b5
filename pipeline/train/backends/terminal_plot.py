# pyright: basic
"""The loss curve as text, for a terminal and for MCP clients that show no pictures."""

import math

import plotext

from pipeline.train.curve import Curve, Point

_DECADES_ABOVE = 20  # as in curve_plots: a loss that fell by more is drawn as its logarithm


def plot_text(curve: Curve, width: int, height: int) -> str:
    """Return the curve as lines of Braille dots, without colours."""
    train, evaluation = _finite(curve.train), _finite(curve.evaluation)
    if not train and not evaluation:
        return "no step has been logged yet"
    values = [value for _, value in (*train, *evaluation)]
    is_log = min(values) > 0 and max(values) / min(values) > _DECADES_ABOVE
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, height)
    plotext.frame(False)
    for points, marker, label in ((train, "braille", "training"), (evaluation, "●", "evaluation")):
        if points:
            steps = [step for step, _ in points]
            shown = [math.log10(value) if is_log else value for _, value in points]
            draw = plotext.plot if marker == "braille" else plotext.scatter
            draw(steps, shown, marker=marker, label=label)
    if is_log:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        ticks = range(low, high + 1)
        plotext.ylim(low, high)
        plotext.yticks(list(ticks), [f"{10.0**tick:g}" for tick in ticks])
    else:
        plotext.ylim(0, max(values) * 1.05)
    first, last = (train or evaluation)[0][0], max(points[-1][0] for points in (train, evaluation) if points)
    steps_shown = sorted({round(first + (last - first) * part / 4) for part in range(5)})
    plotext.xticks(steps_shown, [str(step) for step in steps_shown])
    return "\n".join(line.rstrip() for line in plotext.uncolorize(plotext.build()).splitlines())


def _finite(points: list[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point[1])]
