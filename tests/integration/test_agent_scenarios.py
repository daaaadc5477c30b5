"""The situations of lesson 66.7 with a model tuned for this test, on the real server, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.agent.situations import SITUATIONS

pytestmark = pytest.mark.slow

NUM_ROWS = 1200  # a quarter of the quickstart's: enough for plain sentences, and a few minutes of two cores


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> dict[str, dict[str, Any]]:
    """What `agent scenarios` says of a model trained on the mix with setbacks, by situation."""
    workspace = tmp_path_factory.mktemp("scenarios")
    (workspace / "models").mkdir()
    (workspace / "models" / starter_model.name).symlink_to(starter_model)

    def llmops(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments, "--json"],
            env={**os.environ, "LLMOPS_WORKSPACE": str(workspace)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in {0, 1}, done.stderr[-3000:]
        return json.loads(done.stdout)

    llmops("synth", "generate", "--out", "data/quick", "--mix", "setbacks", "--num-rows", str(NUM_ROWS))
    trained = llmops("train", "run", "data/quick", "--model", starter_model.name, "--preset", "cpu-quality")
    llmops("export", "run", trained["run_id"], "--quantizations", "q8_0", "--num-turns", "4")
    played = llmops("agent", "scenarios")
    return {verdict["name"]: verdict for verdict in played["scenarios"]}


@pytest.mark.parametrize("name", [situation.name for situation in SITUATIONS])
def test_the_agent_keeps_its_head(name: str, verdicts: dict[str, dict[str, Any]]) -> None:
    verdict = verdicts[name]
    assert verdict["passed"], (verdict["reason"], verdict["reply"])


def test_the_next_request_after_kill_9_works_within_five_seconds(verdicts: dict[str, dict[str, Any]]) -> None:
    assert verdicts["server_restart"]["seconds_after_restart"] <= 5
