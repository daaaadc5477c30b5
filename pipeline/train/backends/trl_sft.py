# pyright: basic
"""Plain TRL + PEFT backend: TRL's SFTTrainer with our shared-prefix loss; CPU, one GPU, or DDP through accelerate.

Nothing here knows about rows or runs beyond what :class:`TrainJob` carries. Unsloth lives in ``unsloth_sft.py``.
"""

import math
import os
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import write_json
from pipeline.core.progress import Progress
from pipeline.train.backends.encode import EncodedRows, TokenRow, encode_rows
from pipeline.train.backends.fast_layers import (
    fuse_lora,
    keep_activations_in,
    map_large_blocks,
    register_attention,
)
from pipeline.train.backends.prefix import SUPPORTED_MODEL_TYPES, PrefixCollator, predicted_loss
from pipeline.train.backends.sampler import MixedLengthSampler
from pipeline.train.job import TrainJob, TrainOutcome
from pipeline.train.recipe import TrainRecipe

NUM_CHECKPOINTS = 5
"""Per run, whatever its length: the course plan's every-100-steps never fires on 75 steps (errata E-20)."""
_MARKER = "complete.json"
# transformers 5.23 renamed it; Unsloth's set has 5.17.
_CHECKPOINTING = next(
    n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(SFTConfig, n)
)

ModelLoader = Callable[[TrainJob, str, torch.dtype], Any]
"""Job, device type, compute type -> the model with what is to be trained switched on."""


def train(job: TrainJob) -> TrainOutcome:
    """Train, resuming from the newest whole checkpoint of the job's folder.

    Raises:
        InvalidInputError: If nothing would be trained or a row cannot be rendered.
        OperationFailedError: If the loss stops being a number.
    """
    return train_with(_load_model, job)


def train_with(load_model: ModelLoader, job: TrainJob, *, may_share_prefix: bool = True) -> TrainOutcome:
    """Train a model that another backend may load; all else is the same. Raises what :func:`train` raises."""
    torch.set_num_threads(os.cpu_count() or 1)
    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    rows = encode_rows(job.train_examples, tokenizer, job.recipe.max_length)
    validation = encode_rows(job.validation_examples, tokenizer, job.recipe.max_length)
    if rows.num_trained_tokens == 0:
        raise InvalidInputError(
            "no token of the training rows would be trained",
            hint="Check that rows have assistant turns and fit max_length.",
            num_too_long=rows.num_too_long,
        )
    device_type, dtype = choose_dtype(job.recipe)
    if device_type == "cpu":
        map_large_blocks()
    model = load_model(job, device_type, dtype)
    is_plain = model.config.model_type in SUPPORTED_MODEL_TYPES and not job.recipe.gradient_checkpointing
    share_prefix = may_share_prefix and is_plain
    trainer = PrefixTrainer(
        model=model,
        args=_arguments(job, len(rows.rows), device_type, dtype),
        processing_class=tokenizer,
        data_collator=PrefixCollator(tokenizer.pad_token_id, share_prefix=share_prefix),
        train_dataset=_dataset(rows),
        eval_dataset=_dataset(validation) if validation.rows else None,
    )
    return _run(trainer, job, rows, share_prefix=share_prefix)


class PrefixTrainer(SFTTrainer):
    """SFTTrainer whose loss computes what all rows of a batch share only once."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: ANN001, ANN201
        """Mean cross entropy over predicted tokens (of the whole accumulated batch in training)."""
        unwrapped = self.accelerator.unwrap_model(model)
        causal = unwrapped.get_base_model() if isinstance(unwrapped, PeftModel) else unwrapped
        # The model's own forward, which accelerate wraps in autocast, is not called. A LoRA model needs no autocast (its
        # frozen weights are in the compute type already); one with 32-bit weights does.
        context = nullcontext() if causal is not unwrapped else self.accelerator.autocast()
        with context:
            total, count = predicted_loss(causal, inputs)
        loss = total / torch.as_tensor(num_items_in_batch if num_items_in_batch is not None else count).clamp(
            min=1
        )
        return (loss, {}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset=None):  # noqa: ANN001, ANN202
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        return MixedLengthSampler(
            list(dataset["length"]), self.args.per_device_train_batch_size, self.args.seed
        )

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):  # noqa: ANN001, ANN201
        """Evaluation needs the loss only."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: Any = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None


