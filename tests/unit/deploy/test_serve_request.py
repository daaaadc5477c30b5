import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import sha256_file, write_atomic, write_json
from pipeline.core.paths import confined_to
from pipeline.core.runs import Run
from pipeline.deploy.serve import DEPLOY_SERVE, DeployServeRequest, build_spec
from pipeline.deploy.watch import (
    DeployListRequest,
    DeployStatusRequest,
    DeployStopRequest,
    check_server,
    list_servers,
    stop_server,
)
from pipeline.inference.endpoints import Endpoint, publish_endpoint
from pipeline.inference.model_folder import find_servable
from pipeline.inference.scripted_server import ScriptedServer
from pipeline.task_api.tools import load_tools


@pytest.fixture
def gguf(workspace: Path) -> Path:
    """A bare file that begins like a GGUF."""
    path = workspace / "bare.gguf"
    path.write_bytes(b"GGUF....")
    return path


@pytest.mark.parametrize("adapter", ["polite", "=x.gguf", "polite="])
def test_an_adapter_is_a_name_and_a_path(adapter: str) -> None:
    with pytest.raises(InvalidInputError, match="NAME=PATH"):
        DEPLOY_SERVE.parse({"adapter": [adapter]})


def test_an_adapter_path_cannot_leave_the_workspace_over_mcp(workspace: Path) -> None:
    with confined_to(workspace):
        DEPLOY_SERVE.parse({"adapter": ["polite=runs/a.gguf"]})
        with pytest.raises(InvalidInputError, match="outside the workspace"):
            DEPLOY_SERVE.parse({"adapter": ["polite=/etc/passwd"]})


@pytest.mark.parametrize(
    "field", [{"port": 70_000}, {"num_slots": 0}, {"quantization": "../x"}, {"engine": "vllm"}, {"model": ""}]
)
def test_a_value_out_of_range_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        DEPLOY_SERVE.parse(field)


def test_a_request_becomes_a_server(gguf: Path) -> None:
    request = DeployServeRequest(
        model="./bare.gguf", port=0, adapter=("polite=a=b.gguf",), context_length=512
    )
    spec = build_spec(request, find_servable(request.model))
    assert (spec.model_path, spec.context_length, spec.num_slots) == (str(gguf), 512, 2)
    assert spec.model_names == ["bare", "polite"]
    assert spec.adapters[0].path == "a=b.gguf"
    assert spec.warm_up is not None
    assert list(spec.warm_up.tools) == load_tools()
    assert str(spec.warm_up.messages[0]["content"]).startswith("You are a task assistant. Today is ")


def test_an_exported_model_without_tools_is_not_warmed_with_ours(workspace: Path) -> None:
    folder = workspace / "models" / "persona"
    write_atomic(folder / "model-q8_0.gguf", b"GGUF....")
    write_json(folder / "export.json", {"name": "persona", "default_gguf": "model-q8_0.gguf", "files": {}})
    files = {"model-q8_0.gguf": sha256_file(folder / "model-q8_0.gguf")}
    write_json(folder / "gate.json", {"passed": True, "files": files})
    request = DeployServeRequest(model="persona")
    assert build_spec(request, find_servable("persona")).warm_up is None


def test_a_model_that_failed_its_gate_is_a_failed_run(workspace: Path) -> None:
    folder = workspace / "models" / "task-agent"
    write_atomic(folder / "model-q8_0.gguf", b"GGUF....")
    write_json(folder / "export.json", {"name": "task-agent", "default_gguf": "model-q8_0.gguf", "files": {}})
    with pytest.raises(OperationFailedError, match="has not been through the export gate"):
        DEPLOY_SERVE.execute(DeployServeRequest())


def test_ollama_gets_no_adapters(gguf: Path) -> None:
    with pytest.raises(InvalidInputError, match="one model"):
        DEPLOY_SERVE.execute(DeployServeRequest(model="./bare.gguf", engine="ollama", adapter=("a=b.gguf",)))


def publish(base_url: str) -> Run:
    run = Run.create("deploy.serve", {})
    publish_endpoint(run, Endpoint(base_url=base_url, models=["a"], engine="embedded", model_path="x"))
    return run


def test_status_asks_the_server_itself(workspace: Path) -> None:
    with ScriptedServer((200, {"status": "ok"})) as server:
        run = publish(server.base_url)
        status = check_server(DeployStatusRequest())
        assert (status.run_id, status.healthy, status.is_negative()) == (run.id, True, False)
        assert server.requests[0].path == "/health"
    assert check_server(DeployStatusRequest(run_id=run.id)).is_negative()


def test_without_a_server_status_and_stop_say_how_to_start_one(workspace: Path) -> None:
    Run.create("train.run", {})
    assert list_servers(DeployListRequest()).servers == []
    with pytest.raises(InvalidInputError, match="no server is running"):
        check_server(DeployStatusRequest())
    with pytest.raises(InvalidInputError, match="no server is running"):
        stop_server(DeployStopRequest())


def test_a_run_that_never_became_a_server_is_refused(workspace: Path) -> None:
    run = Run.create("train.run", {})
    with pytest.raises(InvalidInputError, match="not a server"):
        stop_server(DeployStopRequest(run_id=run.id))


def test_stopping_an_ended_server_changes_nothing(workspace: Path) -> None:
    run = publish("http://127.0.0.1:9/v1")
    run.write_manifest(status="succeeded")
    result = stop_server(DeployStopRequest(run_id=run.id))
    assert (result.was_running, result.state) == (False, "succeeded")
    assert [row.run_id for row in list_servers(DeployListRequest(all=True)).servers] == [run.id]
    assert list_servers(DeployListRequest()).servers == []


def test_a_server_cannot_stop_its_own_process(workspace: Path) -> None:
    run = publish("http://127.0.0.1:9/v1")
    with pytest.raises(InvalidInputError, match="cannot stop itself"):
        stop_server(DeployStopRequest(run_id=run.id))
    assert run.manifest()["pid"] == os.getpid()
