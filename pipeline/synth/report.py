"""``data_report``: what a data set holds, in numbers. It judges nothing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.core.messages import Example
from pipeline.synth.diversity import distinct_ratio, self_bleu
from pipeline.synth.formulations import Bank

_COUNTED_TAGS = ("kind", "intent", "outcome")
_MAX_PAIRS_SHOWN = 12


def describe_rows(rows: Sequence[Example], bank: Bank | None) -> dict[str, Any]:
    """Return the numbers of one split, worded from ``bank`` or by somebody else."""
    groups = Counter(row.group for row in rows)
    users = [message.content or "" for row in rows for message in row.messages if message.role == "user"]
    registers = Counter(name for row in rows for name in row.tags["register"].split("+"))
    return {
        "rows": len(rows),
        **{f"by_{tag}": _count(row.tags[tag] for row in rows) for tag in _COUNTED_TAGS},
        "by_register": dict(registers.most_common()),
        "calls": sum(len(message.tool_calls) for row in rows for message in row.messages),
        **(
            {"formulations_available": {n: len(lines) for n, lines in bank.formulations.items()}}
            if bank
            else {}
        ),
        "formulations_used": _count(group.split(":")[0] for group in groups),
        "top_formulation_ratio": round(max(groups.values()) / len(rows), 4) if rows else 0.0,
        "distinct_1_ratio": distinct_ratio(users, 1),
        "distinct_2_ratio": distinct_ratio(users, 2),
        "self_bleu": self_bleu(users),
        "distinct_user_texts": len(set(users)),
        "mean_user_characters": round(sum(map(len, users)) / len(users), 1) if users else 0.0,
    }


def render_report(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    made = sum(report["made"].values()) if "made" in report else 0
    lines = [
        "# Data report",
        "",
        f"Writer `{report['writer']}`, mix `{report['mix']}`, seed {report['seed']}. Every call was executed on the Task"
        f" API; {sum(report['rejected'].values())} draws were rejected."
        + (f" {made} rows were made; those most like another row were left out." if made else ""),
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
    for split, matrix in report.get("matrix", {}).items():
        lines += _render_matrix(split, matrix)
    return "\n".join(lines)


def _render_matrix(split: str, matrix: dict[str, Any]) -> list[str]:
    """Return how far the coverage matrix of a split is filled."""
    missing: list[str] = matrix["missing_pairs"]
    shown = "; ".join(missing[:_MAX_PAIRS_SHOWN]) + (" ..." if len(missing) > _MAX_PAIRS_SHOWN else "")
    return [
        f"Coverage of {split}: {matrix['covered_pairs']} of {matrix['possible_pairs']} possible pairs of attribute values"
        + (f"; missing: {shown}." if missing else "."),
        "",
        *_table("category", [split], {name: [count] for name, count in matrix["rows_by_category"].items()}),
        *_table("shape", [split], {name: [count] for name, count in matrix["rows_by_shape"].items()}),
    ]


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