def choose_dtype(recipe: TrainRecipe) -> tuple[str, torch.dtype]:
    """Return the device type and compute dtype: bfloat16 from compute capability 8.0 and on CPUs that have it."""
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.dtype != "auto":
        return device_type, getattr(torch, recipe.dtype)
    if device_type == "cuda":
        return device_type, torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    has_bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device_type, torch.bfloat16 if has_bf16 else torch.float32


def _load_model(job: TrainJob, device_type: str, dtype: torch.dtype) -> Any:
    recipe = job.recipe
    # Frozen base weights can stay in 16 bits; what is trained needs 32-bit master weights.
    weights_dtype = torch.float32 if recipe.method == "full" else dtype
    attention = register_attention() if device_type == "cpu" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(
        job.base_model, dtype=weights_dtype, attn_implementation=attention
    )
    if recipe.method == "full":
        if device_type == "cpu" and dtype is not torch.float32:
            keep_activations_in(model, dtype)
        return model
    torch.manual_seed(recipe.seed)
    config = LoraConfig(task_type="CAUSAL_LM", **lora_arguments(recipe))
    return add_adapter(lambda: get_peft_model(model, config), device_type)


def lora_arguments(recipe: TrainRecipe) -> dict[str, Any]:
    """Return the recipe's adapter in the words that PEFT and Unsloth share."""
    is_all = recipe.target_modules == ("all-linear",)
    return {
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
        "target_modules": "all-linear" if is_all else list(recipe.target_modules),
    }


def add_adapter(wrap: Callable[[], Any], device_type: str) -> Any:
    """Call ``wrap`` to make the adapted model; give it 32-bit master weights, and our kernels on CPU.

    Raises:
        InvalidInputError: If no module has the name of a target.
    """
    try:
        with warnings.catch_warnings():
            # peft 0.21.2 reads a property that transformers 5.23 renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            model = wrap()
    except ValueError as error:
        raise InvalidInputError(
            str(error).split(". ")[0], hint="Use target_modules=all-linear or existing names."
        ) from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if device_type == "cpu":
        fuse_lora(model)
    return model


