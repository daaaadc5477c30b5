# pyright: basic
"""Plain TRL + PEFT backend: TRL's SFTTrainer with our shared-prefix loss; CPU, one GPU, or DDP through torchrun.

Nothing here knows about rows or runs beyond what :class:`TrainJob` carries. Unsloth lives in ``unsloth_sft.py``.
"""

import gc
import math
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from transformers import AutoTokenizer, EarlyStoppingCallback, PrinterCallback
from trl import SFTConfig  # pyright: ignore[reportPrivateImportUsage]

from pipeline.core.errors import DoesNotFitError, InvalidInputError
from pipeline.core.files import read_json, write_json
from pipeline.core.machine import free_memory_bytes
from pipeline.core.progress import Progress
from pipeline.train.backends.encode import EncodedRows, TokenRow, encode_rows
from pipeline.train.backends.fast_layers import map_large_blocks
from pipeline.train.backends.load import choose_dtype, find_causal, load_model, refuse_four_bits_on_cpu
from pipeline.train.backends.preference import PairCollator, PreferenceTrainer
from pipeline.train.backends.prefix import PrefixCollator, install_loss, why_not_shared
from pipeline.train.backends.trainer import (
    PrefixTrainer,
    Reporter,
    evaluations_without_progress,
    newest_checkpoint,
    step_of,
)
from pipeline.train.device_lock import device_lock
from pipeline.train.job import TrainJob, TrainOutcome
from pipeline.train.ladder import Rung, first_rung, next_rung
from pipeline.train.memory import choose_rung

NUM_CHECKPOINTS = 5
"""At least, whatever a run's length: the course plan's every-100-steps never fires on 75 steps (errata E-20)."""
_RUNG_FILE = "rung.json"
# transformers 5.23 renamed it; Unsloth's set has 5.17.
_CHECKPOINTING = next(
    n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(SFTConfig, n)
)
_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
_MEMORY_WORDS = ("DefaultCPUAllocator", "can't allocate memory", "out of memory", "could not create a memory")

ModelLoader = Callable[[TrainJob, str, torch.dtype, bool], Any]
"""Job, device type, compute type, gradient checkpointing -> the model with what is to be trained switched on."""


@dataclass(frozen=True, slots=True)
class _Session:
    """What stays the same on every rung."""

    job: TrainJob
    load_model: ModelLoader
    tokenizer: Any
    rows: EncodedRows
    validation: EncodedRows
    device_type: str
    dtype: torch.dtype
    refusal: str | None
    """Why the backend cannot share prefixes, or None."""
    num_steps: int


def train(job: TrainJob) -> TrainOutcome:
    """Train, resuming from the newest whole checkpoint of the job's folder.

    Raises:
        InvalidInputError: If nothing would be trained, a row cannot be rendered, or the device is taken.
        DoesNotFitError: If memory or disk are too small.
        OperationFailedError: If the loss stops being a number.
    """
    return train_with(load_model, job)


