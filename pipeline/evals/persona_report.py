"""The report of a persona evaluation: Markdown and HTML with pictures, and failing replies to read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.extras import installed_version
from pipeline.core.files import write_atomic
from pipeline.core.pages import render_html
from pipeline.evals.intervals import Rate
from pipeline.evals.persona_cases import Reply
from pipeline.evals.report import rate_table
from pipeline.personas.items import judge_reply
from pipeline.personas.spec import Persona

if TYPE_CHECKING:
    from pipeline.evals.persona import EvalPersonaResult

_MAX_SHOWN = 12


def write_persona_report(
    folder: Path, result: "EvalPersonaResult", personas: Mapping[str, Persona], failures: Sequence[Reply]
) -> None:
    """Write persona_report.md, persona_report.html and the pictures."""
    columns: dict[str, dict[str, Rate]] = {
        name: {"adherence": s.adherence, "hard_rules": s.hard_rules, "vocabulary": s.vocabulary, **s.items}
        for name, s in result.personas.items()
    }
    lines = [f"# Personas of {result.model}", "", f"- gate: {result.verdict}"]
    lines += [
        f"- {name}: signature phrases {'in band' if s.vocabulary_in_band else 'outside the band'}, "
        f"{s.distinct_ratio:.0%} of replies different, {s.phrases_in_arguments} with a phrase in tool arguments"
        for name, s in result.personas.items()
    ]
    lines += [
        f"- heard as the wanted persona: {result.style_accuracy}",
        f"- failing after a switch: {result.bleed}; the same prompts without one: {result.without_switch}",
    ]
    if result.preference is not None:
        p = result.preference
        lines.append(
            f"- against the other system: {p.wins} won, {p.losses} lost, {p.ties} tied, sign test p = {p.p_value:.3g}"
        )
    lines += ["", "Each rate with its 95 % Wilson interval and (right/total).", "", *rate_table(columns), ""]
    if installed_version("matplotlib") is not None:
        lines += _draw(folder, columns, result.confusion)
    lines += ["## Failing replies to read", ""]
    for reply in failures[:_MAX_SHOWN]:
        wrong = [
            f"{v.item} ({v.evidence})"
            for v in judge_reply(personas[reply.case.persona], reply.text)
            if not v.passed
        ]
        lines += [
            f"- {reply.case.id} ({reply.case.persona}): `{_one_line(reply.text)}`",
            f"  - {'; '.join(wrong)}",
        ]
    page = "\n".join(lines if failures else [*lines, "None."]) + "\n"
    write_atomic(folder / "persona_report.md", page)
    write_atomic(folder / "persona_report.html", render_html(page, folder))


def _draw(
    folder: Path, columns: Mapping[str, Mapping[str, Rate]], confusion: Mapping[str, Mapping[str, int]]
) -> list[str]:
    from pipeline.evals.backends.charts import draw_confusion, draw_rates

    draw_rates(columns, folder / "items.png")
    pictures = ["![Items with 95 % intervals](items.png)", ""]
    if confusion:
        draw_confusion(confusion, folder / "voices.png", "heard", "wanted")
        pictures += ["![Wanted and heard voices](voices.png)", ""]
    return pictures


def _one_line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())[:300]
