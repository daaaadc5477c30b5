"""Does a recipe fit, before anything is loaded: the memory estimate of `llmops vram estimate`, rung by rung.

The estimate knows nothing of shared prefixes, so it is on the safe side; where it knows nothing of a model at all,
training starts and the ladder catches what happens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.core.errors import DoesNotFitError, InvalidInputError
from pipeline.core.units import format_bytes
from pipeline.train.ladder import Rung, next_rung
from pipeline.train.recipe import TrainRecipe
from pipeline.vram.estimator import estimate_once, read_model
from pipeline.vram.fields import Fields


def choose_rung(
    recipe: TrainRecipe, rung: Rung, row_lengths: Sequence[int], available_bytes: int, facts: dict[str, Any]
) -> Rung:
    """Return the first rung whose expected need is there.

    Args:
        recipe: What was asked for.
        rung: Where to begin.
        row_lengths: Tokens of every training row.
        available_bytes: Free memory of the device.
        facts: ``model`` (folder), ``device_type`` and ``dtype`` of the run.

    Raises:
        DoesNotFitError: If even the lowest rung's least need is not there.
    """
    longest_row = max(row_lengths)
    while True:
        need = _estimate_bytes(recipe, rung, longest_row, facts)
        if need is None or need[1] <= available_bytes:
            return rung
        lower = next_rung(rung, row_lengths, recipe)
        if lower is None:
            break
        rung = lower
    lowest_need = need[0]
    if lowest_need <= available_bytes:
        return rung
    raise DoesNotFitError(
        f"training needs at least {format_bytes(lowest_need)} of {facts['device_type']} memory even with {rung}; "
        f"{format_bytes(available_bytes)} are free",
        hint="Use method=lora, quantization=nf4 on a GPU, or a smaller base model; `llmops vram estimate` compares.",
        needed_bytes=lowest_need,
        free_bytes=available_bytes,
    )


def _estimate_bytes(
    recipe: TrainRecipe, rung: Rung, longest_row: int, facts: dict[str, Any]
) -> tuple[int, int] | None:
    """Return the (low, expected) bytes of a rung, or None when the model is not known to the estimate."""
    is_cpu = facts["device_type"] == "cpu"
    method: Literal["full", "qlora", "lora"] = (
        "full" if recipe.method == "full" else "qlora" if recipe.quantization else "lora"
    )
    narrow = "fp16" if facts["dtype"] == "float16" else "bf16"
    fields = Fields(
        model=str(Path(facts["model"])),
        method=method,
        rank=recipe.rank,
        target_modules=None if recipe.trains_all_linears else list(recipe.target_modules),
        max_length=min(rung.max_length, longest_row),
        micro_batch_size=rung.micro_batch_size,
        gradient_accumulation_steps=rung.gradient_accumulation_steps,
        gradient_checkpointing="standard" if rung.gradient_checkpointing else "none",
        dtype="fp32" if method == "full" or facts["dtype"] == "float32" else narrow,
        attention="eager" if is_cpu else "sdpa",  # the CPU kernel keeps attention weights, as eager does
        loss="chunked",  # logits of predicted tokens only
        lora_dropout=recipe.dropout,
    )
    try:
        found = estimate_once(fields, read_model(fields), None)
    except InvalidInputError:
        return None
    needed = found.allocated if is_cpu else found.process
    return int(needed.low), int(needed.expected)
