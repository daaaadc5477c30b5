"""The decision as Markdown."""

import json
from typing import TYPE_CHECKING

from pipeline.core.units import format_bytes
from pipeline.decide.flips import Flip
from pipeline.economics.report import render_cases, render_table

if TYPE_CHECKING:
    from pipeline.decide.recommend import DecideRecommendResult


def render_decision(result: "DecideRecommendResult") -> str:
    """Return the whole report."""
    lines = [
        f"# {result.use_case}: {result.approach}, {result.location}",
        "",
        result.summary,
        "",
        f"- success means: {result.success_criterion}",
        *(f"- note: {warning}" for warning in result.warnings),
        f"- next: {result.next_step}",
        "",
        "## What would turn it",
        "",
        *_render_flips(result.flips),
        "",
        "## Points",
        "",
        *render_table(
            ("fact", "value", "fine-tune", "retrieval", "reason"),
            [(s.fact, s.value, f"{s.fine_tune:+d}", f"{s.rag:+d}", s.reason) for s in result.scores],
        ),
        f"| **sum** | | **{result.fine_tune_points:+d}** of {result.fine_tune_needed} "
        f"| **{result.rag_points:+d}** of {result.rag_needed} | needed: the number after `of` |",
        "",
        "## Gates before training",
        "",
        *render_table(
            ("gate", "passed", "reason"),
            [(gate.gate, "yes" if gate.passed else "no", gate.reason) for gate in result.gates],
        ),
        "",
        "## Money",
        "",
        f"A model of your own {result.economics_verdict} (expected case).",
        "",
        *render_cases(result.cases),
        "",
    ]
    return "\n".join([*lines, *_render_training(result)])


def _render_flips(flips: list[Flip]) -> list[str]:
    if not flips:
        return ["No change of one or two facts turns it."]
    return [
        "- "
        + " and ".join(
            f"`{change.fact}` {json.dumps(change.now)} -> {json.dumps(change.changed)}"
            for change in flip.changes
        )
        + f": {flip.approach}"
        for flip in flips
    ]


def _render_training(result: "DecideRecommendResult") -> list[str]:
    lines: list[str] = []
    if result.stages:
        rows = [(s.objective, str(s.min_examples), str(s.num_at_hand), s.reason) for s in result.stages]
        lines += [
            "## Training",
            "",
            *render_table(("objective", "examples needed", "at hand", "reason"), rows),
            "",
        ]
    if result.base_models:
        models = [
            (
                model.model,
                f"{model.billion_params:.2f} B",
                model.licence,
                model.tools,
                f"{model.use}: {format_bytes(model.process_bytes)}{'' if model.fits else ', does not fit'}",
                model.reason,
            )
            for model in result.base_models
        ]
        header = ("model", "parameters", "licence", "tools", "memory", "reason")
        lines += ["## Base models to start from", "", *render_table(header, models), ""]
    return lines