def train_with(loader: ModelLoader, job: TrainJob, *, refusal: str | None = None) -> TrainOutcome:
    """Train a model that another backend may load; all else is the same. Raises what :func:`train` raises."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_processes()))
    session = _prepare(loader, job, refusal)
    is_cpu = session.device_type == "cpu"
    if is_cpu and rank() > 0:
        return _climb_down(session)  # the first process holds the CPU for all
    with device_lock(job.run, "cpu" if is_cpu else str(torch.cuda.get_device_properties().uuid)):
        return _climb_down(session)


def num_processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return which of them this is."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _prepare(loader: ModelLoader, job: TrainJob, refusal: str | None) -> _Session:
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
    refuse_four_bits_on_cpu(job.recipe, device_type)
    if device_type == "cpu":
        map_large_blocks(dtype)
    recipe = job.recipe
    batch = recipe.micro_batch_size * recipe.gradient_accumulation_steps * num_processes()
    steps = recipe.max_steps or math.ceil(math.ceil(len(rows.rows) / batch) * recipe.num_epochs)
    return _Session(job, loader, tokenizer, rows, validation, device_type, dtype, refusal, steps)


def _climb_down(session: _Session) -> TrainOutcome:
    """Train on the first rung that holds, each going on from the last step of the one before."""
    job, recipe = session.job, session.job.recipe
    rung, changes = _first_rung(session)
    while True:
        outcome = _train_on(session, rung)
        if outcome is not None:
            return replace(outcome, changes=tuple(changes), rung=asdict(rung))
        lower = next_rung(rung, session.rows.lengths, recipe)
        if lower is None or num_processes() > 1:
            raise DoesNotFitError(
                f"out of memory with {rung}",
                hint="Lower micro_batch_size or max_length, use method=lora, or a smaller base model; "
                f"`llmops jobs resume {job.run.id}` goes on from the newest checkpoint.",
            )
        newest = newest_checkpoint(job.checkpoints)
        where = newest.name.replace("-", " of step ") if newest else "the beginning"
        changes.append(f"out of memory with {rung}: went on from {where} with {lower}")
        job.run.log_metrics(step=step_of(newest) if newest else 0, change=changes[-1])
        write_json(job.checkpoints / _RUNG_FILE, {"rung": asdict(lower), "changes": changes})
        rung = lower
        gc.collect()
        if session.device_type == "cuda":
            torch.cuda.empty_cache()


def _first_rung(session: _Session) -> tuple[Rung, list[str]]:
    """Return where an earlier attempt of this run had come to, or where the estimate says to begin."""
    path = session.job.checkpoints / _RUNG_FILE
    if path.exists():
        facts = read_json(path)
        return Rung(**facts["rung"]), list(facts["changes"])
    asked = first_rung(session.job.recipe)
    is_cpu = session.device_type == "cpu"
    available = _least(free_memory_bytes() // num_processes() if is_cpu else torch.cuda.mem_get_info()[0])
    facts = {
        "model": session.job.base_model,
        "device_type": session.device_type,
        "dtype": str(session.dtype).removeprefix("torch."),
    }
    rung = choose_rung(session.job.recipe, asked, session.rows.lengths, available, facts)
    if rung == asked:
        return rung, []
    return rung, [f"the memory estimate does not allow {asked}: began with {rung}"]


def _least(available: int) -> int:
    """Return the least of what all processes have, so that they begin on the same rung."""
    if num_processes() == 1:
        return available
    found = [0] * num_processes()
    dist.all_gather_object(found, available)
    return min(found)


def _train_on(session: _Session, rung: Rung) -> TrainOutcome | None:
    """Train on one rung; None when memory ran out, with a checkpoint of the last whole step where possible."""
    model: Any = None
    trainer: PrefixTrainer | None = None
    rows = session.rows.within(rung.max_length)
    try:
        model = session.load_model(
            session.job, session.device_type, session.dtype, rung.gradient_checkpointing
        )
        reason = session.refusal or why_not_shared(
            find_causal(model).config, gradient_checkpointing=rung.gradient_checkpointing
        )
        trainer = _make_trainer(session, rung, rows, model, share_prefix=reason is None)
        outcome = _run(session, trainer, rows)
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        if trainer is None:
            raise DoesNotFitError(
                "the model itself does not fit into memory",
                hint="Use a smaller base, or quantization on a GPU.",
            ) from error
    else:
        return replace(outcome, shared_prefix=reason is None, not_shared_because=reason)
    _save_last_step(trainer)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """True for what PyTorch, oneDNN and Python raise when memory runs out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _MEMORY_WORDS)


def _save_last_step(trainer: PrefixTrainer) -> None:
    # Memory runs out in the forward or backward pass as a rule, when the weights are still those of the last step.
    if trainer.is_stepping or trainer.state.global_step == 0 or trainer.optimizer is None:
        return
    newest = newest_checkpoint(trainer.folder)
    if newest is not None and newest.name == f"checkpoint-{trainer.state.global_step}":
        return
    model: Any = trainer.model
    model.zero_grad(set_to_none=True)
    try:
        trainer._save_checkpoint(trainer.model_wrapped, None)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


def _make_trainer(
    session: _Session, rung: Rung, rows: EncodedRows, model: Any, *, share_prefix: bool
) -> PrefixTrainer:
    recipe, tokenizer, validation = session.job.recipe, session.tokenizer, session.validation
    is_dpo = recipe.objective == "dpo"
    collator = (PairCollator if is_dpo else PrefixCollator)(
        tokenizer.pad_token_id or 0, share_prefix=share_prefix
    )
    trainer = (PreferenceTrainer if is_dpo else PrefixTrainer)(
        model=model,
        args=_arguments(session, rung),
        processing_class=tokenizer,
        data_collator=collator,
        train_dataset=_dataset(rows),
        eval_dataset=_dataset(validation) if validation.rows else None,
    )
    trainer.order_batch_size = recipe.micro_batch_size
    if isinstance(trainer, PreferenceTrainer):
        trainer.beta = recipe.beta
    # A LoRA model on CPU has its frozen weights in the compute type already, and our kernel does the rest.
    is_lora_on_cpu = recipe.method == "lora" and session.device_type == "cpu"
    install_loss(find_causal(model), autocast=not is_lora_on_cpu)
    return trainer


