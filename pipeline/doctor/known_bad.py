"""Pairs of versions that install together and then fail, each with the command that mends it.

Each rule was met in practice (docs/experiments.md, the libraries' own requirements). A rule sees versions and GPUs
only; it imports nothing.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from pipeline.core.machine import GpuFacts, supports_bfloat16
from pipeline.core.operation import Part
from pipeline.doctor.libraries import release

_PIP = ".venv/bin/pip"
_PINNED = f"{_PIP} install -c constraints.txt"


class Problem(Part):
    """One thing that is wrong."""

    what: str
    """What is wrong and what it breaks."""
    severity: Literal["blocks", "warns"]
    """`blocks`: the quickstart cannot run."""
    mend: str
    """Command that mends it."""


class Installed(NamedTuple):
    """What a rule may look at."""

    versions: dict[str, str]
    """Installed version by distribution name; absent ones are not listed."""
    gpus: list[GpuFacts]
    """NVIDIA GPUs."""

    def has(self, name: str) -> bool:
        """True when a distribution is installed."""
        return name in self.versions

    def below(self, name: str, bound: tuple[int, ...]) -> bool:
        """True when a distribution is installed in a version below the bound."""
        return self.has(name) and release(self.versions[name]) < bound

    def from_(self, name: str, bound: tuple[int, ...]) -> bool:
        """True when a distribution is installed in that version or a later one."""
        return self.has(name) and not self.below(name, bound)


RULE_DISTRIBUTIONS = (
    "torch", "torchvision", "transformers", "trl", "datasets", "triton", "unsloth", "unsloth_zoo", "certifi",
)  # fmt: skip


def find_known_bad(installed: Installed) -> list[Problem]:
    """Return the known-bad pairs among the installed versions."""
    return [problem for rule in RULES if (problem := rule(installed)) is not None]


def _trl_fused_head_needs_triton(installed: Installed) -> Problem | None:
    is_1_15 = installed.from_("trl", (1, 15)) and installed.below("trl", (1, 16))
    if not is_1_15 or installed.gpus or installed.has("triton") or installed.has("unsloth"):
        return None
    return Problem(
        what="trl 1.15 on a CPU: its fused loss head needs Triton, training stops with 'NoneType' has no 'apply'",
        severity="blocks",
        mend=f"{_PINNED} 'trl>=1.16,<1.17'",
    )


def _transformers_5_needs_trl_1_16(installed: Installed) -> Problem | None:
    # Unsloth's own set (transformers <= 5.17, trl <= 1.15) is tested by Unsloth and patched by it.
    if not (installed.from_("transformers", (5,)) and installed.below("trl", (1, 16))) or installed.has(
        "unsloth"
    ):
        return None
    return Problem(
        what="transformers 5 with a trl below 1.16: the trainer is written for other argument names",
        severity="blocks",
        mend=f"{_PINNED} 'trl>=1.16,<1.17' 'transformers>=5.23,<5.24'",
    )


def _unsloth_pins(installed: Installed) -> Problem | None:
    late = [
        f"{name} {installed.versions[name]}"
        for name, bound in (("trl", (1, 15, 1)), ("datasets", (5,)))
        if installed.has("unsloth") and installed.from_(name, bound)
    ]
    if not late:
        return None
    return Problem(
        what=f"unsloth asks for trl <= 1.15 and datasets < 5, found {', '.join(late)}: train with --backend trl",
        severity="warns",
        mend=f"{_PIP} uninstall -y unsloth unsloth_zoo",
    )


def _unsloth_certifi(installed: Installed) -> Problem | None:
    is_that_release = installed.from_("unsloth", (2026, 10, 9)) and installed.below("unsloth", (2026, 10, 10))
    if not (is_that_release and installed.below("certifi", (2026, 10, 19))):
        return None
    return Problem(
        what="unsloth 2026.10.9 asks for certifi >= 2026.10.19, which pip may not find and then takes 2026.10.7",
        severity="warns",
        mend=f"{_PIP} install --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9",
    )


def _torchvision_beside_cpu_torch(installed: Installed) -> Problem | None:
    torch, vision = installed.versions.get("torch", ""), installed.versions.get("torchvision", "")
    if not (torch.endswith("+cpu") and vision and not vision.endswith("+cpu")):
        return None
    return Problem(
        what=f"torchvision {vision} beside torch {torch}: it was built for CUDA torch and breaks transformers' import",
        severity="blocks",
        mend=f"{_PIP} uninstall -y torchvision",
    )


def _no_bfloat16(installed: Installed) -> Problem | None:
    old = [gpu for gpu in installed.gpus if not supports_bfloat16(gpu.compute_capability)]
    if not old:
        return None
    return Problem(
        what=f"{old[0].name} has compute capability {old[0].compute_capability}: no bfloat16 below 8.0",
        severity="warns",
        mend="llmops train run --preset t4-qlora",
    )


RULES: tuple[Callable[[Installed], Problem | None], ...] = (
    _trl_fused_head_needs_triton,
    _transformers_5_needs_trl_1_16,
    _unsloth_pins,
    _unsloth_certifi,
    _torchvision_beside_cpu_torch,
    _no_bfloat16,
)
