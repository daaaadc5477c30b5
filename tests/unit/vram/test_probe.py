"""vram.probe: facts with and without a GPU, and the number formats of each device."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from pipeline.core import machine
from pipeline.core.machine import GpuFacts, free_memory_bytes, memory_bytes, read_tools, supports_bfloat16
from pipeline.vram.dtype_advice import advise_cpu, advise_gpu
from pipeline.vram.probe import VramProbeRequest, find_limits, probe_machine

REPOSITORY = Path(__file__).resolve().parents[3]
MIB, GIB = 1 << 20, 1 << 30


def gpu(free_mib: int) -> GpuFacts:
    return GpuFacts(
        name="Tesla T4",
        memory_bytes=15360 * MIB,
        free_memory_bytes=free_mib * MIB,
        compute_capability="7.5",
        driver="550.54.15",
    )


def write_program(folder: Path, name: str, output: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{output}'\n", encoding="utf-8")
    program.chmod(0o755)


def test_the_probe_agrees_with_the_system(workspace: Path) -> None:
    result = probe_machine(VramProbeRequest())
    assert result.memory_bytes <= psutil.virtual_memory().total
    assert 0 < result.free_memory_bytes <= result.memory_bytes
    assert 0 < result.free_disk_bytes <= shutil.disk_usage(workspace).total
    assert result.cpu.num_cpus == len(os.sched_getaffinity(0))
    assert result.python == platform.python_version()
    rows = {library.name: library.version for library in result.libraries}
    assert rows["torch"] == version("torch")
    assert rows["vllm"] == ""
    assert result.dtypes[-1].device == "cpu"


def test_without_a_gpu_the_probe_says_so_and_still_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = probe_machine(VramProbeRequest())
    assert result.gpus == []
    assert "no NVIDIA GPU answers" in result.warnings[0]
    assert {tool.name for tool in result.tools if tool.found} <= {"ollama"}
    assert [advice.device for advice in result.dtypes] == ["cpu"]


def test_a_gpu_is_read_from_the_driver_s_own_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_program(tmp_path, "nvidia-smi", "Tesla T4, 15360, 9216, 7.5, 550.54.15")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    result = probe_machine(VramProbeRequest())
    assert result.gpus == [gpu(9216)]
    assert (result.dtypes[0].device, result.dtypes[0].compute_dtype) == ("Tesla T4", "fp16")
    assert "Tesla T4: other processes hold 40% of its memory" in result.warnings


def test_versions_are_read_from_what_programs_print(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_program(tmp_path, "llama-server", "version: 7062 (a1b2c3d)")
    write_program(tmp_path, "docker", "Docker version 28.2.2, build e6534b4")
    write_program(tmp_path, "node", "v20.20.2")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    found = {tool.name: tool.version for tool in read_tools()}
    assert (found["llama.cpp"], found["docker"], found["node"]) == ("7062", "28.2.2", "20.20.2")


def test_a_container_limit_bounds_the_memory_and_reclaimable_cache_counts_as_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{64 * MIB}\n", encoding="utf-8")
    (tmp_path / "memory.current").write_text(f"{48 * MIB}\n", encoding="utf-8")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {16 * MIB}\n", encoding="utf-8")
    assert memory_bytes() == 64 * MIB
    assert free_memory_bytes() == 32 * MIB  # 64 - (48 - 16)
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    assert memory_bytes() == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("capability", "dtype", "quantizations", "flash"),
    [
        ("6.0", "fp16", ["nf4", "nf4_dq"], False),  # P100
        ("7.5", "fp16", ["int8", "nf4", "nf4_dq"], False),  # T4
        ("8.0", "bf16", ["int8", "nf4", "nf4_dq"], True),  # A100
        ("8.9", "bf16", ["int8", "nf4", "nf4_dq"], True),  # L4
        ("12.0", "bf16", ["int8", "nf4", "nf4_dq"], True),  # RTX 5090
    ],
)
def test_number_formats_follow_the_compute_capability(
    capability: str, dtype: str, quantizations: list[str], flash: bool
) -> None:
    advice = advise_gpu("some GPU", capability)
    assert (advice.compute_dtype, advice.flash_attention) == (dtype, flash)
    assert advice.quantizations == quantizations
    assert supports_bfloat16(capability) is (dtype == "bf16")


def test_a_processor_computes_in_bfloat16_only_with_instructions_for_it() -> None:
    assert advise_cpu(["avx2", "avx512_bf16"]).compute_dtype == "bf16"
    assert advise_cpu(["avx2", "fma"]).compute_dtype == "fp32"


def test_torch_for_the_processor_beside_a_gpu_is_reported() -> None:
    assert find_limits([gpu(15100)], "2.13.0") == []
    (limit,) = find_limits([gpu(15100)], "2.13.0+cpu")
    assert "torch 2.13.0+cpu is built for the processor" in limit


def test_the_probe_loads_no_library_that_it_reports_on() -> None:
    code = "import sys, pipeline.vram.probe as p; p.probe_machine(p.VramProbeRequest()); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert {"torch", "transformers", "numpy"} & set(done.stdout.split()) == set()
