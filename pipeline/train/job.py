"""What a backend gets and gives back; no library types, so that backends are interchangeable."""

from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome:
    """What training did."""

    num_steps: int
    """Optimizer steps in all."""
    train_loss: float
    """Mean of the logged training losses, steps before a resume included."""
    eval_loss: float | None
    """Cross entropy per predicted token on the validation rows, in nats."""
    num_rows: int
    """Training rows used."""
    num_rows_too_long: int
    """Training rows left out because of max_length."""
    num_tokens: int
    """Tokens in the training rows."""
    num_trained_tokens: int
    """Tokens with a label."""
    num_trainable_parameters: int
    """Parameters that got gradients."""
    shared_prefix: bool
    """Whether the common prompt prefix was computed once per step."""
    dtype: str
    """Compute type."""
    resumed_from_step: int | None
    """Step of the checkpoint that training went on from."""
