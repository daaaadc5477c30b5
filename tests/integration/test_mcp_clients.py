"""Inspector, the conformance suites, Claude Code, Codex and Gemini CLI against the real server process."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Client = Callable[..., "subprocess.CompletedProcess[str]"]
SERVER = (sys.executable, "-m", "mcp_server")
MAX_TOOL_LIST_CHARACTERS = 16_000
SCENARIOS_2025 = (
    "server-initialize",
    "ping",
    "tools-list",
    "resources-list",
    "prompts-list",
    "completion-complete",
    "dns-rebinding-protection",
    "server-sse-multiple-streams",
)
SCENARIOS_2026 = (
    "completion-complete",
    "tools-list",
    "tools-call-error",
    "resources-list",
    "sep-2164-resource-not-found",
    "prompts-list",
    "dns-rebinding-protection",
    "caching",
    "http-header-validation",
    "server-sse-multiple-streams",
    "input-required-result-unsupported-methods",
    "input-required-result-validate-input",
    "input-required-result-ignore-extra-params",
)


def test_inspector_finds_every_tool_portable_and_the_list_short(run_client: Client, workspace: Path) -> None:
    done = run_client("mcp-inspector", "--cli", *SERVER, "--method", "tools/list", "--strict")
    assert done.returncode == 0, done.stderr
    tools = json.loads(done.stdout)["tools"]
    assert len(json.dumps(tools)) <= MAX_TOOL_LIST_CHARACTERS
    for tool in tools:
        assert {"title", "description", "annotations", "outputSchema"} <= tool.keys(), tool["name"]


def test_inspector_shows_an_error_with_what_to_do_next(run_client: Client, workspace: Path) -> None:
    done = run_client(
        "mcp-inspector", "--cli", *SERVER, "--method", "tools/call", "--tool-name", "data_validate",
        "--tool-arg", "file=nothing.jsonl",
    )  # fmt: skip
    assert done.returncode == 5
    assert "hint" in done.stdout


def test_inspector_verifies_the_four_skills(run_client: Client, workspace: Path, tmp_path: Path) -> None:
    entry: dict[str, Any] = {
        "command": sys.executable,
        "args": ["-m", "mcp_server"],
        "env": {"LLMOPS_WORKSPACE": str(workspace)},
        "protocolEra": "modern",
    }
    config = tmp_path / "inspector.json"
    config.write_text(json.dumps({"mcpServers": {"llmops": entry}}), encoding="utf-8")
    done = run_client(
        "mcp-inspector",
        "--cli",
        "--config",
        config,
        "--server",
        "llmops",
        "--method",
        "skills/list",
        "--verify",
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Verified 4 skills and \d+ files: no conformance errors", done.stdout + done.stderr)


def test_inspector_sees_the_loss_curve_as_an_app(run_client: Client, workspace: Path) -> None:
    done = run_client(
        "mcp-inspector", "--cli", *SERVER, "--method", "tools/call", "--tool-name", "train_curve", "--app-info",
        "--tool-arg", "run_id=nothing",
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1])["hasApp"] is True


def test_two_hundred_calls_ten_at_a_time_lose_nothing(run_client: Client, workspace: Path) -> None:
    done = run_client(
        "mcp-inspector", "--cli", *SERVER, "--method", "tools/call", "--tool-name", "jobs_list",
        "--load", "--load-requests", "200", "--load-concurrency", "10",
    )  # fmt: skip
    measured = json.loads(done.stdout)
    assert (measured["requests"], measured["ok"], measured["errorRate"]) == (200, 200, 0)


@pytest.fixture
def http_url(workspace: Path) -> Generator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([*SERVER, "--http", "--port", str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.terminate()


def test_conformance_of_2025_in_every_scenario_that_needs_no_fixture(
    run_client: Client, http_url: str
) -> None:
    for scenario in SCENARIOS_2025:
        done = run_client("conformance", "server", "--url", http_url, "--scenario", scenario)
        assert done.returncode == 0, (scenario, done.stdout[-2000:])


def test_conformance_of_2026_in_every_scenario_that_needs_no_fixture(
    run_client: Client, http_url: str
) -> None:
    done = run_client(
        "conformance-2026/dist/index.js", "server", "--url", http_url, "--requirements", "2026-07-28"
    )
    failed = dict(re.findall(r"^[✓✗] ([\w-]+): \d+ passed, (\d+) failed", done.stdout, re.MULTILINE))
    assert {name: failed.get(name) for name in SCENARIOS_2026} == dict.fromkeys(SCENARIOS_2026, "0")


def test_claude_code_connects(run_client: Client, workspace: Path) -> None:
    added = run_client("claude", "mcp", "add", "llmops", "-s", "user", "--", *SERVER)
    assert added.returncode == 0, added.stderr
    listed = run_client("claude", "mcp", "list")
    assert re.search(r"llmops: .*Connected", listed.stdout), listed.stdout


def test_gemini_cli_connects(run_client: Client, workspace: Path) -> None:
    # Without a time of its own the list gives a server 5 s to start, too little on a machine that trains beside it.
    run_client("gemini", "mcp", "add", "--timeout", "60000", "llmops", SERVER[0], "--", *SERVER[1:])
    listed = run_client("gemini", "mcp", "list")
    assert re.search(r"llmops: .*Connected", listed.stdout + listed.stderr), listed


def test_codex_takes_the_server_into_its_configuration(run_client: Client, workspace: Path) -> None:
    run_client("codex", "mcp", "add", "llmops", "--", *SERVER)
    shown = run_client("codex", "mcp", "get", "llmops")
    assert "mcp_server" in shown.stdout, shown
