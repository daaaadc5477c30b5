"""Figures of a server's ``requests.jsonl``: how many requests, which errors, how long, how fast.

Reads the log only; what is in a line is decided by the gateway, which writes no contents into it.
"""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.operation import Part

_OK = 200


class LatencyFigures(Part):
    """Spread of times."""

    p50_seconds: float
    """Half of the requests took no longer."""
    p95_seconds: float
    """95 of 100 requests took no longer."""
    max_seconds: float
    """The slowest."""


class RequestStatistics(Part):
    """Chat requests of one server."""

    num_requests: int
    """Requests that have ended."""
    num_errors: int
    """Those that ended without an answer; a client that left is one."""
    errors: dict[str, int]
    """How often each error came."""
    num_retried: int
    """Answered at the second try, because the first tool call could not be parsed."""
    latency: LatencyFigures | None
    """Of answered requests; null without any."""
    cached_ratio: float | None
    """Share of prompt tokens that had been read before."""
    completion_tokens: int
    """Tokens generated."""
    tokens_per_second: float | None
    """Generated tokens by the time their requests took, reading the prompt and waiting for a slot included."""


def measure_latency(seconds: Sequence[float]) -> LatencyFigures | None:
    """Return median, 95th percentile and maximum, interpolated between neighbours; None for no times."""
    if not seconds:
        return None
    # `quantiles` wants two values; one value stands for itself.
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return LatencyFigures(
        p50_seconds=round(statistics.median(seconds), 4),
        p95_seconds=round(p95, 4),
        max_seconds=round(max(seconds), 4),
    )


def read_statistics(log: Path) -> RequestStatistics:
    """Return the figures of a request log; a missing one has no requests, a line cut by a crash is left out."""
    records = list(_read_records(log))
    answered = [record for record in records if record["status"] == _OK]
    errors = Counter(
        str(record.get("error") or record["status"]) for record in records if record["status"] != _OK
    )
    seconds = [float(record["seconds"]) for record in answered]
    prompt, cached, generated = (
        sum(record.get(key) or 0 for record in answered)
        for key in ("prompt_tokens", "cached_tokens", "completion_tokens")
    )
    return RequestStatistics(
        num_requests=len(records),
        num_errors=errors.total(),
        errors=dict(errors.most_common()),
        num_retried=sum(bool(record.get("retried")) for record in answered),
        latency=measure_latency(seconds),
        cached_ratio=round(cached / prompt, 4) if prompt else None,
        completion_tokens=generated,
        tokens_per_second=round(generated / sum(seconds), 2) if sum(seconds) else None,
    )


def _read_records(log: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records
