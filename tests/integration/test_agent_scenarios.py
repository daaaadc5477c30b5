"""The situations of lesson 66.7 with a tuned model on the real server, kill -9 included.

The adapter was trained by this pipeline (``scenario_adapter/make.py``); merging, conversion and serving happen here.
"""

import shutil
from pathlib import Path

import pytest

from pipeline.agent.scenarios import AGENT_SCENARIOS, AgentScenariosRequest, AgentScenariosResult
from pipeline.agent.situations import SITUATIONS
from pipeline.export.backends.merge import merge_adapter
from pipeline.export.checkpoint import read_checkpoint
from pipeline.export.gguf import write_gguf_file

pytestmark = pytest.mark.slow

ADAPTER = Path(__file__).parent / "scenario_adapter"
RECOVERY_SECONDS = 5


def play(model: Path, workspace: Path, names: tuple[str, ...] = ()) -> AgentScenariosResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_WORKSPACE", str(workspace))
        return AGENT_SCENARIOS.execute(AgentScenariosRequest(model=str(model), names=names))


@pytest.fixture(scope="module")
def tuned_gguf(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with the adapter in it, q8_0."""
    folder = tmp_path_factory.mktemp("tuned") / "merged"
    folder.mkdir()
    base = read_checkpoint(starter_model)
    for companion in base.companions:
        shutil.copy(companion, folder)
    merge_adapter(base, ADAPTER, folder)
    path = folder.parent / "tuned-q8_0.gguf"
    write_gguf_file(folder, path, "q8_0", name="tuned")
    return path


@pytest.fixture(scope="module")
def played(tuned_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> AgentScenariosResult:
    return play(tuned_gguf, tmp_path_factory.mktemp("played"))


@pytest.mark.parametrize("name", [situation.name for situation in SITUATIONS])
def test_the_tuned_agent_keeps_its_head(played: AgentScenariosResult, name: str) -> None:
    verdict = next(verdict for verdict in played.scenarios if verdict.name == name)
    assert verdict.passed, f"{verdict.about}: {verdict.reason}; it said {verdict.reply!r}"


def test_after_kill_9_of_the_server_the_next_answer_comes_soon(played: AgentScenariosResult) -> None:
    verdict = next(verdict for verdict in played.scenarios if verdict.name == "server_restart")
    assert verdict.seconds_after_restart is not None
    assert verdict.seconds_after_restart <= RECOVERY_SECONDS


def test_an_untuned_model_does_not_keep_its_head(starter_gguf: Path, tmp_path: Path) -> None:
    result = play(starter_gguf, tmp_path, ("unknown_id", "two_tools"))
    assert [verdict.passed for verdict in result.scenarios] == [False, False]
    assert result.is_negative()
