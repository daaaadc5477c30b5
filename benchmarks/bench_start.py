"""Start-up cost: the MCP server against a minimal server of the same SDK, ``llmops --help`` against bare Python.

Run ``python benchmarks/bench_start.py [--runs N]``. Measures user + system CPU seconds of child processes, variants
in turn so that a busy machine troubles all alike, and prints medians. Exits 1 when a target is missed: at most
0.3 s CPU above the minimal server, at most 4 times bare Python.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MCP_OVERHEAD_SECONDS = 0.3
HELP_RATIO = 4.0
_MINIMAL_SERVER = """
import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp_types import ListToolsResult, Tool

async def list_tools(context, params):
    return ListToolsResult(tools=[Tool(name="add", input_schema={"type": "object"})])

async def main():
    server = Server("minimal", on_list_tools=list_tools)
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())

anyio.run(main)
"""
_CLIENT = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}


class Cost(NamedTuple):
    """What one child process took."""

    cpu_seconds: float
    wall_seconds: float


def main() -> int:
    """Measure, print the tables and return 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    runs: int = parser.parse_args().runs
    # Compiled modules are kept, as make setup leaves them: the SDK's are compiled at its installation too.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        minimal = Path(folder) / "minimal_server.py"
        minimal.write_text(_MINIMAL_SERVER, encoding="utf-8")
        servers = _alternate(
            {"minimal server": [str(minimal)], "llmops server": ["-m", "mcp_server"]}, runs, list_tools_once
        )
    commands = _alternate(
        {"python -c pass": ["-c", "pass"], "llmops --help": ["-m", "pipeline", "--help"]}, runs, run_once
    )
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, median of {runs} runs"
    )
    print(f"{'':<18}{'CPU s':>8}{'wall s':>8}")
    for name, cost in {**servers, **commands}.items():
        print(f"{name:<18}{cost.cpu_seconds:>8.3f}{cost.wall_seconds:>8.3f}")
    overhead = servers["llmops server"].cpu_seconds - servers["minimal server"].cpu_seconds
    ratio = commands["llmops --help"].cpu_seconds / commands["python -c pass"].cpu_seconds
    print(
        f"server overhead   {overhead:.3f} s CPU (target <= {MCP_OVERHEAD_SECONDS}), up to the answer of tools/list"
    )
    print(f"--help            {ratio:.2f} times bare Python (target <= {HELP_RATIO:g})")
    return 0 if overhead <= MCP_OVERHEAD_SECONDS and ratio <= HELP_RATIO else 1


def _alternate(
    variants: dict[str, list[str]], runs: int, measure: Callable[[list[str]], Cost]
) -> dict[str, Cost]:
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    for turn in range(runs + 1):
        for name, arguments in variants.items():
            cost = measure([sys.executable, *arguments])
            if turn:  # the first one warms the file cache
                costs[name].append(cost)
    return {
        name: Cost(*(statistics.median(column) for column in zip(*found, strict=True)))
        for name, found in costs.items()
    }


def run_once(command: list[str]) -> Cost:
    """Run a command to its end."""
    started, before = time.perf_counter(), _children_cpu_seconds()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Cost(_children_cpu_seconds() - before, time.perf_counter() - started)


def list_tools_once(command: list[str]) -> Cost:
    """Start a stdio server, shake hands, list its tools, close; wall time is up to the list."""
    before, started = _children_cpu_seconds(), time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        requests: tuple[dict[str, object], ...] = (
            {"id": 1, "method": "initialize", "params": _CLIENT},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/list", "params": {}},
        )
        for request in requests:
            server.stdin.write((json.dumps({"jsonrpc": "2.0", **request}) + "\n").encode())
            server.stdin.flush()
            if "id" in request:
                assert "result" in json.loads(server.stdout.readline())
        wall = time.perf_counter() - started
        server.stdin.close()
        server.wait(30)
    return Cost(_children_cpu_seconds() - before, wall)


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # microseconds; os.times() counts in 10 ms
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
