"""The ladder of an out-of-memory error: smaller micro batch, then checkpointing, then shorter rows; same global batch.

Pure arithmetic. Whether a rung fits is asked of ``memory.py`` before the launch and of the machine afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.train.recipe import TrainRecipe

_SHORTER = 0.75
_SHORTEST = 0.25
_FEWEST_ROWS = 0.5
"""Of the rows; without most of them it would be another training."""


@dataclass(frozen=True, slots=True)
class Rung:
    """How a global batch is computed."""

    micro_batch_size: int
    """Rows per forward pass."""
    gradient_accumulation_steps: int
    """Forward passes per optimizer step and device."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass."""
    max_length: int
    """Longest row in tokens."""

    def __str__(self) -> str:
        checkpointing = ", gradient checkpointing" if self.gradient_checkpointing else ""
        return (
            f"micro batch {self.micro_batch_size} x {self.gradient_accumulation_steps}{checkpointing}, "
            f"rows up to {self.max_length} tokens"
        )


def first_rung(recipe: TrainRecipe) -> Rung:
    """Return what the recipe asks for."""
    return Rung(
        recipe.micro_batch_size,
        recipe.gradient_accumulation_steps,
        recipe.gradient_checkpointing,
        recipe.max_length,
    )


def next_rung(rung: Rung, row_lengths: Sequence[int], recipe: TrainRecipe) -> Rung | None:
    """Return the next step down, or None at the foot.

    Args:
        rung: Where we are.
        row_lengths: Tokens of every row that the recipe trains on.
        recipe: What was asked for.
    """
    if rung.micro_batch_size > 1:
        half = rung.micro_batch_size // 2
        smaller = next(size for size in range(half, 0, -1) if rung.micro_batch_size % size == 0)
        factor = rung.micro_batch_size // smaller
        return replace(
            rung,
            micro_batch_size=smaller,
            gradient_accumulation_steps=rung.gradient_accumulation_steps * factor,
        )
    if not rung.gradient_checkpointing:
        return replace(rung, gradient_checkpointing=True)
    longest = max(length for length in row_lengths if length <= rung.max_length)
    shorter = int(longest * _SHORTER)
    num_left = sum(length <= shorter for length in row_lengths)
    if shorter < recipe.max_length * _SHORTEST or num_left < len(row_lengths) * _FEWEST_ROWS:
        return None
    return replace(rung, max_length=shorter)
