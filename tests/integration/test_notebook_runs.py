# pyright: basic
"""The written notebook, executed cell by cell on this processor with the smoke recipe on a few rows, twice."""

import json
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from pipeline.core.files import read_json
from pipeline.core.jobs import cancel
from pipeline.core.runs import Run, list_runs
from pipeline.synth.generate import SYNTH_GENERATE
from pipeline.train.notebook import TRAIN_NOTEBOOK
from pipeline.train.recipe import cpu_smoke

pytestmark = pytest.mark.slow


def execute(path: Path) -> Any:
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(path, as_version=4)
    client: Any = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    return notebook


def printed(notebook: Any) -> str:
    return "".join(
        str(output.get("text", "")) for cell in notebook["cells"] for output in cell.get("outputs", [])
    )


@pytest.fixture
def no_job_left(workspace: Path) -> Generator[None]:
    """A test that fails half-way leaves no training behind."""
    yield
    for run in list_runs():
        cancel(run)


# The kernel's own libraries warn about their event loop and sockets.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("no_job_left")
def test_the_notebook_trains_here_and_goes_on_when_it_is_run_again(
    workspace: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    SYNTH_GENERATE.call({"out": "rows", "num_rows": 24, "validation_rows": 4, "test_rows": 4})
    recipe: dict[str, Any] = {
        **cpu_smoke().model_dump(mode="json"),
        "max_steps": 5,
        "micro_batch_size": 2,
        "report_to": [],
    }
    written = TRAIN_NOTEBOOK.call(
        {"data": "rows", "model": tiny_model.name, "recipe": recipe, "out": "drive", "check_every_seconds": 2}
    )
    home = workspace / "drive"
    first = printed(execute(workspace / written.notebook))
    [marker] = home.glob("run-*.txt")
    run_id = marker.read_text(encoding="utf-8")
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(home))
    run = Run.open(run_id)
    assert run.state() == "succeeded"
    assert "succeeded" in first
    with zipfile.ZipFile(home / "artifacts" / f"{run_id}.zip") as archive:
        names = archive.namelist()
        facts = json.loads(archive.read(f"{run_id}/artifacts/training.json"))
    assert f"{run_id}/artifacts/adapter/adapter_model.safetensors" in names
    assert not any("checkpoint" in name for name in names)
    assert facts["outcome"]["num_steps"] == 5
    # The machine is taken away: to the next session the run looks like one of a host that is gone.
    ended = read_json(run.path / "manifest.json")["ended_at"]
    run.write_manifest(status="running", host="a-machine-that-was-taken-away")
    (run.path / "result.json").unlink()
    second = printed(execute(workspace / written.notebook))
    assert "resuming" in second or run.manifest()["ended_at"] != ended
    assert run.state() == "succeeded"
    assert run.manifest()["host"] != "a-machine-that-was-taken-away"
    assert [path.read_text(encoding="utf-8") for path in home.glob("run-*.txt")] == [run_id]