def _arguments(session: _Session, rung: Rung) -> SFTConfig:
    job, recipe, steps = session.job, session.job.recipe, session.num_steps
    log_every = max(1, steps // 200)
    # Checkpoints fall on logged steps: a logged loss is a mean since the last one, and a resume begins a new mean.
    interval = max(log_every, steps // NUM_CHECKPOINTS // log_every * log_every)
    has_validation = bool(session.validation.rows)
    checkpointing: dict[str, Any] = {_CHECKPOINTING: rung.gradient_checkpointing}
    return SFTConfig(
        output_dir=str(job.checkpoints),
        max_steps=steps,
        per_device_train_batch_size=rung.micro_batch_size,
        per_device_eval_batch_size=rung.micro_batch_size,
        gradient_accumulation_steps=rung.gradient_accumulation_steps,
        learning_rate=recipe.learning_rate,
        warmup_steps=math.ceil(recipe.warmup_ratio * steps),
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="cosine",
        bf16=session.dtype is torch.bfloat16,
        fp16=session.dtype is torch.float16,
        use_cpu=session.device_type == "cpu",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_steps=log_every,
        save_steps=interval,
        eval_strategy="steps" if has_validation else "no",
        eval_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=has_validation,
        metric_for_best_model="eval_loss" if has_validation else None,
        greater_is_better=False if has_validation else None,
        report_to=[name for name in recipe.report_to if name != "tensorboard"] or "none",
        disable_tqdm=True,
        seed=recipe.seed,
        optim=_OPTIMIZERS[recipe.optimizer],
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        **checkpointing,
    )


def _dataset(encoded: EncodedRows) -> Dataset:
    def column(row: TokenRow) -> dict[str, Any]:
        columns = {"input_ids": row.token_ids, "labels": row.labels, "length": row.num_tokens}
        if row.rejected is None:
            return columns
        return {**columns, "rejected_ids": row.rejected.token_ids, "rejected_labels": row.rejected.labels}

    return Dataset.from_list([column(row) for row in encoded.rows])


def _run(session: _Session, trainer: PrefixTrainer, rows: EncodedRows) -> TrainOutcome:
    job = session.job
    resume = newest_checkpoint(job.checkpoints)
    with Progress("train", session.num_steps, unit="steps", run=job.run) as progress:
        _add_callbacks(session, trainer, progress, rows.num_tokens / len(rows.rows), resume)
        with warnings.catch_warnings():
            # torch's checkpoint loader warns about a future default; nothing a user can act on.
            warnings.simplefilter("ignore", FutureWarning)
            if resume and _is_over(session, resume):
                trainer.adopt_end(resume)
            else:
                trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    eval_loss = trainer.state.best_metric
    model: Any = trainer.model
    if rank() == 0:
        model.save_pretrained(job.output)
        if job.recipe.method == "full":
            _complete_model_folder(job)
    return TrainOutcome(
        num_steps=trainer.state.global_step,
        num_steps_planned=session.num_steps,
        best_step=trainer.state.best_global_step,
        train_loss=_mean_loss(trainer),
        eval_loss=None if eval_loss is None else float(eval_loss),
        num_rows=len(rows.rows),
        num_rows_too_long=rows.num_too_long,
        num_validation_rows_too_long=session.validation.num_too_long,
        num_tokens=rows.num_tokens,
        num_trained_tokens=rows.num_trained_tokens,
        num_trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        dtype="bfloat16" if trainer.args.bf16 else "float16" if trainer.args.fp16 else "float32",
        num_processes=num_processes(),
        resumed_from_step=step_of(resume) if resume else None,
    )


def _is_over(session: _Session, checkpoint: Path) -> bool:
    """Tell whether a run ended with this checkpoint: at its last step, or because evaluations no longer got better."""
    patience = session.job.recipe.early_stopping_patience
    has_stopped = patience is not None and evaluations_without_progress(checkpoint) >= patience
    return step_of(checkpoint) >= session.num_steps or has_stopped


def _add_callbacks(
    session: _Session, trainer: PrefixTrainer, progress: Progress, mean_tokens: float, resume: Path | None
) -> None:
    recipe = session.job.recipe
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the result
    if recipe.early_stopping_patience is not None and session.validation.rows:
        stopping = EarlyStoppingCallback(recipe.early_stopping_patience)
        stopping.early_stopping_patience_counter = evaluations_without_progress(resume)
        trainer.add_callback(stopping)
    if rank() > 0:
        return
    trainer.add_callback(Reporter(session.job, progress, mean_tokens, resume))
    if "tensorboard" in recipe.report_to:
        from tensorboardX import SummaryWriter
        from transformers.integrations.integration_utils import TensorBoardCallback

        trainer.add_callback(
            TensorBoardCallback(SummaryWriter(str(session.job.run.artifacts / "tensorboard")))
        )


def _complete_model_folder(job: TrainJob) -> None:
    # Byte for byte from the base: a tokenizer that transformers saves again is no longer recognised by converters.
    for path in job.base_model.iterdir():
        is_weights = ".safetensors" in path.name or path.name == "source.json"
        if path.is_file() and not is_weights and not (job.output / path.name).exists():
            shutil.copyfile(path, job.output / path.name)


def _mean_loss(trainer: PrefixTrainer) -> float:
    # Releases differ in what they divide by after a resume; the history holds all steps, those before it included.
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return sum(losses) / len(losses)
