"""Facts about this machine, from the operating system and small commands; imports no library that it reports on."""

import os
import platform
import shutil
import socket
import subprocess
from pathlib import Path

import psutil

from pipeline.core.operation import Part

_CPU_FEATURES = (
    "avx2",
    "f16c",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
_NO_LIMIT_BYTES = 1 << 60  # cgroup v1 says "no limit" with a number near 2**63
_OLLAMA_PORT = 11434
_COMMAND_SECONDS = 10


class CpuFacts(Part):
    """Processor."""

    model: str
    """Name the processor gives itself."""
    num_cpus: int
    """Logical processors this process may use."""
    features: list[str]
    """Instruction sets that matter for models; empty where the system does not list them."""


class GpuFacts(Part):
    """One NVIDIA GPU."""

    name: str
    """Product name."""
    memory_bytes: int
    """Total memory."""
    compute_capability: str
    """Such as 7.5 for a T4; bfloat16 needs 8.0."""
    driver: str
    """Driver version."""


class ToolFacts(Part):
    """One program or service."""

    name: str
    """What it is."""
    found: bool
    """True when it can be used."""
    detail: str
    """Where it is, or its version."""
    used_for: str
    """What works only with it."""


def read_cpu() -> CpuFacts:
    """Return the processor's name, count and instruction sets."""
    text = _read(Path("/proc/cpuinfo"))
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    # cpu_count() ignores taskset and container limits on processors; the affinity mask does not.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return CpuFacts(
        model=fields.get("model name", platform.processor() or platform.machine()),
        num_cpus=count,
        features=[name for name in _CPU_FEATURES if name in flags],
    )


def memory_bytes() -> int:
    """Return the memory this process may use: the machine's, or its container's limit if that is lower."""
    total = psutil.virtual_memory().total
    for limit_file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(Path(limit_file)).strip()
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            return min(total, int(text))
    return total


def free_disk_bytes(folder: Path) -> int:
    """Return the free space where a folder is."""
    return shutil.disk_usage(folder).free


def read_gpus() -> list[GpuFacts]:
    """Return the NVIDIA GPUs, or nothing when there is no driver."""
    query = "--query-gpu=name,memory.total,compute_cap,driver_version"
    return parse_gpus(_output_of(["nvidia-smi", query, "--format=csv,noheader,nounits"]))


def parse_gpus(csv_text: str) -> list[GpuFacts]:
    """Read what ``nvidia-smi --query-gpu`` prints: name, MiB, compute capability, driver."""
    rows = [
        [cell.strip() for cell in line.split(",")] for line in csv_text.splitlines() if line.count(",") == 3
    ]
    return [
        GpuFacts(name=name, memory_bytes=int(mib) << 20, compute_capability=capability, driver=driver)
        for name, mib, capability, driver in rows
        if mib.isdigit()
    ]


def read_tools() -> list[ToolFacts]:
    """Look for the programs and services that some operations can use."""
    chromium = next(
        (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), ""
    )
    node = shutil.which("node")
    return [
        ToolFacts(
            name="ollama",
            found=_answers("127.0.0.1", _OLLAMA_PORT),
            detail=f"127.0.0.1:{_OLLAMA_PORT}",
            used_for="deploy serve --engine ollama",
        ),
        ToolFacts(
            name="chromium", found=bool(chromium), detail=chromium, used_for="looking at reports in tests"
        ),
        ToolFacts(
            name="node",
            found=node is not None,
            detail=_output_of(["node", "--version"]).strip(),
            used_for="MCP Inspector and other clients",
        ),
    ]


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def _output_of(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
