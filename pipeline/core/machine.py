"""Facts about this machine, from the operating system and small commands; imports no library that it reports on.

Shared by ``doctor.run`` (is it ready?) and ``vram.probe`` (what can it hold?). Judges nothing.
"""

import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from pipeline.core.operation import Part
from pipeline.core.settings import Settings

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
    "bf16",  # ARM
)
_NO_LIMIT_BYTES = 1 << 60  # cgroup v1 says "no limit" with a number near 2**63
_CGROUP = Path("/sys/fs/cgroup")
_COMMAND_SECONDS = 10
_BFLOAT16_CAPABILITY = (8, 0)  # CUDA programming guide: bfloat16 arithmetic from compute capability 8.0
_GPU_QUERY = "--query-gpu=name,memory.total,memory.free,compute_cap,driver_version"


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
    free_memory_bytes: int
    """Memory that no process holds now."""
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
    version: str
    """Version it reports; empty when it reports none."""
    detail: str
    """Where it is."""
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
    limit = _memory_limit_bytes()
    return total if limit is None else min(total, limit)


def free_memory_bytes() -> int:
    """Return the memory that can still be taken without swapping, within the container's limit."""
    free = psutil.virtual_memory().available
    limit, used = _memory_limit_bytes(), _read(_CGROUP / "memory.current").strip()
    if limit is None or not used.isdigit():
        return free
    # Page cache that was not touched lately counts as used, but is given back before anything is killed.
    reclaimable = re.search(r"^inactive_file (\d+)$", _read(_CGROUP / "memory.stat"), re.MULTILINE)
    return max(0, min(free, limit - int(used) + (int(reclaimable[1]) if reclaimable else 0)))


def _memory_limit_bytes() -> int | None:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(_CGROUP / name).strip()
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            return int(text)
    return None


def free_disk_bytes(folder: Path) -> int:
    """Return the free space where a folder is."""
    return shutil.disk_usage(folder).free


def multiplies_in_16_bits(features: Collection[str]) -> bool:
    """True unless a processor is known to lack what torch needs for bfloat16 products (AVX-512, AMX or ARM's bf16)."""
    return not features or bool({"avx512f", "amx_bf16", "bf16"}.intersection(features))


def supports_bfloat16(compute_capability: str) -> bool:
    """True when an NVIDIA GPU of that compute capability computes in bfloat16: a T4 (7.5) does not."""
    return tuple(int(part) for part in compute_capability.split(".")) >= _BFLOAT16_CAPABILITY


def read_gpus() -> list[GpuFacts]:
    """Return the NVIDIA GPUs, or nothing when there is no driver."""
    return parse_gpus(_output_of(["nvidia-smi", _GPU_QUERY, "--format=csv,noheader,nounits"]))


def parse_gpus(csv_text: str) -> list[GpuFacts]:
    """Read what ``nvidia-smi --query-gpu`` prints: name, total and free MiB, compute capability, driver."""
    rows = [[cell.strip() for cell in line.split(",")] for line in csv_text.splitlines()]
    return [
        GpuFacts(
            name=name,
            memory_bytes=int(total) << 20,
            free_memory_bytes=int(free) << 20,
            compute_capability=capability,
            driver=driver,
        )
        for name, total, free, capability, driver in (row for row in rows if len(row) == 5)
        if total.isdigit() and free.isdigit() and re.fullmatch(r"\d+\.\d+", capability)
    ]


class _Program(NamedTuple):
    """A program that some operation can use, and how to ask for its version."""

    name: str
    commands: tuple[str, ...]
    """Names it goes by, the usual one first."""
    version_flag: str
    used_for: str


_PROGRAMS = (
    _Program("llama.cpp", ("llama-server", "llama-cli"), "--version", "serving GGUF without Python"),
    _Program("docker", ("docker",), "--version", "building and running images"),
    _Program("git", ("git",), "--version", "the commit in a run's manifest"),
    _Program("node", ("node",), "--version", "MCP Inspector and other clients"),
    _Program(
        "chromium",
        ("chromium", "chromium-browser", "google-chrome"),
        "--version",
        "looking at reports in tests",
    ),
)


def read_tools() -> list[ToolFacts]:
    """Look for the programs and services that some operations can use, all at the same time."""
    with ThreadPoolExecutor(max_workers=len(_PROGRAMS) + 1) as pool:
        ollama = pool.submit(_read_ollama)
        programs = list(pool.map(_read_program, _PROGRAMS))
        return [ollama.result(), *programs]


def _read_ollama() -> ToolFacts:
    address = urlsplit(Settings.load().ollama_url)
    return ToolFacts(
        name="ollama",
        found=_answers(address.hostname or "127.0.0.1", address.port or 80),
        version=_find_version(_output_of(["ollama", "--version"])),
        detail=address.netloc,
        used_for="deploy serve --engine ollama",
    )


def _read_program(program: _Program) -> ToolFacts:
    path = next((found for name in program.commands if (found := shutil.which(name))), "")
    version = _find_version(_output_of([path, program.version_flag])) if path else ""
    return ToolFacts(
        name=program.name, found=bool(path), version=version, detail=path, used_for=program.used_for
    )


def _find_version(text: str) -> str:
    """Return the first version number in what a program prints about itself."""
    match = re.search(r"\bv?(\d+(?:\.\d+)+|\d{3,})\b", text)
    return match[1] if match else ""


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
    # llama.cpp prints its version on stderr.
    return (done.stdout or done.stderr) if done.returncode == 0 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
