"""From bytes that tensors take to what the allocator reserves and what the driver shows, as ranges.

The factors on what comes and goes are medians and extremes of the calibration rows (`benchmarks/README.md`); nothing
else in this package is fitted. What stays is reserved once and is not multiplied.
"""

from typing import NamedTuple

from pipeline.vram.hf_head import CHUNK_TOKENS
from pipeline.vram.plan import Plan
from pipeline.vram.registry import Gpu

_MIB = 1 << 20


class Range(NamedTuple):
    """A number and how far off it may be."""

    low: int
    expected: int
    high: int

    def plus(self, other: "Range") -> "Range":
        """Add two ranges end by end."""
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)


_CONTEXTS: dict[str, Range] = {
    "7": Range(140 * _MIB, 141 * _MIB, 350 * _MIB),
    "8": Range(250 * _MIB, 480 * _MIB, 950 * _MIB),
    "9": Range(400 * _MIB, 600 * _MIB, 950 * _MIB),
}
"""CUDA context by major compute capability: T4 measured by fitcheck, A100 between 0.47 and 0.92 GiB."""
_OTHER_CONTEXT = Range(140 * _MIB, 480 * _MIB, 950 * _MIB)
_COMMUNICATION = Range(300 * _MIB, 900 * _MIB, 1500 * _MIB)
"""NCCL's buffers and channels."""


_DYNAMIC_SHARE = 0.15


class Spread(NamedTuple):
    """Factors on the bytes that come and go."""

    allocated: tuple[float, float]
    """Lowest and highest of what tensors take."""
    reserved: tuple[float, float, float]


def training_spread(plan: Plan) -> Spread:
    """Return how far allocated and reserved bytes may be from the walk's result."""
    recipe = plan.recipe
    width = 0.04
    if recipe.stack in {"litgpt", "torchtune", "unsloth"}:
        width = 0.12
    if recipe.model.num_experts or recipe.model.is_guess or plan.num_gpus > 1:
        width = 0.3
    if recipe.stack == "unsloth":
        reserved = (1.0, 1.06, 1.3)  # expandable segments
    elif recipe.attention == "eager":
        reserved = (1.06, 1.4 if recipe.is_quantized else 1.33, 1.65)
    elif recipe.is_quantized or recipe.stack == "trainer":
        reserved = (1.05, 1.27, 1.7)
    else:
        reserved = (1.04, 1.13, 1.5)
    return Spread((1 - width, 1 + width), reserved)


def unsaid_bytes(plan: Plan, weights: int) -> int:
    """Return what may come on top because a stack has two ways and the request does not say which; for upper bounds.

    Unsloth's dynamic 4-bit checkpoints keep some layers in 16 bits (Phi-4: 10.0 GiB loaded, 8.7 by the formula).
    Before its chunked loss, and on a T4 before 2025, it kept all logits and accelerate their fp32 copy. torchtune
    without ``compile`` keeps log-probabilities in fp32.
    """
    recipe = plan.recipe
    elements = recipe.model.vocab_size * recipe.tokens
    is_unsloth = recipe.stack == "unsloth"
    extra = int(_DYNAMIC_SHARE * weights) if is_unsloth and recipe.is_quantized else 0
    if recipe.loss == "chunked" and recipe.stack == "torchtune":
        extra += 4 * elements
    if recipe.loss == "chunked" and is_unsloth:
        extra += max(0, 6 * elements - 10 * recipe.model.vocab_size * min(CHUNK_TOKENS, recipe.tokens))
    return extra


def context_bytes(gpu: Gpu | None, num_gpus: int) -> Range:
    """Return what a process holds on the device beside its tensors."""
    context = (
        _OTHER_CONTEXT if gpu is None else _CONTEXTS.get(gpu.compute_capability.split(".")[0], _OTHER_CONTEXT)
    )
    return context.plus(_COMMUNICATION) if num_gpus > 1 else context


def spread_out(resident: int, moving: int, spread: Spread, extra: int = 0) -> tuple[Range, Range]:
    """Return the ranges of allocated and of reserved bytes.

    Args:
        resident: What is there all the time.
        moving: What comes and goes.
        spread: Factors on it.
        extra: Bytes beside, which the upper bounds count in full.
    """
    low, high = spread.allocated
    allocated = Range(resident + int(low * moving), resident + moving, resident + int(high * moving) + extra)
    reserved = Range(
        resident + int(spread.reserved[0] * moving),
        resident + int(spread.reserved[1] * moving),
        resident + int(max(spread.reserved[2], high) * moving) + extra,
    )
    return allocated, reserved
