"""The evaluator on a real model: untrained SmolLM2-135M behind the embedded server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from pipeline.core.files import read_json
from pipeline.core.runs import Run, list_runs
from pipeline.evals.compare import EVALS_COMPARE, EvalCompareResult
from pipeline.evals.records import read_details, read_finished
from pipeline.evals.run import EVALS_RUN, EvalRunResult
from pipeline.inference.server import ServerHandle, start_server
from pipeline.inference.server_spec import ServerSpec

pytestmark = pytest.mark.slow
CASES = Path(__file__).resolve().parents[1] / "assets" / "eval_cases.jsonl"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerHandle]:
    spec = ServerSpec(model_path=str(starter_gguf), name="starter", context_length=2048)
    with start_server(spec, folder=tmp_path_factory.mktemp("server")) as handle:
        yield handle


def test_an_untrained_model_is_measured_and_found_wanting(server: ServerHandle, workspace: Path) -> None:
    request = {
        "cases": str(CASES),
        "base_url": server.base_url,
        "model": "starter",
        "max_tokens": 24,
        "label": "base",
    }
    first: EvalRunResult = EVALS_RUN.call(request)
    assert first.num_turns == 25
    assert first.whole_turn.low is not None
    assert first.whole_turn.high is not None
    assert 0 <= first.whole_turn.low <= first.whole_turn.right / 25 <= first.whole_turn.high < 0.6
    assert sum(first.errors.values()) == 25 - first.whole_turn.right
    assert first.latency.p50_ms is not None
    assert first.latency.p50_ms > 0
    assert first.latency.completion_tokens <= 25 * 24
    stored = read_json(workspace / "runs" / first.run_id / "artifacts" / "eval_report.json")
    assert stored["rates"]["whole_turn"]["total"] == 25
    assert len(stored["worst"]) == min(20, 25 - first.whole_turn.right)
    records = read_details(workspace / first.details)
    assert all(record.predicted.prompt_tokens for record in records if record.predicted.broken is None)

    again: EvalRunResult = EVALS_RUN.call({**request, "concurrency": 1, "limit": 4})
    assert again.num_cases == 4
    result: EvalCompareResult = EVALS_COMPARE.call({"before": first.run_id, "after": again.run_id})
    assert (result.num_turns, result.verdict) == (again.num_turns, "not proven")
    assert "on one side only" in result.warnings[0]


def test_a_killed_evaluation_continues_where_it_stopped(server: ServerHandle, workspace: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "evals", "run", "--cases", str(CASES), "--model", "starter"]
    command += ["--base-url", server.base_url, "--max-tokens", "24", "--concurrency", "1"]
    environment = {**os.environ, "LLMOPS_WORKSPACE": str(workspace)}
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    kept: set[tuple[str, int]] = set()
    while len(kept) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        runs = list_runs()
        kept = set(read_finished(runs[0].artifacts / "details.jsonl")) if runs else set()
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = list_runs()[0]
    before = read_finished(run.artifacts / "details.jsonl")
    assert 3 <= len(before) < 25
    assert run.state() == "interrupted"

    result = EVALS_RUN.execute(EVALS_RUN.parse(read_json(run.path / "request.json")), Run.open(run.id))
    after = read_finished(run.artifacts / "details.jsonl")
    assert result.num_turns == len(after) == 25
    assert all(after[key] == record for key, record in before.items())
