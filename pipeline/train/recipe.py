"""The training recipe: every knob we own, in the field's names, with the reason for its default.

Presets are functions. Backends translate the names to their library; there is no pass-through of free keywords.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Method = Literal["lora", "full"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow"]


class TrainRecipe(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    objective: Literal["sft", "dpo"] = "sft"
    """`sft` learns the assistant's turns; `dpo` prefers them to wrong ones (a row's `rejected`, or made by breaking)."""
    beta: float = Field(default=0.1, gt=0, le=10)
    """DPO: pull towards the base; 0.1 is the paper's (arXiv:2305.18290)."""
    method: Method = "lora"
    """`lora` trains low-rank adapters on all linear layers; `full` trains every weight."""
    rank: int = Field(default=16, ge=1, le=512)
    """LoRA rank (r)."""
    alpha: int = Field(default=32, ge=1, le=2048)
    """LoRA scale numerator; the update is scaled by alpha / rank. 2 x rank is a convention, not a law."""
    quantization: Literal["nf4"] | None = None
    """Frozen base weights in 4 bits (QLoRA), for GPUs; none: 16 bits."""
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
    optimizer: Optimizer = "adamw"
    """AdamW with 32-bit states, or 8-bit ones (GPUs), paged to main memory at a peak."""
    early_stopping_patience: int | None = Field(default=3, ge=1)
    """Stop after this many evaluations (at least 5 a run) without a better loss; none: never. The best weights are kept."""
    report_to: tuple[Tracker, ...] = ("tensorboard",)
    """Where metrics go besides metrics.jsonl; TensorBoard files are in the run's artifacts."""
    seed: int = Field(default=0, ge=0)
    """Seed of adapter initialisation and row order."""

    @property
    def trains_all_linears(self) -> bool:
        """True when every linear layer but the head gets an adapter."""
        return self.target_modules == ("all-linear",)

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if not self.target_modules:
            raise ValueError("target_modules is empty: nothing would be trained")
        if self.quantization is not None and self.method == "full":
            raise ValueError("quantised weights cannot be trained; quantization needs method lora")
        if self.objective == "dpo" and self.method == "full":
            raise ValueError("dpo compares with the base below the adapter; it needs method lora")
        return self


def cpu_smoke() -> TrainRecipe:
    """A few steps that prove the chain; the model it makes is not meant to be good."""
    return TrainRecipe(
        rank=16,
        alpha=32,
        learning_rate=2e-3,  # few steps have to show; too high for a long run
        max_steps=40,  # after 20 it did not answer after a tool result, which the export gate rightly refuses
        micro_batch_size=4,  # less time than 8; that the chain holds is a matter of steps, not rows
        max_length=544,  # longest generated row; longer ones are the user's own and are reported
        early_stopping_patience=None,  # the point is to reach the end
    )


def cpu_quality() -> TrainRecipe:
    """The quickstart's recipe: the best model that 30 minutes on two cores gave (docs/experiments.md)."""
    return TrainRecipe(
        # For 135 M parameters a step costs what it costs with LoRA, and unseen wording is understood better (decision
        # 0008).
        method="full",
        learning_rate=2e-4,  # a tenth of LoRA's: every weight moves
        micro_batch_size=8,  # of 544 tokens at most: 8 GB with the optimizer's state
        gradient_accumulation_steps=2,  # 16 rows a step: 303 steps for 4,838 rows
        max_length=544,
    )


def cpu_lora() -> TrainRecipe:
    """As `cpu-quality`, with an adapter instead of new weights: 37 MiB to keep beside the base."""
    return TrainRecipe(
        rank=32,  # 128 followed the same curve step by step (decision 0008)
        alpha=64,
        learning_rate=1e-3,  # 2e-4 is for models 50 times as large
        micro_batch_size=8,
        gradient_accumulation_steps=2,
        max_length=544,
    )


