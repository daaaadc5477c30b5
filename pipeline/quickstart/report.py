"""The one-page report of a quickstart: Markdown, the same as HTML, and its pictures."""

import json
import os
import platform
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.core.extras import require
from pipeline.core.files import write_atomic
from pipeline.core.pages import render_html
from pipeline.core.units import format_bytes, format_seconds
from pipeline.quickstart.steps import StepRecord

RATES = (
    ("whole turn right", "whole_turn"),
    ("conversation right", "conversation"),
    ("calls well formed", "well_formed"),
    ("right tools", "right_tools"),
    ("exact arguments", "right_arguments"),
    ("right end state", "right_state"),
    ("no call where none is due", "no_call"),
    ("asks the right question", "right_question"),
    ("reply grounded in the result", "grounded"),
)
_NUM_WORST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """Everything the report shows."""

    request: dict[str, Any]
    """The quickstart's request."""
    results: dict[str, Any]
    """Result of each part: pull, data, train, export, base, tuned, agent."""
    steps: dict[str, StepRecord]
    """Time and memory by step."""
    train_metrics: list[dict[str, Any]]
    """Lines of the training run's metrics.jsonl."""
    gate: dict[str, Any]
    """The export's gate.json."""
    worst: list[dict[str, Any]]
    """Worst cases of the tuned model."""


def write_report(facts: ReportFacts, folder: Path) -> Path:
    """Write ``report.md``, ``report.html``, ``loss.png`` and ``before_after.png``; return the Markdown's path."""
    require("matplotlib", extra="train")
    from pipeline.quickstart.backends.plots import draw_before_after, draw_loss_curve

    base, tuned = facts.results["base"], facts.results["tuned"]
    draw_loss_curve(facts.train_metrics, folder / "loss.png")
    draw_before_after([(label, base[key], tuned[key]) for label, key in RATES], folder / "before_after.png")
    text = render_markdown(facts)
    write_atomic(folder / "report.md", text)
    write_atomic(folder / "report.html", render_html(text, folder))
    return folder / "report.md"


def render_markdown(facts: ReportFacts) -> str:
    """Return the report as Markdown."""
    import jinja2

    template = files("pipeline.quickstart").joinpath("templates/report.md.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=False)
    results = facts.results
    return environment.from_string(template).render(
        name=facts.request["name"],
        base=facts.request["model"],
        base_eval=results["base"],
        tuned=results["tuned"],
        train=results["train"],
        export=results["export"],
        data=results["data"],
        transcript=results["agent"]["items"],
        worst=facts.worst[:_NUM_WORST],
        rates=RATES,
        steps=facts.steps,
        train_seconds=facts.steps["train"].seconds,
        total_seconds=sum(step.seconds for step in facts.steps.values()),
        peak_bytes=max(step.peak_bytes for step in facts.steps.values()),
        hardware=f"{os.cpu_count()} cores, {platform.machine()}",
        rate=_format_rate,
        interval=_format_interval,
        seconds=format_seconds,
        bytes=format_bytes,
        ms=_format_milliseconds,
        json=_format_json,
        arguments=_format_arguments,
    )


def _format_milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _format_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _format_arguments(item: dict[str, Any]) -> str:
    arguments: dict[str, Any] = item["arguments"] or {}
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _format_rate(rate: dict[str, Any]) -> str:
    if rate["rate"] is None:
        return "- (nothing to count)"
    return f"{rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] ({rate['right']}/{rate['total']})"


def _format_interval(interval: dict[str, Any] | None) -> str:
    return "-" if interval is None else f"[{interval['low']:.3f}, {interval['high']:.3f}]"
