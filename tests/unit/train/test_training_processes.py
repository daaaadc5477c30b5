# pyright: basic
"""Training processes end with our launcher, live without one, and `train cluster` says what its command gives."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import write_json
from pipeline.core.runs import Run
from pipeline.train import launch
from pipeline.train.cluster import TRAIN_CLUSTER


@pytest.mark.parametrize("asked", [True, False])
def test_a_worker_watches_stdin_only_when_its_launcher_asks_for_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    from pipeline.train.backends import worker

    watched: list[bool] = []
    monkeypatch.setenv("LLMOPS_STOP_ON_STDIN_CLOSE", "1" if asked else "")
    monkeypatch.setattr(worker, "end_with_parent", lambda: watched.append(True))
    monkeypatch.setattr(worker.dist, "init_process_group", lambda _backend: None)
    with pytest.raises(InvalidInputError, match="no run matches"):
        worker.main("no-such-run", "trl")
    assert watched == [True] * asked


def test_our_launcher_asks_its_workers_to_end_with_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, Any]] = []

    class Ended:
        stdin = None
        returncode = 1

        def __init__(self, _command: list[str], **options: Any) -> None:
            started.append(options)

        def wait(self) -> None:
            """Ended already."""

    monkeypatch.setattr(launch.subprocess, "Popen", Ended)
    with pytest.raises(OperationFailedError, match="without a result"):
        launch.launch(Run.create("train.run", {}), "trl", 2)
    assert started[0]["env"]["LLMOPS_STOP_ON_STDIN_CLOSE"] == "1"
    assert started[0]["stdin"] == subprocess.PIPE


def test_the_cluster_configuration_says_that_its_run_cannot_be_exported_and_what_can(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.train.backends import sharding

    counted = sharding.ShardedModel(
        wrapped_classes=("Layer",),
        num_wrapped=2,
        num_parameters=100,
        num_local=50,
        num_local_trainable=50,
        largest_unit=20,
    )
    monkeypatch.setattr(sharding, "dry_run", lambda *_: counted)
    monkeypatch.setattr(sharding, "check_configuration", lambda _path: {})
    write_json(workspace / "models" / "tiny" / "config.json", {})
    result = TRAIN_CLUSTER.call({"model": "tiny"})
    assert any("`export` refuses RUN" in warning for warning in result.warnings)
    assert "train submit" in result.next_step