def t4_qlora() -> TrainRecipe:
    """One free 16 GB T4: a 7 to 8 B base in 4 bits, float16 compute, gradient checkpointing."""
    return TrainRecipe(
        quantization="nf4",  # 8 B weights take 16 GB in 16 bits and 5.5 GB in NF4 (arXiv:2305.14314)
        dtype="float16",  # compute capability 7.5 has no bfloat16 (errata E-18)
        rank=16,
        alpha=32,
        learning_rate=2e-4,  # QLoRA paper, table 9, for 7 to 13 B
        num_epochs=3,  # the course plan's; early stopping ends it before if evaluation says so
        micro_batch_size=2,
        gradient_accumulation_steps=8,  # 16 rows a step, as the course plan's 4 x 4
        gradient_checkpointing=True,
        max_length=2048,
        optimizer="paged_adamw_8bit",  # a long row's peak pages the states out instead of ending the run
    )


def l4_lora() -> TrainRecipe:
    """One 24 GB L4 or A10: an 8 B base in 16 bits with an adapter."""
    return TrainRecipe(
        dtype="bfloat16",  # compute capability 8.9
        rank=16,
        alpha=32,
        learning_rate=2e-4,
        num_epochs=3,
        micro_batch_size=1,  # 16 GB of weights leave 6 GB for activations
        gradient_accumulation_steps=16,
        gradient_checkpointing=True,
        max_length=2048,
        optimizer="adamw_8bit",
    )


def h100_full() -> TrainRecipe:
    """One 80 GB H100: every weight of a base of up to 4 B; larger ones need sharding (`train cluster`)."""
    return TrainRecipe(
        method="full",  # 32-bit weights and moments: 12 bytes a parameter, 16 with gradients
        dtype="bfloat16",
        learning_rate=1e-5,  # full fine-tuning of billions of weights; LoRA's rates make it forget
        num_epochs=2,
        micro_batch_size=4,
        gradient_accumulation_steps=8,  # 32 rows a step: less noise at a low rate
        gradient_checkpointing=True,
        max_length=4096,
        warmup_ratio=0.1,  # Adam's moments are those of noise in the first steps
    )


def persona() -> TrainRecipe:
    """A character on top of what the model can do: the course plan's 2 epochs at a low rate."""
    return TrainRecipe(
        rank=16,
        alpha=32,
        learning_rate=1e-4,  # style needs little; a higher rate costs ability (lesson 65.4)
        num_epochs=2,
        micro_batch_size=8,
        gradient_accumulation_steps=1,  # 100 to 500 rows: 8 a step leaves 25 to 125 steps
        max_length=1024,
        early_stopping_patience=2,
    )


def tool_calling() -> TrainRecipe:
    """Tool calls on a base of a few billion parameters, on any one GPU with 24 GB or more."""
    return TrainRecipe(
        rank=32,  # formats and argument choices for many tools; small ranks suffice for style
        alpha=64,
        learning_rate=2e-4,
        num_epochs=2,  # formulations repeat inside a set, so a third pass mostly memorises
        micro_batch_size=4,
        gradient_accumulation_steps=4,
        gradient_checkpointing=True,
        max_length=4096,  # tools text and several turns; nothing is cut, longer rows are left out
    )


def dpo() -> TrainRecipe:
    """Preference training after a supervised run (export it first): fewer wrong and needless calls."""
    return TrainRecipe(
        objective="dpo",
        rank=16,
        alpha=32,
        learning_rate=5e-5,  # a quarter of supervised training: the model can do the task already
        warmup_ratio=0.1,
        num_epochs=1,  # in a second pass margins grow and nothing else
        micro_batch_size=4,  # pairs, so eight rows
        gradient_accumulation_steps=4,
        max_length=1024,
        early_stopping_patience=2,
    )


PRESETS = {
    "cpu-smoke": cpu_smoke,
    "cpu-quality": cpu_quality,
    "cpu-lora": cpu_lora,
    "t4-qlora": t4_qlora,
    "l4-lora": l4_lora,
    "h100-full": h100_full,
    "persona": persona,
    "tool-calling": tool_calling,
    "dpo": dpo,
}
PresetName = Literal[
    "cpu-smoke",
    "cpu-quality",
    "cpu-lora",
    "t4-qlora",
    "l4-lora",
    "h100-full",
    "persona",
    "tool-calling",
    "dpo",
]