def _arguments(job: TrainJob, num_rows: int, device_type: str, dtype: torch.dtype) -> SFTConfig:
    recipe = job.recipe
    steps = recipe.max_steps or math.ceil(
        math.ceil(num_rows / (recipe.micro_batch_size * recipe.gradient_accumulation_steps))
        * recipe.num_epochs
    )
    interval = max(1, math.ceil(steps / NUM_CHECKPOINTS))
    checkpointing: dict[str, Any] = {_CHECKPOINTING: recipe.gradient_checkpointing}
    return SFTConfig(
        output_dir=str(job.checkpoints),
        max_steps=steps,
        per_device_train_batch_size=recipe.micro_batch_size,
        per_device_eval_batch_size=recipe.micro_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        learning_rate=recipe.learning_rate,
        warmup_steps=math.ceil(recipe.warmup_ratio * steps),
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="cosine",
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=device_type == "cpu",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_steps=max(1, steps // 200),
        save_steps=interval,
        eval_strategy="steps" if job.validation_examples else "no",
        eval_steps=interval,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        optim="adamw_torch_fused",
        dataloader_pin_memory=False,
        **checkpointing,
    )


def _dataset(encoded: EncodedRows) -> Dataset:
    def column(row: TokenRow) -> dict[str, Any]:
        return {"input_ids": row.token_ids, "labels": row.labels, "length": len(row.token_ids)}

    return Dataset.from_list([column(row) for row in encoded.rows])


def _run(trainer: PrefixTrainer, job: TrainJob, rows: EncodedRows, *, share_prefix: bool) -> TrainOutcome:
    resume = newest_checkpoint(job.checkpoints)
    mean_tokens = rows.num_tokens / len(rows.rows)
    with Progress("train", trainer.args.max_steps, unit="steps", run=job.run) as progress:
        trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the result
        trainer.add_callback(_Reporter(job, progress, mean_tokens, seconds_before=_seconds_in(resume)))
        with warnings.catch_warnings():
            # torch's checkpoint loader warns about a future default; nothing a user can act on.
            warnings.simplefilter("ignore", FutureWarning)
            outcome = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if not math.isfinite(outcome.training_loss):
        raise OperationFailedError(
            "the training loss is not a number", hint="Lower the learning rate and run again."
        )
    eval_loss = _final_eval_loss(trainer)
    model: Any = trainer.model
    model.save_pretrained(job.output)
    if job.recipe.method == "full":
        _complete_model_folder(job)
    return TrainOutcome(
        num_steps=trainer.state.global_step,
        train_loss=_mean_loss(trainer, otherwise=outcome.training_loss),
        eval_loss=eval_loss,
        num_rows=len(rows.rows),
        num_rows_too_long=rows.num_too_long,
        num_tokens=rows.num_tokens,
        num_trained_tokens=rows.num_trained_tokens,
        num_trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        shared_prefix=share_prefix,
        dtype="bfloat16" if trainer.args.bf16 else "float16" if trainer.args.fp16 else "float32",
        resumed_from_step=int(resume.name.split("-")[1]) if resume else None,
    )


def _complete_model_folder(job: TrainJob) -> None:
    # Byte for byte from the base: a tokenizer that transformers saves again is no longer recognised by converters.
    for path in job.base_model.iterdir():
        is_weights = ".safetensors" in path.name or path.name == "source.json"
        if path.is_file() and not is_weights and not (job.output / path.name).exists():
            shutil.copyfile(path, job.output / path.name)


def _mean_loss(trainer: PrefixTrainer, *, otherwise: float) -> float:
    # Releases differ in what they divide by after a resume; the history holds all steps, those before it included.
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return sum(losses) / len(losses) if losses else otherwise


def _final_eval_loss(trainer: PrefixTrainer) -> float | None:
    if trainer.eval_dataset is None:
        return None
    last = next((entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry), None)
    if last is not None and last["step"] == trainer.state.global_step:
        return float(last["eval_loss"])
    return float(trainer.evaluate()["eval_loss"])


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, or None."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{_MARKER}")]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def _seconds_in(checkpoint: Path | None) -> float:
    from pipeline.core.files import read_json

    return float(read_json(checkpoint / _MARKER)["train_seconds"]) if checkpoint else 0.0


class _Reporter(TrainerCallback):
    """Log each step, keep the progress bar, mark whole checkpoints."""

    def __init__(
        self, job: TrainJob, progress: Progress, mean_tokens: float, *, seconds_before: float
    ) -> None:
        self.job, self.progress, self.mean_tokens = job, progress, mean_tokens
        self.seconds_before = seconds_before
        self.started = time.monotonic()
        self.first_step: int | None = None
        self.loss = float("nan")

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def on_train_begin(self, args, state, control, **_):  # noqa: ANN001, ANN003, ANN202
        self.first_step, self.started = state.global_step, time.monotonic()
        self.progress.done = state.global_step

    def on_step_end(self, args, state, control, **_):  # noqa: ANN001, ANN003, ANN202
        done = state.global_step - (self.first_step or 0)
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        rate = done * batch * self.mean_tokens / max(1e-9, time.monotonic() - self.started)
        self.progress.update(state.global_step, f"loss {self.loss:.3f}  {rate:.0f} tok/s")

    def on_log(self, args, state, control, logs, **_):  # noqa: ANN001, ANN003, ANN202
        values = {
            key: logs[key] for key in ("loss", "eval_loss", "learning_rate", "grad_norm") if key in logs
        }
        if not values:
            return
        self.loss = values.get("loss", self.loss)
        self.job.run.log_metrics(step=state.global_step, train_seconds=round(self.seconds(), 2), **values)
        if not math.isfinite(values.get("loss", 0.0)):
            control.should_training_stop = True

    def on_save(self, args, state, control, **_):  # noqa: ANN001, ANN003, ANN202
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(folder / _MARKER, {"step": state.global_step, "train_seconds": round(self.seconds(), 2)})
