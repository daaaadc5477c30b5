import socket
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError, InvalidInputError
from pipeline.core.runs import Run
from pipeline.inference.endpoints import Endpoint, find_running, publish_endpoint
from pipeline.inference.server import start_server
from pipeline.inference.server_spec import AdapterSpec, ServerSpec, is_loopback


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    """A file that begins like a GGUF; none of these tests comes so far as to load it."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF....")
    return str(path)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.5", False), ("example.org", False)],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_network_gets_nothing_without_a_key(gguf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMOPS_API_KEY", raising=False)
    with pytest.raises(InvalidInputError, match="anyone on the network") as failed:
        start_server(ServerSpec(model_path=gguf, host="0.0.0.0"))
    assert "LLMOPS_API_KEY" in failed.value.hint


def test_a_taken_port_is_refused_before_anything_is_started(gguf: str, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInputError, match=f"cannot listen on 127.0.0.1:{port}"):
            start_server(ServerSpec(model_path=gguf, port=port), folder=folder)
    assert not folder.exists()


def test_a_missing_model_a_wrong_file_and_a_missing_template_are_told_apart(
    gguf: str, tmp_path: Path
) -> None:
    text = tmp_path / "page.gguf"
    text.write_text("<html>", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="no model file"):
        start_server(ServerSpec(model_path=str(tmp_path / "no.gguf")))
    with pytest.raises(IntegrityError, match="not a GGUF"):
        start_server(ServerSpec(model_path=str(text)))
    with pytest.raises(InvalidInputError, match="no chat template"):
        start_server(ServerSpec(model_path=gguf, chat_template=str(tmp_path / "no.jinja")))
    with pytest.raises(IntegrityError, match=r"page\.gguf is not a GGUF"):
        start_server(ServerSpec(model_path=gguf, adapters=(AdapterSpec(name="a", path=str(text)),)))


def test_two_models_cannot_share_a_name(gguf: str) -> None:
    with pytest.raises(InvalidInputError, match="same name"):
        start_server(
            ServerSpec(
                model_path=gguf, name="task-agent", adapters=(AdapterSpec(name="task-agent", path=gguf),)
            )
        )


def test_only_a_live_run_counts_as_a_running_server(workspace: Path) -> None:
    live, ended, silent = (Run.create("deploy.serve", {}) for _ in range(3))
    endpoint = Endpoint(base_url="http://127.0.0.1:1/v1", models=["a"], engine="embedded", model_path="x")
    assert find_running() is None
    publish_endpoint(live, endpoint)
    publish_endpoint(ended, endpoint)
    ended.write_manifest(status="succeeded")
    assert silent.state() == "running"
    assert find_running() == (live, endpoint)
    assert find_running("a") == (live, endpoint)
    assert find_running("b") is None
