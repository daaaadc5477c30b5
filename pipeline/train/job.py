"""What a backend gets and gives back; no library types, so that backends are interchangeable."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.messages import Message, Tool
from pipeline.core.runs import Run
from pipeline.train.recipe import TrainRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainExample:
    """One conversation to train on, and the tools that its own prompt prints."""

    name: str
    """File, line and id, for messages to the user."""
    messages: tuple[Message, ...]
    """Turns in order."""
    tools: tuple[Tool, ...]
    """Tools in OpenAI form; may be empty."""
    rejected: Message | None = None
    """For preference training: what the assistant should not say in place of the last turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Everything a backend needs."""

    recipe: TrainRecipe
    """How to train."""
    base_model: Path
    """Hugging Face folder."""
    train_examples: list[TrainExample]
    """Rows to train on."""
    validation_examples: list[TrainExample]
    """Rows for the evaluation loss; may be empty."""
    run: Run
    """Run directory for metrics and progress."""
    checkpoints: Path
    """Folder for resumable state."""
    output: Path
    """Folder for the adapter, or the whole model with method `full`."""
    num_rows_without_pair: int = 0
    """Training rows that preference training leaves out, because no wrong turn can be made of them."""
    num_validation_rows_without_pair: int = 0
    """Validation rows left out for the same reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome:
    """What training did."""

    num_steps: int
    """Optimizer steps in all."""
    num_steps_planned: int
    """Steps of the whole schedule; more than num_steps when early stopping ended it."""
    best_step: int | None
    """Step whose weights were kept; None without validation rows (then it is the last)."""
    train_loss: float
    """Mean of the logged training losses, steps before a resume included."""
    eval_loss: float | None
    """Cross entropy per predicted token on the validation rows, in nats, of the weights that were kept."""
    num_rows: int
    """Training rows used."""
    num_rows_too_long: int
    """Training rows left out because of max_length."""
    num_validation_rows_too_long: int = 0
    """Validation rows left out because of max_length."""
    num_tokens: int
    """Tokens in the training rows."""
    num_trained_tokens: int
    """Tokens with a label."""
    num_trainable_parameters: int
    """Parameters that got gradients."""
    dtype: str
    """Compute type."""
    num_processes: int
    """Processes that trained together."""
    resumed_from_step: int | None
    """Step of the checkpoint that training went on from."""
    shared_prefix: bool = False
    """Whether prompt prefixes that rows share were computed once per step."""
    not_shared_because: str | None = None
    """Why not."""
    rung: dict[str, Any] = field(default_factory=dict[str, Any])
    """Micro batch, accumulation, checkpointing and max_length at the end: less than the recipe's when memory ran out."""
    changes: tuple[str, ...] = ()
    """Steps down the ladder, in order, with the reason."""
