"""The files of one evaluation's report: JSON for programs, Markdown and HTML with pictures for people, a model card part.

Pictures need matplotlib; without it the report is made without them and says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.extras import installed_version
from pipeline.core.files import write_atomic, write_json
from pipeline.core.pages import render_html
from pipeline.evals.answers import PREDICTIONS_FILE
from pipeline.evals.intervals import Rate
from pipeline.evals.records import DETAILS_FILE, TurnRecord
from pipeline.evals.report import (
    choose_worst,
    describe_answer,
    describe_prediction,
    rate_table,
    render_report,
)
from pipeline.evals.summary import Summary

REPORT_JSON, REPORT_PAGE, REPORT_HTML, CARD = (
    "eval_report.json",
    "eval_report.md",
    "eval_report.html",
    "model_card_section.md",
)
RATES_PICTURE, CONFUSION_PICTURE = "rates.png", "confusion.png"
NO_CALL = "(no call)"
_CARD_RATES = ("whole_turn", "well_formed", "right_tools", "right_arguments", "no_call", "right_question")


def write_reports(
    folder: Path, facts: Mapping[str, object], summary: Summary, records: Sequence[TurnRecord]
) -> list[str]:
    """Write all report files into a folder; return warnings."""
    worst = [_describe_worst(record) for record in choose_worst(records)]
    confusion = count_confusion(records)
    write_json(
        folder / REPORT_JSON,
        {**facts, **summary.model_dump(mode="json"), "confusion": confusion, "worst": worst},
    )
    lines = [f"{key}: {value}" for key, value in facts.items()]
    page = render_report(f"Evaluation of {facts['label']}", lines, summary, records)
    warnings: list[str] = []
    if installed_version("matplotlib") is None:
        warnings.append("matplotlib is not installed, so the report has no pictures (extra `train`)")
    else:
        page = _add_pictures(page, folder, summary, confusion)
    write_atomic(folder / REPORT_PAGE, page)
    write_atomic(folder / REPORT_HTML, render_html(page, folder))
    write_atomic(folder / CARD, render_card_section(facts, summary))
    return warnings


def copy_reports(source: Path, target: Path) -> None:
    """Copy the report files that exist."""
    names = (REPORT_JSON, REPORT_PAGE, REPORT_HTML, CARD, RATES_PICTURE, CONFUSION_PICTURE)
    for name in (*names, DETAILS_FILE, PREDICTIONS_FILE):
        if (source / name).exists():
            write_atomic(target / name, (source / name).read_bytes())


def count_confusion(records: Sequence[TurnRecord]) -> dict[str, dict[str, int]]:
    """Return wanted tool -> called tool -> count; calls of one answer are paired so that equal names meet first."""
    table: dict[str, Counter[str]] = {}
    for record in records:
        gold: list[dict[str, Any]] = record.gold.get("tool_calls") or []
        wanted = Counter(str(call["function"]["name"]) for call in gold)
        made = Counter(call.name for call in record.predicted.tool_calls)
        for name, count in (wanted & made).items():
            table.setdefault(name, Counter())[name] += count
        left, right = list((wanted - made).elements()), list((made - wanted).elements())
        longest = max(len(left), len(right), 0 if wanted or made else 1)
        left += [NO_CALL] * (longest - len(left))
        right += [NO_CALL] * (longest - len(right))
        for one, two in zip(left, right, strict=True):
            table.setdefault(one, Counter())[two] += 1
    return {name: dict(row) for name, row in sorted(table.items())}


def render_card_section(facts: Mapping[str, object], summary: Summary) -> str:
    """Return the part of a model card that says how good the model is, ready to paste."""
    rates = {name: summary.rates[name] for name in _CARD_RATES if summary.rates[name].total}
    lines = [
        "## Evaluation",
        "",
        f"{facts['label']}: {facts['num_turns']} answers to {facts['num_cases']} cases of `{facts['cases']}` "
        f"(SHA-256 {str(facts['cases_sha256'])[:12]}), greedy, seed {facts['seed']}. 95 % Wilson intervals.",
        "",
        *rate_table({str(facts["label"]): rates}),
        "",
        "Most frequent causes of errors: "
        + (", ".join(f"{code} ({count})" for code, count in list(summary.errors.items())[:5]) or "none")
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _describe_worst(record: TurnRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "turn": record.turn,
        "kind": record.kind,
        "user": record.user,
        "expected": describe_answer(record.gold),
        "got": describe_prediction(record),
        "errors": list(record.errors),
    }


def _add_pictures(page: str, folder: Path, summary: Summary, confusion: dict[str, dict[str, int]]) -> str:
    from pipeline.evals.backends.charts import draw_confusion, draw_rates

    shown: dict[str, Rate] = {**summary.rates}
    shown |= {f"kind: {name}": rate for name, rate in summary.by_kind.items()}
    shown |= {f"intent: {name}": rate for name, rate in summary.by_intent.items() if name != "-"}
    shown |= summary.by_tag
    draw_rates({"this model": shown}, folder / RATES_PICTURE)
    pictures = ["## Pictures", "", f"![Rates with 95 % intervals]({RATES_PICTURE})", ""]
    if any(name != NO_CALL for name in confusion):
        draw_confusion(confusion, folder / CONFUSION_PICTURE, "called", "wanted")
        pictures += [f"![Wanted and called tools]({CONFUSION_PICTURE})", ""]
    head, _, rest = page.partition("## Causes of wrong turns")
    return head + "\n".join(pictures) + "\n## Causes of wrong turns" + rest
