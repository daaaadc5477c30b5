"""Publishing an export: the real hub client against a local server that speaks the hub's wire format for uploads."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.files import sha256_file, write_json

REPOSITORY = "acme/task-agent"


class UploadHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: dict[str, bytes]
    asked: list[str]
    status: int

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._reply(self.status, {"id": REPOSITORY, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(self.path)
        if self.status != 200:
            self._reply(self.status, {"error": "Invalid username or password."})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            self._reply(200, {"files": files})
        elif self.path.endswith("/commit/main"):
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.received[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            url = f"http://{self.headers['Host']}/{REPOSITORY}/commit/{'1' * 40}"
            self._reply(200, {"success": True, "commitUrl": url, "commitOid": "1" * 40, "hookOutput": ""})
        else:
            self._reply(
                200, {"url": f"http://{self.headers['Host']}/{REPOSITORY}", "errors": [], "warnings": []}
            )

    def _reply(self, status: int, answer: Any) -> None:
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@pytest.fixture
def hub() -> Generator[tuple[str, type[UploadHandler]]]:
    handler = type("Handler", (UploadHandler,), {"received": {}, "asked": [], "status": 200})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def export(workspace: Path) -> Path:
    """A small export as `export run` leaves it."""
    folder = workspace / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "model-f16.gguf").write_bytes(b"GGUF weights")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# mine\n", encoding="utf-8")
    (folder / "notes.txt").write_text("not part of the export", encoding="utf-8")
    files = {p.name: {"bytes": 1, "sha256": sha256_file(p)} for p in folder.iterdir() if p.suffix != ".txt"}
    write_json(folder / "export.json", {"files": files})
    proven = {"model-f16.gguf": sha256_file(folder / "model-f16.gguf")}
    write_json(folder / "gate.json", {"passed": True, "checks": [], "seconds": 1, "files": proven})
    return folder


def _push(workspace: Path, url: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "export", "push", "models/mine", "--repo", REPOSITORY, *more]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(workspace),
            "LLMOPS_WORKSPACE": str(workspace),
            "HF_ENDPOINT": url,
            "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_XET": "1",
        },
    )


def test_a_dry_run_lists_the_files_and_sends_nothing(
    hub: tuple[str, type[UploadHandler]], export: Path, workspace: Path
) -> None:
    outcome = _push(workspace, hub[0], "--json")
    result = json.loads(outcome.stdout)
    assert (outcome.returncode, result["uploaded"], hub[1].asked) == (0, False, [])
    assert set(result["files"]) == {"model-f16.gguf", "README.md", "export.json", "gate.json"}
    assert result["files"]["model-f16.gguf"] == 12


def test_the_files_of_the_export_and_no_others_arrive(
    hub: tuple[str, type[UploadHandler]], export: Path, workspace: Path
) -> None:
    outcome = _push(workspace, hub[0], "--no-dry-run", "--json")
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["url"].endswith("1" * 40)
    sent = {path.name: path.read_bytes() for path in export.iterdir() if path.suffix != ".txt"}
    assert hub[1].received == sent


def test_a_refusal_of_the_hub_is_an_error_with_its_reason(
    hub: tuple[str, type[UploadHandler]], export: Path, workspace: Path
) -> None:
    hub[1].status = 401
    outcome = _push(workspace, hub[0], "--no-dry-run")
    assert outcome.returncode == 1
    assert "hf auth login" in outcome.stderr


@pytest.mark.parametrize("change", ["gate", "other gate", "file"])
def test_what_is_not_proven_is_not_published(
    change: str, hub: tuple[str, type[UploadHandler]], export: Path, workspace: Path
) -> None:
    if change == "gate":
        write_json(export / "gate.json", {"passed": False, "checks": [], "seconds": 1, "files": {}})
    elif change == "other gate":
        write_json(export / "gate.json", {"passed": True, "checks": [], "seconds": 1, "files": {}})
    else:
        (export / "model-f16.gguf").write_bytes(b"other weights")
    outcome = _push(workspace, hub[0], "--no-dry-run")
    assert (outcome.returncode, hub[1].asked) == (1, [])
