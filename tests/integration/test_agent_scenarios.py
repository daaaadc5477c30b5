"""The situations of lesson 66.7 with a model trained here on what they need, on the real server, kill -9 included."""

import json
from pathlib import Path

import pytest

from pipeline.agent.scenarios import AGENT_SCENARIOS, AgentScenariosRequest, AgentScenariosResult
from pipeline.agent.situations import SITUATIONS
from pipeline.export.run import EXPORT_RUN
from pipeline.synth.generate import SYNTH_GENERATE
from pipeline.train.run import TRAIN_RUN

pytestmark = pytest.mark.slow

# What the situations ask for and nothing else: a third of an hour's rows would teach the rest of the Task API too.
NUM_ROWS_OF_KIND = {
    "create": 380,
    "complete": 180,
    "multi": 240,
    "ask": 160,
    "timeout": 120,
    "no_priority": 120,
}


def choose_rows(path: Path) -> list[str]:
    left = dict(NUM_ROWS_OF_KIND)
    chosen: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        kind = json.loads(line)["tags"]["kind"]
        if left.get(kind, 0) > 0:
            left[kind] -= 1
            chosen.append(line)
    assert not any(left.values()), f"too few rows: {left}"
    return chosen


@pytest.fixture(scope="module")
def model(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model tuned for about seven minutes on two cores, exported and served as q8_0."""
    workspace = tmp_path_factory.mktemp("scenarios")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_WORKSPACE", str(workspace))
        SYNTH_GENERATE.call({"out": "made", "num_rows": 5000, "test_rows": 20, "mix": "setbacks"})
        data = workspace / "data"
        data.mkdir()
        rows = choose_rows(workspace / "made" / "train.jsonl")
        (data / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        trained = TRAIN_RUN.call({"data": "data", "model": f"file:{starter_model}"})
        exported = EXPORT_RUN.call(
            {"run": trained.run_id, "formats": ["gguf"], "quantizations": ["q8_0"], "verify": False}
        )
        return workspace / exported.path


@pytest.fixture(scope="module")
def played(model: Path, tmp_path_factory: pytest.TempPathFactory) -> AgentScenariosResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_WORKSPACE", str(tmp_path_factory.mktemp("played")))
        return AGENT_SCENARIOS.execute(AgentScenariosRequest(model=str(model)))


@pytest.mark.parametrize("name", [situation.name for situation in SITUATIONS])
def test_the_tuned_agent_keeps_its_head(played: AgentScenariosResult, name: str) -> None:
    verdict = next(verdict for verdict in played.scenarios if verdict.name == name)
    assert verdict.passed, f"{verdict.about}: {verdict.reason}; it said {verdict.reply!r}"


def test_after_kill_9_the_next_answer_comes_within_five_seconds(played: AgentScenariosResult) -> None:
    verdict = next(verdict for verdict in played.scenarios if verdict.name == "server_restart")
    assert verdict.seconds_after_restart is not None
    assert verdict.seconds_after_restart <= 5
