"""Operation ``doctor.run``: facts, verdict, and the command for each problem. Mends nothing itself."""

import platform
import sys
from collections.abc import Sequence

from pipeline import __version__
from pipeline.core.extras import installed_version
from pipeline.core.machine import (
    CpuFacts,
    GpuFacts,
    ToolFacts,
    free_disk_bytes,
    memory_bytes,
    multiplies_in_16_bits,
    read_cpu,
    read_gpus,
    read_tools,
)
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.settings import Settings
from pipeline.core.units import format_bytes
from pipeline.doctor.known_bad import RULE_DISTRIBUTIONS, Installed, Problem, find_known_bad
from pipeline.doctor.libraries import LibraryFacts, read_libraries

_QUICKSTART_EXTRAS = ("base", "train", "serve", "agent")
_QUICKSTART_MEMORY_BYTES = 6 << 30  # the goal is a peak below 8 GB; less than 6 has not been seen to work
_QUICKSTART_DISK_BYTES = 9 << 30  # downloads, 16-bit and 32-bit weights, checkpoints, three GGUF files
_PYTHON = (3, 11)
_UNSLOTH_OLDER = ("trl", "transformers", "datasets")


class DoctorRunRequest(Request):
    """Nothing to choose: everything is reported."""


class DoctorRunResult(Result):
    """What was found."""

    ready: bool
    """True when this machine can run the quickstart."""
    llmops: str
    """Version of this project."""
    python: str
    """Version of this Python."""
    system: str
    """Operating system and machine type."""
    cpu: CpuFacts
    """Processor."""
    gpus: list[GpuFacts]
    """NVIDIA GPUs."""
    memory_bytes: int
    """Memory that may be used."""
    free_disk_bytes: int
    """Free space at the workspace."""
    workspace: str
    """Folder that holds runs/ and models/."""
    libraries: list[LibraryFacts]
    """Every library of every extra."""
    tools: list[ToolFacts]
    """Programs and services that some operations can use."""
    problems: list[Problem]
    """What is wrong, with the command that mends it."""

    def is_negative(self) -> bool:
        """True when the quickstart cannot run here."""
        return not self.ready


def run_doctor(_: DoctorRunRequest) -> DoctorRunResult:
    """Report versions, known-bad pairs and the command that mends each."""
    workspace = Settings.load().workspace
    gpus, libraries = read_gpus(), read_libraries()
    memory, disk = memory_bytes(), free_disk_bytes(workspace)
    versions = {name: found for name in RULE_DISTRIBUTIONS if (found := installed_version(name))}
    cpu = read_cpu()
    problems = [
        *find_machine_problems(memory, disk, sys.version_info[:2]),
        *find_slow_processor(cpu.features, gpus),
        *find_library_problems(libraries),
        *find_known_bad(Installed(versions, gpus)),
    ]
    ready = all(problem.severity != "blocks" for problem in problems)
    return DoctorRunResult(
        ready=ready,
        llmops=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu,
        gpus=gpus,
        memory_bytes=memory,
        free_disk_bytes=disk,
        workspace=str(workspace),
        libraries=libraries,
        tools=read_tools(),
        problems=problems,
        next_step="llmops quickstart run" if ready else "Run the commands under problems, then this again.",
    )


def find_machine_problems(memory: int, disk: int, python: tuple[int, int]) -> list[Problem]:
    """Hold the machine against what the quickstart needs."""
    problems: list[Problem] = []
    if python < _PYTHON:
        what = f"Python {python[0]}.{python[1]} is too old, 3.11 or later is needed"
        problems.append(Problem(what=what, severity="blocks", mend="rm -rf .venv && make setup"))
    if memory < _QUICKSTART_MEMORY_BYTES:
        what = (
            f"{format_bytes(memory)} of memory, the quickstart needs {format_bytes(_QUICKSTART_MEMORY_BYTES)}"
        )
        problems.append(
            Problem(what=what, severity="blocks", mend="use a machine or container with more memory")
        )
    if disk < _QUICKSTART_DISK_BYTES:
        what = (
            f"{format_bytes(disk)} of disk free, the quickstart needs {format_bytes(_QUICKSTART_DISK_BYTES)}"
        )
        problems.append(
            Problem(what=what, severity="blocks", mend="export LLMOPS_WORKSPACE=/path/on/a/larger/disk")
        )
    return problems


def find_slow_processor(features: Sequence[str], gpus: Sequence[GpuFacts]) -> list[Problem]:
    """Say so where training on the processor will take hours: the quickstart's numbers come from one with AVX-512 BF16.

    Measured on two cores each, seconds a step of the quickstart (16 rows, all weights): 4.6 with AVX-512 BF16, 26 with
    AVX2, where torch has to compute in 32 bits (docs/experiments.md).
    """
    if gpus or multiplies_in_16_bits(features):
        return []
    what = (
        "this processor multiplies in 32 bits only: training takes over five times as long as with AVX-512 BF16, the "
        "quickstart about 2 h 20 min on two cores"
    )
    return [Problem(what=what, severity="warns", mend="llmops quickstart run --num-rows 1200")]


def find_library_problems(libraries: list[LibraryFacts]) -> list[Problem]:
    """Turn libraries that are missing or outside the tested range into one problem per extra."""
    if not libraries:
        what = "llmops itself is not installed, so its library versions are unknown"
        return [Problem(what=what, severity="blocks", mend="make setup")]
    problems: list[Problem] = []
    for extra in dict.fromkeys(library.extra for library in libraries):
        wrong = [library for library in libraries if library.extra == extra and library.state != "ok"]
        if wrong:
            names = ", ".join(f"{library.name} {library.state}" for library in wrong)
            is_needed = extra in _QUICKSTART_EXTRAS and not _is_unsloth_set(wrong)
            severity = "blocks" if is_needed else "warns"
            problems.append(Problem(what=f"{extra}: {names}", severity=severity, mend=wrong[0].mend))
    return problems


def _is_unsloth_set(wrong: list[LibraryFacts]) -> bool:
    # Unsloth asks for older versions of these three than plain TRL does, and trains with them.
    is_older = all(library.name in _UNSLOTH_OLDER and library.state == "too old" for library in wrong)
    return is_older and installed_version("unsloth") is not None


DOCTOR_RUN = Operation(
    name="doctor.run", request=DoctorRunRequest, result=DoctorRunResult, run=run_doctor, read_only=True
)
