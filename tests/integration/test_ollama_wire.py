"""The Ollama wire against a small HTTP server with Ollama's own rules for blobs and creation (no Ollama runs here)."""

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipeline.core.errors import (
    IntegrityError,
    InvalidInputError,
    MissingDependencyError,
    OperationFailedError,
)
from pipeline.core.files import write_atomic, write_json
from pipeline.core.runs import Run
from pipeline.deploy.serve import DEPLOY_SERVE, DeployServeRequest, DeployServeResult
from pipeline.deploy.watch import DeployListRequest, DeployStopRequest, list_servers, stop_server
from pipeline.inference.endpoints import find_running

CONTENT = b"GGUF" + bytes(range(256)) * 12_000  # three upload pieces
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class OllamaDouble:
    """State and rules: a blob must have the digest in its path; a model needs its blobs; errors come in the stream."""

    def __init__(self) -> None:
        self.version: Any = "0.35.1"
        self.capabilities = ["completion", "tools"]
        self.stream_end: list[dict[str, str]] = [{"status": "success"}]
        self.corrupt_uploads = False
        self.blobs: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.log: list[str] = []

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.log.append(f"{method} {path}")
        if path == "/api/version":
            return 200, json.dumps({"version": self.version}).encode()
        if path.startswith("/api/blobs/"):
            return self._blob(method, path.removeprefix("/api/blobs/"), body)
        request = json.loads(body)
        if path == "/api/create":
            missing = [digest for digest in request["files"].values() if digest not in self.blobs]
            if missing:
                return 400, json.dumps({"error": f"blob {missing[0]} not found"}).encode()
            self.created.append(request)
            events = [{"status": "parsing GGUF"}, {"status": "writing manifest"}, *self.stream_end]
            return 200, b"".join(json.dumps(event).encode() + b"\n" for event in events)
        known = any(made["model"] == request["model"] for made in self.created)
        return (200, json.dumps({"capabilities": self.capabilities}).encode()) if known else (404, b"{}")

    def _blob(self, method: str, digest: str, body: bytes) -> tuple[int, bytes]:
        if method == "HEAD":
            return (200, b"") if digest in self.blobs else (404, b"")
        received = body[:-1] if self.corrupt_uploads else body
        if f"sha256:{hashlib.sha256(received).hexdigest()}" != digest:
            return 400, b'{"error":"digest mismatch"}'
        self.blobs[digest] = received
        return 201, b""


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaDouble]:
    double = OllamaDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = double.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
    yield double
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def model(workspace: Path) -> Path:
    """An exported model that passed its gate."""
    folder = workspace / "models" / "task-agent"
    write_atomic(folder / "model-q8_0.gguf", CONTENT)
    facts = {"bytes": len(CONTENT), "sha256": DIGEST.removeprefix("sha256:")}
    record = {"name": "task-agent", "default_gguf": "model-q8_0.gguf", "files": {"model-q8_0.gguf": facts}}
    write_json(folder / "export.json", record)
    write_json(folder / "gate.json", {"passed": True, "files": {"model-q8_0.gguf": facts["sha256"]}})
    write_atomic(
        folder / "Modelfile", 'FROM ./model-q8_0.gguf\nPARAMETER num_ctx 99\nPARAMETER stop "<|im_end|>"\n'
    )
    return folder


def deploy(**changes: Any) -> DeployServeResult:
    return DEPLOY_SERVE.execute(DeployServeRequest(engine="ollama", **changes))


def test_the_file_is_uploaded_whole_and_a_model_with_tools_is_made_of_it(
    ollama: OllamaDouble, model: Path
) -> None:
    result = deploy(context_length=2048)
    assert ollama.blobs == {DIGEST: CONTENT}
    assert ollama.created == [
        {
            "model": "task-agent",
            "files": {"model.gguf": DIGEST},
            "parameters": {"temperature": 0, "num_ctx": 2048, "stop": ["<|im_end|>"]},
            "stream": True,
        }
    ]
    assert result.models == ["task-agent"]
    assert result.base_url.startswith("http://127.0.0.1:")
    assert result.base_url.endswith("/v1")
    assert result.warnings == []


def test_a_file_that_ollama_has_is_not_sent_again(ollama: OllamaDouble, model: Path) -> None:
    deploy()
    deploy(name="second")
    assert sum(entry.startswith("POST /api/blobs") for entry in ollama.log) == 1
    assert [made["model"] for made in ollama.created] == ["task-agent", "second"]


def test_an_upload_that_arrives_damaged_is_refused(ollama: OllamaDouble, model: Path) -> None:
    ollama.corrupt_uploads = True
    with pytest.raises(IntegrityError, match="digest mismatch"):
        deploy()
    assert ollama.created == []


@pytest.mark.parametrize(
    ("end", "words"),
    [([{"error": "unsupported architecture"}], "unsupported architecture"), ([], "without success")],
)
def test_an_error_inside_the_stream_is_an_error(
    ollama: OllamaDouble, model: Path, end: list[dict[str, str]], words: str
) -> None:
    ollama.stream_end = end
    with pytest.raises(OperationFailedError, match=words):
        deploy()


def test_a_model_in_which_ollama_sees_no_tools_is_refused_unless_forced(
    ollama: OllamaDouble, model: Path
) -> None:
    ollama.capabilities = ["completion"]
    with pytest.raises(OperationFailedError, match="sees no tools"):
        deploy()
    assert "sees no tools" in deploy(force=True).warnings[0]


def test_an_old_ollama_is_warned_about(ollama: OllamaDouble, model: Path) -> None:
    ollama.version = "0.29.3"
    assert "0.30" in deploy().warnings[0]


def test_something_else_on_the_port_is_not_taken_for_ollama(ollama: OllamaDouble, model: Path) -> None:
    ollama.version = None
    deploy()  # a version we cannot read is no reason to refuse
    ollama.answer = lambda method, path, body: (200, b"<html>")
    with pytest.raises(InvalidInputError, match="is not an Ollama"):
        deploy()


def test_no_ollama_is_a_missing_service(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inference.client._BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    with pytest.raises(MissingDependencyError, match=r"no Ollama at http://127\.0\.0\.1:9"):
        deploy()


def test_a_failed_gate_stops_the_upload(ollama: OllamaDouble, model: Path) -> None:
    write_json(model / "gate.json", {"passed": False})
    with pytest.raises(OperationFailedError, match="export gate"):
        deploy()
    assert ollama.log == []


def test_a_model_in_ollama_is_listed_but_not_stopped(ollama: OllamaDouble, model: Path) -> None:
    deploy()
    row = list_servers(DeployListRequest(all=True)).servers[0]
    assert (row.engine, row.models) == ("ollama", ["task-agent"])
    with pytest.raises(InvalidInputError) as refused:
        stop_server(DeployStopRequest(run_id=row.run_id))
    assert refused.value.hint == "Run `ollama rm task-agent`."
    assert find_running() is None
    assert Run.open(row.run_id).state() == "succeeded"
