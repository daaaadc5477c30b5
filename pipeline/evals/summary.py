"""From judged turns to rates: one definition of every number that a report shows. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipeline.core.operation import Part
from pipeline.evals.intervals import Interval, Rate, cluster_bootstrap, percentile
from pipeline.evals.records import TurnRecord

_MAX_TAG_VALUES = 20
RATE_MEANINGS: dict[str, str] = {
    "whole_turn": "everything that applies to the turn is right (all turns)",
    "conversation": "all turns of the conversation are right, each after the true history",
    "well_formed": "every call parses and fits its schema (turns in which the model tried to call)",
    "right_tools": "the right tools in the right order (turns that need calls)",
    "right_arguments": "the right tools with exactly the right arguments (turns that need calls)",
    "right_state": "the tasks are what they should be, and nothing else was written (turns that need calls)",
    "no_call": "no call where none is due (questions back and small talk)",
    "right_question": "asks for what is missing (turns that need a question)",
    "grounded": "the reply says what the tools returned, and no more (turns after a tool result)",
}


class LatencySummary(Part):
    """Time per answer as the client saw it, and tokens."""

    p50_ms: float | None
    """Median, nearest rank."""
    p95_ms: float | None
    """95th percentile."""
    call_p50_ms: float | None
    """Median of turns that need calls."""
    call_p95_ms: float | None
    """95th percentile of turns that need calls."""
    prompt_tokens: int
    """Sum over all turns."""
    completion_tokens: int
    """Sum over all turns."""
    completion_tokens_per_second: float | None = None
    """Answer tokens per second of one request, reading the prompt included."""


class Summary(Part):
    """All numbers about a list of judged turns."""

    rates: dict[str, Rate]
    """By name, see :data:`RATE_MEANINGS`."""
    whole_turn_by_formulation: Interval | None
    """Whole turns right, with the interval that counts formulations, not rows, as independent."""
    by_kind: dict[str, Rate]
    """Whole turns right by kind of turn."""
    by_intent: dict[str, Rate]
    """Whole turns right by the tag ``intent``."""
    by_tag: dict[str, Rate] = {}
    """Whole turns right by every other tag of neutral cases, as ``tag=value``."""
    errors: dict[str, int]
    """Turns by error code, the cause only, most frequent first."""
    latency: LatencySummary
    """Speed."""


def find_slicing_tags(tags: Iterable[Mapping[str, object]]) -> set[str]:
    """Return the tags that make slices; one with many values names rows and would fill reports with rates of one."""
    values: dict[str, set[object]] = {}
    for found in tags:
        for name, value in found.items():
            values.setdefault(name, set()).add(value)
    return {name for name, seen in values.items() if len(seen) <= _MAX_TAG_VALUES}


def summarise(records: Sequence[TurnRecord], seed: int) -> Summary:
    """Return the numbers of a list of judged turns."""
    rates = {
        "whole_turn": Rate.of(record.correct for record in records),
        "conversation": _conversations(records),
    }
    for name in list(RATE_MEANINGS)[2:]:
        rates[name] = Rate.of(record.checks[name] for record in records if name in record.checks)
    causes = Counter(record.errors[0] for record in records if record.errors)
    slicing = find_slicing_tags(record.tags for record in records) - {"intent", "paraphrase"}
    clusters = _group((record.group, float(record.correct)) for record in records)
    return Summary(
        rates=rates,
        whole_turn_by_formulation=hide_empty_interval(cluster_bootstrap(clusters, seed)),
        by_kind=_rates_by((record.kind, record.correct) for record in records),
        by_intent=_rates_by((record.intent, record.correct) for record in records),
        by_tag=_rates_by(
            (slice_, record.correct) for record in records for slice_ in _slices(record, slicing)
        ),
        errors=dict(causes.most_common()),
        latency=_summarise_latency(records),
    )


def hide_empty_interval(found: Interval | None) -> Interval | None:
    """Drop the ends when all turns are right, or all wrong: resampling the same cannot show what else may happen."""
    is_empty = found is not None and found.low == found.high
    return found.model_copy(update={"low": None, "high": None}) if found and is_empty else found


def _conversations(records: Iterable[TurnRecord]) -> Rate:
    by_case = _group((record.id, float(record.correct)) for record in records)
    return Rate.of(all(turns) for turns in by_case.values())


def _slices(record: TurnRecord, slicing: set[str]) -> list[str]:
    return [f"{tag}={value}" for tag, value in record.tags.items() if tag in slicing]


def _rates_by(pairs: Iterable[tuple[str, bool]]) -> dict[str, Rate]:
    grouped = _group((name, float(correct)) for name, correct in pairs)
    return {name: Rate.of(bool(value) for value in grouped[name]) for name in sorted(grouped)}


def _group(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def _summarise_latency(records: Sequence[TurnRecord]) -> LatencySummary:
    times = [record.predicted.latency_ms for record in records]
    call_times = [record.predicted.latency_ms for record in records if record.kind == "call"]
    num_made = sum(record.predicted.completion_tokens or 0 for record in records)
    return LatencySummary(
        p50_ms=percentile(times, 0.5),
        p95_ms=percentile(times, 0.95),
        call_p50_ms=percentile(call_times, 0.5),
        call_p95_ms=percentile(call_times, 0.95),
        prompt_tokens=sum(record.predicted.prompt_tokens or 0 for record in records),
        completion_tokens=num_made,
        completion_tokens_per_second=round(1000 * num_made / sum(times), 1)
        if num_made and sum(times)
        else None,
    )
