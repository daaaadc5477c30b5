"""Evaluation reports in Markdown, for people. The numbers come from :mod:`pipeline.evals.summary`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evals.intervals import Rate
from pipeline.evals.records import TurnRecord
from pipeline.evals.summary import RATE_MEANINGS, Summary

MAX_WORST = 20
_MAX_TEXT = 300


def choose_worst(records: Sequence[TurnRecord], limit: int = MAX_WORST) -> list[TurnRecord]:
    """Return wrong turns to read: the different causes in turn, within a cause the turns with most errors first."""
    by_cause: dict[str, list[TurnRecord]] = {}
    for record in sorted(records, key=lambda r: -len(r.errors)):
        if record.errors:
            by_cause.setdefault(record.errors[0], []).append(record)
    rounds = max((len(found) for found in by_cause.values()), default=0)
    ordered = [found[i] for i in range(rounds) for found in by_cause.values() if i < len(found)]
    return ordered[:limit]


def describe_answer(message: Mapping[str, Any]) -> str:
    """Return an answer in OpenAI form as one line."""
    parts = [
        f"{call['function']['name']}({call['function']['arguments']})"
        for call in message.get("tool_calls") or ()
    ]
    if message.get("content"):
        parts.append(json.dumps(_shorten(message["content"]), ensure_ascii=False))
    return " + ".join(parts) or "(nothing)"


def describe_prediction(record: TurnRecord) -> str:
    """Return what the model answered as one line."""
    predicted = record.predicted
    calls = [call.to_openai() for call in predicted.tool_calls]
    return describe_answer({"content": predicted.content, "tool_calls": calls})


def rate_table(columns: Mapping[str, Mapping[str, Rate]]) -> list[str]:
    """Return a Markdown table of rates by name, one column each."""
    names = list(dict.fromkeys(name for rates in columns.values() for name in rates))
    lines = [f"| rate | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    nothing = Rate.of(())
    for name in names:
        cells = [str(rates.get(name, nothing)) for rates in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def render_report(title: str, facts: Sequence[str], summary: Summary, records: Sequence[TurnRecord]) -> str:
    """Return the whole report of one evaluation."""
    lines = [f"# {title}", "", *(f"- {fact}" for fact in facts), "", "## Rates", ""]
    lines += [
        "Each with its 95 % Wilson interval and (right/total).",
        "",
        *rate_table({"value": summary.rates}),
        "",
    ]
    lines += [f"- `{name}`: {meaning}" for name, meaning in RATE_MEANINGS.items()]
    lines += ["", *_describe_clusters(summary), "", "## Whole turn right, by kind", ""]
    lines += [*rate_table({"value": summary.by_kind}), "", "## Whole turn right, by intent", ""]
    lines += [*rate_table({"value": summary.by_intent}), ""]
    if summary.by_tag:
        lines += ["## Whole turn right, by tag", "", *rate_table({"value": summary.by_tag}), ""]
    lines += ["## Causes of wrong turns", ""]
    lines += [f"- {code}: {count}" for code, count in summary.errors.items()] or ["None."]
    lines += ["", "## Speed", "", *_describe_latency(summary), "", "## Wrong turns to read", ""]
    worst = choose_worst(records)
    lines += [line for record in worst for line in _describe_case(record)] or ["None."]
    return "\n".join(lines) + "\n"


def _describe_clusters(summary: Summary) -> list[str]:
    found = summary.whole_turn_by_formulation
    if found is None or found.low is None or found.high is None:
        reason = "All turns went the same way, or all rows share one formulation"
        return [f"{reason}, so resampling formulations gives no interval. Use the one of `whole_turn`."]
    return [
        f"Rows share formulations, and rows of one formulation tend to fail together. Counting the {found.num_clusters} "
        f"formulations as the independent draws, whole_turn is {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]."
    ]


def _describe_latency(summary: Summary) -> list[str]:
    speed = summary.latency
    return [
        f"- answer: p50 {speed.p50_ms} ms, p95 {speed.p95_ms} ms (client side, waiting for a free slot included)",
        f"- turns that need calls: p50 {speed.call_p50_ms} ms, p95 {speed.call_p95_ms} ms",
        f"- tokens: {speed.prompt_tokens} prompt, {speed.completion_tokens} completion; "
        f"{speed.completion_tokens_per_second} completion tokens a second of one request",
    ]


def _describe_case(record: TurnRecord) -> list[str]:
    return [
        f"### {record.id}, turn {record.turn} ({record.kind}, {record.intent})",
        "",
        f"- user: {json.dumps(_shorten(record.user), ensure_ascii=False)}",
        f"- expected: {describe_answer(record.gold)}",
        f"- got: {describe_prediction(record)}",
        f"- errors: {', '.join(record.errors)}",
        "",
    ]


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
