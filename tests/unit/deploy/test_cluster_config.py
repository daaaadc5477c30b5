import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import sha256_file, write_json
from pipeline.deploy.cluster import DEPLOY_CLUSTER_CONFIG


@pytest.fixture
def export(workspace: Path) -> Path:
    """A folder that looks like an export whose gate passed."""
    folder = workspace / "models" / "mine"
    (folder / "merged").mkdir(parents=True)
    (folder / "merged" / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model-q8_0.gguf").write_bytes(b"GGUF")
    write_json(folder / "export.json", {"name": "mine", "default_gguf": "model-q8_0.gguf", "files": {}})
    files = {"model-q8_0.gguf": sha256_file(folder / "model-q8_0.gguf")}
    write_json(folder / "gate.json", {"passed": True, "files": files})
    return folder


def test_each_engine_gets_the_files_it_can_serve(export: Path, workspace: Path) -> None:
    for engine, served in (("vllm", str(export / "merged")), ("llama-cpp", str(export))):
        DEPLOY_CLUSTER_CONFIG.call({"model": "models/mine", "out": "c", "engine": engine, "replicas": 3})
        services = json.loads((workspace / "c" / "compose.json").read_text(encoding="utf-8"))["services"]
        assert set(services) == {"backend1", "backend2", "backend3", "balancer"}
        assert services["backend1"]["volumes"][0].split(":")[0] == served
        assert services["balancer"]["depends_on"] == ["backend1", "backend2", "backend3"]


def test_the_key_is_a_variable_and_never_a_value(
    export: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_API_KEY", "s3cret")
    DEPLOY_CLUSTER_CONFIG.call({"model": "models/mine", "out": "c"})
    text = (workspace / "c" / "compose.json").read_text(encoding="utf-8")
    assert "s3cret" not in text
    assert "${LLMOPS_API_KEY:?" in text


def test_what_is_not_proven_or_not_there_is_not_served(export: Path) -> None:
    shutil.rmtree(export / "merged")
    with pytest.raises(InvalidInputError, match="no merged"):
        DEPLOY_CLUSTER_CONFIG.call({"model": "models/mine", "out": "c", "engine": "vllm"})
    write_json(export / "gate.json", {"passed": False})
    with pytest.raises(OperationFailedError, match="failed its export gate"):
        DEPLOY_CLUSTER_CONFIG.call({"model": "models/mine", "out": "c"})


@pytest.mark.skipif(
    shutil.which("nginx") is None, reason="nginx, which checks its own file, is not installed"
)
def test_nginx_accepts_the_configuration(export: Path, workspace: Path) -> None:
    DEPLOY_CLUSTER_CONFIG.call({"model": "models/mine", "out": "c", "replicas": 2})
    path = workspace / "c" / "nginx.conf"
    # nginx looks the names up, which only the compose network knows.
    path.write_text(path.read_text(encoding="utf-8").replace("server backend", "server 127.0.0."), "utf-8")
    outcome = subprocess.run(["nginx", "-t", "-c", str(path)], capture_output=True, text=True, check=False)
    assert "syntax is ok" in outcome.stderr, outcome.stderr
