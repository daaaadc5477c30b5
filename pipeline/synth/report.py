"""``data_report``: what a data set holds, in numbers. It judges nothing."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.core.messages import Example
from pipeline.synth.formulations import Bank

_COUNTED_TAGS = ("kind", "intent", "outcome")


def describe_rows(rows: Sequence[Example], bank: Bank) -> dict[str, Any]:
    """Return the numbers of one split, made from ``bank``."""
    groups = Counter(row.group for row in rows)
    users = [message.content or "" for row in rows for message in row.messages if message.role == "user"]
    registers = Counter(name for row in rows for name in row.tags["register"].split("+"))
    return {
        "rows": len(rows),
        **{f"by_{tag}": _count(row.tags[tag] for row in rows) for tag in _COUNTED_TAGS},
        "by_register": dict(registers.most_common()),
        "calls": sum(len(message.tool_calls) for row in rows for message in row.messages),
        "formulations_available": {name: len(lines) for name, lines in bank.formulations.items()},
        "formulations_used": _count(group.split(":")[0] for group in groups),
        "top_formulation_ratio": round(max(groups.values()) / len(rows), 4) if rows else 0.0,
        "distinct_1_ratio": _distinct_ratio(users, 1),
        "distinct_2_ratio": _distinct_ratio(users, 2),
        "distinct_user_texts": len(set(users)),
        "mean_user_characters": round(sum(map(len, users)) / len(users), 1) if users else 0.0,
    }


def render_report(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        "# Data report",
        "",
        f"Writer `{report['writer']}`, seed {report['seed']}. Every call was executed on the Task API; "
        f"{sum(report['rejected'].values())} draws were rejected; {report['removed_from_test']} lines of the test bank "
        "that the train bank also holds were left out.",
        "",
        "| file | sha256 |",
        "| --- | --- |",
        *(f"| {name} | `{digest}` |" for name, digest in report["sha256"].items()),
        "",
    ]
    splits: dict[str, dict[str, Any]] = report["splits"]
    lines += _table("number", splits, _scalars(splits))
    for section in ("by_kind", "by_intent", "by_outcome", "by_register", "formulations_used"):
        keys = dict.fromkeys(key for split in splits.values() for key in split[section])
        lines += _table(
            section.replace("_", " "),
            splits,
            {k: [s[section].get(k, 0) for s in splits.values()] for k in keys},
        )
    return "\n".join(lines)


def _scalars(splits: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    first = next(iter(splits.values()))
    return {
        name: [split[name] for split in splits.values()]
        for name, value in first.items()
        if not isinstance(value, dict)
    }


def _table(title: str, splits: Iterable[str], rows: dict[str, list[Any]]) -> list[str]:
    names = list(splits)
    return [
        f"| {title} | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
        *(f"| {name} | {' | '.join(map(str, values))} |" for name, values in rows.items()),
        "",
    ]


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _distinct_ratio(texts: Sequence[str], size: int) -> float:
    """Distinct n-grams over all n-grams (Li et al., arXiv:1510.03055)."""
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        grams.update(zip(*(words[start:] for start in range(size)), strict=False))
    return round(len(grams) / grams.total(), 4) if grams else 0.0
