"""Operation ``vram.probe``: what this machine has. Degrades to a smaller answer when there is no GPU or tool.

Reads the operating system, ``nvidia-smi`` and the metadata of installed libraries; imports none of them, and does not
judge whether a model fits: give what it prints to ``vram.estimate``.
"""

import platform

from pipeline.core.extras import installed_version
from pipeline.core.machine import (
    CpuFacts,
    GpuFacts,
    ToolFacts,
    free_disk_bytes,
    free_memory_bytes,
    memory_bytes,
    read_cpu,
    read_gpus,
    read_tools,
)
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.settings import Settings
from pipeline.vram.dtype_advice import DtypeAdvice, advise_cpu, advise_gpu

_LIBRARIES = (
    "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "unsloth", "xllamacpp", "vllm",
)  # fmt: skip
_IN_USE = 0.1  # more of a GPU's memory than an idle driver and desktop take


class VramProbeRequest(Request):
    """Nothing to choose: everything is reported."""


class InstalledLibrary(Part):
    """One library that trains or serves."""

    name: str
    """Distribution name."""
    version: str
    """Installed version; empty when it is not installed."""


class VramProbeResult(Result):
    """What this machine has."""

    gpus: list[GpuFacts]
    """NVIDIA GPUs; empty without a driver."""
    cpu: CpuFacts
    """Processor."""
    memory_bytes: int
    """Memory this process may use."""
    free_memory_bytes: int
    """Memory it can take now."""
    free_disk_bytes: int
    """Free space at the workspace."""
    workspace: str
    """Folder that holds runs/ and models/."""
    system: str
    """Operating system and machine type."""
    python: str
    """Version of this Python."""
    dtypes: list[DtypeAdvice]
    """What each device computes in, the best first."""
    libraries: list[InstalledLibrary]
    """Libraries that train or serve."""
    tools: list[ToolFacts]
    """Programs and services."""


def probe_machine(_: VramProbeRequest) -> VramProbeResult:
    """Report what this machine has: GPUs, memory, disk, processor, programs and libraries."""
    gpus, cpu = read_gpus(), read_cpu()
    workspace = Settings.load().workspace
    libraries = [InstalledLibrary(name=name, version=installed_version(name) or "") for name in _LIBRARIES]
    best = max(gpus, key=lambda gpu: gpu.free_memory_bytes, default=None)
    gpu_flag = f" --gpu '{best.name}'" if best else ""
    return VramProbeResult(
        gpus=gpus,
        cpu=cpu,
        memory_bytes=memory_bytes(),
        free_memory_bytes=free_memory_bytes(),
        free_disk_bytes=free_disk_bytes(workspace),
        workspace=str(workspace),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        dtypes=[*(advise_gpu(gpu.name, gpu.compute_capability) for gpu in gpus), advise_cpu(cpu.features)],
        libraries=libraries,
        tools=read_tools(),
        warnings=find_limits(gpus, installed_version("torch") or ""),
        next_step=f"llmops vram estimate --model MODEL{gpu_flag}",
    )


def find_limits(gpus: list[GpuFacts], torch_version: str) -> list[str]:
    """Return what keeps this machine from using its GPUs, or that it has none."""
    if not gpus:
        return [
            "no NVIDIA GPU answers: training and serving run on the processor (other makers are not probed)"
        ]
    limits = [
        f"{gpu.name}: other processes hold {1 - gpu.free_memory_bytes / gpu.memory_bytes:.0%} of its memory"
        for gpu in gpus
        if gpu.free_memory_bytes < (1 - _IN_USE) * gpu.memory_bytes
    ]
    if "+cpu" in torch_version:
        limits.append(f"torch {torch_version} is built for the processor and cannot use the GPU")
    return limits


VRAM_PROBE = Operation(
    name="vram.probe", request=VramProbeRequest, result=VramProbeResult, run=probe_machine, read_only=True
)
