# pyright: basic
"""Unsloth backend: Unsloth loads and adapts the model; rows, loss, loop and checkpoints are those of ``trl_sft.py``.

Importing this module patches transformers, PEFT and TRL for the whole process and must come before them. Only
``train.run`` imports it, in the process of one training run, which ends with it (docs/decisions/0006).
"""

import os
from typing import Any

import torch

from pipeline.core.settings import Settings

os.environ.setdefault("UNSLOTH_CPU_BF16", "1")  # choose_dtype decides, Unsloth does not decide again
os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # no request to a hub for counting users
os.environ.setdefault(
    "UNSLOTH_COMPILE_LOCATION", str(Settings.load().runs_dir / ".unsloth")
)  # not in the cwd

from unsloth import FastLanguageModel  # pyright: ignore[reportMissingImports] - in an environment of its own

from pipeline.train.backends.fast_layers import register_attention
from pipeline.train.backends.load import add_adapter, lora_arguments
from pipeline.train.backends.prefix import WIDTH_STEP
from pipeline.train.backends.trl_sft import train_with
from pipeline.train.job import TrainJob, TrainOutcome


def train(job: TrainJob) -> TrainOutcome:
    """Train with Unsloth, resuming from the newest whole checkpoint of the job's folder.

    Raises:
        InvalidInputError: If nothing would be trained or a row cannot be rendered.
        DoesNotFitError: If memory or disk are too small.
        OperationFailedError: If the loss stops being a number.
    """
    refusal = (
        "Unsloth's decoder for GPUs reads a cache of its own kind" if torch.cuda.is_available() else None
    )
    return train_with(_load_model, job, refusal=refusal)


def _load_model(job: TrainJob, device_type: str, dtype: torch.dtype, checkpointing: bool) -> Any:
    recipe = job.recipe
    is_full = recipe.method == "full"
    use_checkpointing = "unsloth" if checkpointing else False
    # On CPU Unsloth leaves transformers' layers in place, so our attention fits; a GPU gets Unsloth's kernels.
    ours = {"attn_implementation": register_attention()} if device_type == "cpu" else {}
    model, _ = FastLanguageModel.from_pretrained(
        str(job.base_model),
        # Unsloth cuts inputs here, and the collator pads the longest row to a multiple of WIDTH_STEP.
        max_seq_length=-(-recipe.max_length // WIDTH_STEP) * WIDTH_STEP,
        dtype=torch.float32 if is_full else dtype,
        load_in_4bit=recipe.quantization is not None,
        full_finetuning=is_full,
        use_gradient_checkpointing=use_checkpointing,
        **ours,
    )
    if is_full:
        return model
    return add_adapter(
        model,
        recipe,
        lambda: FastLanguageModel.get_peft_model(
            model,
            **lora_arguments(recipe),
            use_gradient_checkpointing=use_checkpointing,
            random_state=recipe.seed,
        ),
        device_type,
    )
