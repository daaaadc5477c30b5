"""Advice that is computed: every number comes from estimating the changed set-up again.

The order of changes is that of their cost: first those that change nothing but speed, then those that change the
numbers of training, last those that change what is trained.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import InvalidInputError
from pipeline.vram.fields import Fields
from pipeline.vram.registry import Gpu, list_gpus

if TYPE_CHECKING:
    from pipeline.vram.estimator import Estimate

Evaluate = Callable[[Fields], "Estimate"]
_WORTHWHILE = 0.99
_SHORTEST = 256

_TRAINING_CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("turn on gradient checkpointing", {"gradient_checkpointing": "standard"}),
    ("use a chunked loss", {"loss": "chunked"}),
    ("use a fused loss", {"loss": "fused"}),
    ("use FlashAttention or sdpa instead of eager attention", {"attention": "flash"}),
    ("leave embedding and head in 16 bits", {"kbit_upcast": False}),
    ("keep optimizer states in 8 bits", {"optimizer": "adamw_8bit"}),
    ("let optimizer states page to main memory", {"optimizer": "paged_adamw_8bit"}),
    ("micro batch of 1, more accumulation steps", {"micro_batch_size": 1}),
    ("keep checkpoints in main memory", {"gradient_checkpointing": "offload"}),
    ("16-bit base weights", {"dtype": "bf16"}),
    ("train LoRA matrices instead of all weights", {"method": "lora"}),
    ("quantise the base to NF4 with double quantisation", {"method": "qlora", "quantization": "nf4_dq"}),
    ("halve max_length", {"max_length": 0.5}),
    ("halve max_length again", {"max_length": 0.5}),
)
_SERVING_CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("one sequence at a time", {"micro_batch_size": 1}),
    ("cache in 8 bits", {"kv_cache": "q8_0"}),
    ("quantise the weights to NF4 with double quantisation", {"quantization": "nf4_dq"}),
    ("cache in 4 bits", {"kv_cache": "q4_0"}),
    ("halve max_length", {"max_length": 0.5}),
    ("halve max_length again", {"max_length": 0.5}),
)


def find_changes(
    fields: Fields, now: "Estimate", evaluate: Evaluate, gpu: Gpu | None
) -> list[dict[str, Any]]:
    """Return the changes to make, each on top of those before, until it fits (without a GPU: all that help)."""
    found: list[dict[str, Any]] = []
    if gpu and now.fits(gpu):
        return found
    best = now
    for text, change in _SERVING_CHANGES if fields.task == "inference" else _TRAINING_CHANGES:
        changed = _apply(fields, change)
        if changed is None:
            continue
        try:
            after = evaluate(changed)
        except InvalidInputError:  # this stack or method has no such choice
            continue
        if after.process.expected > best.process.expected * _WORTHWHILE:
            continue
        fields, best = changed, after
        found.append({"change": text, "expected_bytes": after.process.expected})
        if gpu and after.fits(gpu):
            break
    return found


def _apply(fields: Fields, change: dict[str, Any]) -> Fields | None:
    if "max_length" in change:
        shorter = int(fields.max_length * change["max_length"])
        return fields._replace(max_length=shorter) if shorter >= _SHORTEST else None
    if fields.gguf and "quantization" in change:
        return None
    changed = fields._replace(**change)
    if changed == fields:
        return None
    if fields.micro_batch_size > 1 and change.get("micro_batch_size") == 1:
        steps = fields.gradient_accumulation_steps * fields.micro_batch_size
        changed = changed._replace(gradient_accumulation_steps=steps)
    return changed


def largest_that_fits(fields: Fields, name: str, evaluate: Evaluate, gpu: Gpu, limit: int) -> int:
    """Return the largest value of a field with which the set-up still fits, by bisection; 0 if none does."""

    def fits(value: int) -> bool:
        return evaluate(fields._replace(**{name: value})).fits(gpu)

    if not fits(1):
        return 0
    low, high = 1, max(2, getattr(fields, name))
    while high < limit and fits(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def smallest_gpu(now: "Estimate") -> Gpu | None:
    """Return the smallest known GPU on which it fits."""
    return next((gpu for gpu in list_gpus() if now.fits(gpu)), None)
