"""The training recipe: every knob we own, in the field's names, with the reason for its default.

Presets are functions. Backends translate the names to their library; there is no pass-through of free keywords.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Method = Literal["lora", "full"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


class TrainRecipe(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    method: Method = "lora"
    """`lora` trains low-rank adapters on all linear layers; `full` trains every weight."""
    rank: int = Field(default=16, ge=1, le=512)
    """LoRA rank (r)."""
    alpha: int = Field(default=32, ge=1, le=2048)
    """LoRA scale numerator; the update is scaled by alpha / rank. 2 x rank is a convention, not a law."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """LoRA dropout; 0 is the fast path of every backend."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """LoRA targets: `all-linear`, or module names such as q_proj,v_proj."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Peak learning rate."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps spent rising to the peak."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """AdamW weight decay."""
    num_epochs: float = Field(default=1.0, gt=0, le=100)
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimizer steps, whatever num_epochs says."""
    micro_batch_size: int = Field(default=16, ge=1, le=1024)
    """Rows per forward pass."""
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=4096)
    """Forward passes per optimizer step; global batch = micro batch x accumulation x devices."""
    max_length: int = Field(default=1024, ge=16, le=1_048_576)
    """Longest row in tokens; longer rows are left out, counted and reported, never cut."""
    dtype: DType = "auto"
    """Compute type; `auto` takes bfloat16 where the machine has it, float16 on older GPUs, else float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    seed: int = Field(default=0, ge=0)
    """Seed of adapter initialisation and row order."""

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if not self.target_modules:
            raise ValueError("target_modules is empty: nothing would be trained")
        return self


def cpu_smoke() -> TrainRecipe:
    """A few steps that prove the chain; the model it makes is not meant to be good."""
    # Twenty steps were too few to answer after a tool result, which the export gate rightly refuses.
    return TrainRecipe(
        rank=16, alpha=32, learning_rate=2e-3, max_steps=40, micro_batch_size=8, max_length=544
    )


def cpu_quality() -> TrainRecipe:
    """The quickstart's recipe: the best model that 30 minutes on two cores gave (docs/experiments.md)."""
    # All weights: for 135 M parameters a step costs what it costs with LoRA, and unseen wording is understood better
    # (decision 0008). Eight rows at a time of at most 544 tokens stay below 8 GB with the optimizer's state.
    return TrainRecipe(
        method="full",
        learning_rate=2e-4,
        micro_batch_size=8,
        gradient_accumulation_steps=2,
        max_length=544,
    )


def cpu_lora() -> TrainRecipe:
    """As `cpu-quality`, with an adapter instead of new weights: 37 MiB to keep beside the base."""
    return TrainRecipe(
        rank=32,
        alpha=64,
        learning_rate=1e-3,
        micro_batch_size=8,
        gradient_accumulation_steps=2,
        max_length=544,
    )


def t4_lora() -> TrainRecipe:
    """One 16 GB GPU without bfloat16: float16 compute, small micro batch, checkpointing."""
    return TrainRecipe(
        learning_rate=2e-4,
        num_epochs=3,
        micro_batch_size=2,
        gradient_accumulation_steps=8,
        gradient_checkpointing=True,
    )


PRESETS = {"cpu-smoke": cpu_smoke, "cpu-quality": cpu_quality, "cpu-lora": cpu_lora, "t4-lora": t4_lora}
