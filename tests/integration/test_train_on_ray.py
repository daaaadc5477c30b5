"""The same recipe on a real Ray cluster of this machine: it trains there, and the run comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.core.errors import MissingDependencyError
from pipeline.core.extras import installed_version
from pipeline.core.runs import Run
from pipeline.synth.generate import SYNTH_GENERATE
from pipeline.train.diagnose import TRAIN_DIAGNOSE
from pipeline.train.submit import TRAIN_SUBMIT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        installed_version("ray") is None, reason="the extra `cluster` is not part of make setup"
    ),
    pytest.mark.filterwarnings("ignore"),  # Ray's own libraries leave sockets to the garbage collector
]
START_SECONDS = 300.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Address of a cluster with one processor, stopped by its own process group."""
    # Unix sockets below it have at most 107 bytes, so it cannot lie deep in pytest's folders.
    folder = Path("/tmp") / f"ray-{os.getpid()}"
    port, dashboard = _free_port(), _free_port()
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        "--num-cpus=1",
        "--object-store-memory=100000000",
        "--disable-usage-stats",
        f"--temp-dir={folder}",
    ]
    # Jobs run `python`: on this cluster it has to be ours.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = tmp_path_factory.mktemp("ray") / "ray.log"
    with log.open("wb") as output:
        head = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(address, head, log)
        yield address
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def test_training_on_a_cluster_ends_as_a_run_of_this_workspace(
    workspace: Path, tiny_model: Path, cluster: str
) -> None:
    SYNTH_GENERATE.call({"out": "rows", "num_rows": 24, "validation_rows": 4, "test_rows": 4})
    recipe: dict[str, Any] = {"rank": 4, "max_steps": 4, "micro_batch_size": 2, "report_to": []}
    values: dict[str, Any] = {
        "data": "rows",
        "model": tiny_model.name,
        "recipe": recipe,
        "backend": "trl",
        "address": cluster,
        "storage": f"file://{workspace}/store",
        "num_gpus": 0,
        "install_libraries": False,
    }
    result = TRAIN_SUBMIT.call(values)
    training = Run.open(result.train_run_id)
    assert (training.state(), training.manifest()["operation"]) == ("succeeded", "train.run")
    assert (training.artifacts / "adapter" / "adapter_model.safetensors").exists()
    assert [line["step"] for line in training.metrics() if "loss" in line] == [1, 2, 3, 4]
    assert result.num_steps == 4
    assert "train: done" in (training.path / "log.txt").read_text(encoding="utf-8")
    assert TRAIN_DIAGNOSE.call({"run_id": training.id}).last_step == 4
    # Asking again for the same run attaches to the job, which has ended, instead of training once more.
    again = Run.open(result.run_id)
    again.write_manifest(status="failed")
    assert TRAIN_SUBMIT.execute(TRAIN_SUBMIT.parse(values), again).job_id == result.job_id


def test_without_a_cluster_the_error_says_how_to_get_one(workspace: Path, tiny_model: Path) -> None:
    SYNTH_GENERATE.call({"out": "rows", "num_rows": 24, "validation_rows": 4, "test_rows": 4})
    values = {"data": "rows", "model": tiny_model.name, "address": f"http://127.0.0.1:{_free_port()}"}
    with pytest.raises(MissingDependencyError, match="no Ray cluster answers"):
        TRAIN_SUBMIT.call({**values, "storage": f"file://{workspace}/store"})


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_for(address: str, head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text(encoding="utf-8")
        try:
            if httpx.get(f"{address}/api/version", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
    raise AssertionError(log.read_text(encoding="utf-8"))
