"""The real server process: a clean wire, jobs that outlive it, HTTP on this machine only."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest
from mcp import Client, StdioServerParameters

from pipeline.core.jobs import stop_process_tree
from pipeline.core.runs import Run, list_runs

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 120.0
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}


def parameters() -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable, args=["-m", "mcp_server", "--tools", "all"], env=dict(os.environ)
    )


async def tool(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result
    assert result.structured_content is not None
    if token := result.structured_content.get("confirm_token"):
        return await tool(client, name, **arguments, confirm_token=token)
    return result.structured_content


def my_servers() -> list[psutil.Process]:
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "mcp_server" in " ".join(child.cmdline())]


@pytest.fixture
def no_job_left(workspace: Path) -> Generator[None]:
    yield
    for run in list_runs():
        if (worker := run.process()) is not None:
            stop_process_tree(worker)


@pytest.mark.usefixtures("no_job_left")
def test_a_job_outlives_kill_9_of_the_server_and_a_new_server_reports_it() -> None:
    async def start_and_kill() -> str:
        async with Client(parameters()) as client:
            run_id = (await tool(client, "synth_generate", out="data", num_rows=12_000))["run_id"]
            state = "queued"
            while state == "queued":
                state = (await tool(client, "jobs_status", run_id=run_id, wait_seconds=0.2))["state"]
            assert state == "running"
            (server,) = my_servers()
            server.kill()
            return run_id

    async def ask_again(run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        async with Client(parameters()) as client:
            first = last = await tool(client, "jobs_status", run_id=run_id)
            deadline = time.monotonic() + WAIT_SECONDS
            while last["state"] == "running" and time.monotonic() < deadline:
                last = await tool(client, "jobs_status", run_id=run_id, wait_seconds=10)
            return first, last

    run_id = anyio.run(start_and_kill)
    worker = Run.open(run_id).process()
    assert worker is not None
    first, last = anyio.run(ask_again, run_id)
    assert first["state"] == "running"
    assert first["next_step"].startswith("Still running")
    assert last["state"] == "succeeded"
    assert last["result"]["num_rows"] == 12_000
    assert last["progress"]["done"] == last["progress"]["total"]


@pytest.mark.usefixtures("no_job_left")
def test_a_job_can_be_watched_cancelled_and_resumed_over_mcp() -> None:
    async def session() -> None:
        async with Client(parameters()) as client:
            run_id = (await tool(client, "synth_generate", out="data", num_rows=1_000_000))["run_id"]
            cancelled = await tool(client, "jobs_cancel", run_id=run_id)
            assert (cancelled["stopped"], cancelled["state"]) == (True, "cancelled")
            assert (await tool(client, "jobs_resume", run_id=run_id))["previous_state"] == "cancelled"
            deadline = time.monotonic() + WAIT_SECONDS
            while (await tool(client, "jobs_status", run_id=run_id))["state"] == "queued":
                assert time.monotonic() < deadline
                await anyio.sleep(0.1)
            assert (await tool(client, "jobs_list"))["jobs"][0]["state"] == "running"
            assert (await tool(client, "jobs_cancel", run_id=run_id))["state"] == "cancelled"

    anyio.run(session)


def test_every_byte_on_stdout_is_protocol_from_the_first_to_the_last(workspace: Path) -> None:
    """A print by Python, by a C library or a child is on stderr, also when it is flushed at exit."""
    code = """
import os, subprocess, sys
import pipeline.core.machine as machine
read_tools = machine.read_tools
def noisy():
    print("stray print")
    os.write(1, b"stray bytes\\n")
    subprocess.run(["echo", "stray child"], check=True)
    return read_tools()
import pipeline.doctor.run as run
run.read_tools = noisy
import runpy
sys.argv = ["mcp_server", "--tools", "all"]
runpy.run_module("mcp_server", run_name="__main__")
"""
    requests: list[dict[str, Any]] = [
        INITIALIZE,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "doctor_run", "arguments": {}},
        },
    ]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=buffered,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        server.stdin.write("".join(json.dumps(request) + "\n" for request in requests).encode())
        server.stdin.flush()
        lines = [server.stdout.readline(), server.stdout.readline()]
        server.stdin.close()
        rest, errors = server.stdout.read(), server.stderr.read()
    assert rest == b""
    assert [json.loads(line)["id"] for line in lines] == [1, 2]
    assert json.loads(lines[1])["result"]["structuredContent"]["llmops"]
    for stray in (b"stray print", b"stray bytes", b"stray child"):
        assert stray in errors


def test_the_server_ends_at_once_when_its_client_goes_away_during_a_wait(workspace: Path) -> None:
    run = Run.create("demo.wait", {})  # this process is alive, so the run counts as running
    arguments = {"run_id": run.id, "wait_seconds": 50}
    requests: list[dict[str, Any]] = [
        INITIALIZE,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "jobs_status", "arguments": arguments},
        },
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "mcp_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write("".join(json.dumps(request) + "\n" for request in requests).encode())
        server.stdin.flush()
        assert b"protocolVersion" in server.stdout.readline()
        time.sleep(1)
        server.stdin.close()
        assert server.wait(15) == 0


def test_version_and_unknown_options() -> None:
    version = subprocess.run(
        [sys.executable, "-m", "mcp_server", "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("llmops ")
    wrong = subprocess.run([sys.executable, "-m", "mcp_server", "--nope"], capture_output=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stdout == b""


@contextmanager
def http_server() -> Generator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mcp_server", "--tools", "all", "--http", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.terminate()


def test_http_serves_the_same_tools_to_this_machine_and_refuses_other_origins(workspace: Path) -> None:
    async def list_jobs(url: str) -> dict[str, Any]:
        async with Client(url) as client:
            return await tool(client, "jobs_list")

    with http_server() as url:
        assert anyio.run(list_jobs, url)["total"] == 0
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        for wrong in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
            assert httpx.post(url, json=INITIALIZE, headers={**headers, **wrong}).status_code in {403, 421}


def test_a_client_that_starts_the_server_before_the_set_up_is_told_what_to_run(tmp_path: Path) -> None:
    entry = json.loads((ROOT / ".mcp.json").read_text(encoding="utf-8"))["mcpServers"]["llmops"]
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "mcp_launch.py").write_bytes((ROOT / "tools" / "mcp_launch.py").read_bytes())
    done = subprocess.run(
        [entry["command"], *entry["args"]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"make -C {tmp_path} setup" in done.stderr
