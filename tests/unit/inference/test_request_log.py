import json
from pathlib import Path

import pytest

from pipeline.inference.request_log import measure_latency, read_statistics


def write_log(folder: Path, *records: dict[str, object]) -> Path:
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_figures_are_those_of_the_answered_requests(tmp_path: Path) -> None:
    tokens = {"prompt_tokens": 100, "cached_tokens": 75, "completion_tokens": 10}
    log = write_log(
        tmp_path,
        {"status": 200, "seconds": 1.0, **tokens},
        {"status": 200, "seconds": 3.0, "retried": True, **tokens},
        {"status": 499, "seconds": 60.0},
        {"status": 404, "error": "model_not_found", "seconds": 0.001},
    )
    found = read_statistics(log)
    assert (found.num_requests, found.num_errors, found.num_retried) == (4, 2, 1)
    assert found.errors == {"499": 1, "model_not_found": 1}
    # By hand: 20 tokens in 4 s; 150 of 200 prompt tokens.
    assert (found.completion_tokens, found.tokens_per_second, found.cached_ratio) == (20, 5.0, 0.75)
    assert found.latency is not None
    # Halfway between 1 and 3, and 95 % of the way.
    assert (found.latency.p50_seconds, found.latency.p95_seconds, found.latency.max_seconds) == (
        2.0,
        2.9,
        3.0,
    )


def test_no_log_has_no_requests_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    none = read_statistics(tmp_path / "requests.jsonl")
    assert (none.num_requests, none.latency, none.tokens_per_second, none.cached_ratio) == (
        0,
        None,
        None,
        None,
    )
    log = write_log(tmp_path, {"status": 200, "seconds": 1.0})
    with log.open("a", encoding="utf-8") as handle:
        handle.write('{"status": 2')  # the server was killed while it wrote
    assert read_statistics(log).num_requests == 1


@pytest.mark.parametrize(("seconds", "p95"), [([2.0], 2.0), ([float(n) for n in range(21)], 19.0)])
def test_the_95th_percentile_is_interpolated(seconds: list[float], p95: float) -> None:
    figures = measure_latency(seconds)
    assert figures is not None
    assert figures.p95_seconds == p95
