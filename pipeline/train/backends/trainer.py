# pyright: basic
"""TRL's SFTTrainer with our loss, row order and evaluation, and what makes a run robust.

Every loss is looked at, every checkpoint asks for disk first and is marked when it is whole. Loop, optimizer, resume
and DDP are the trainer's own.
"""

import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Subset
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from pipeline.core.errors import OperationFailedError
from pipeline.core.files import read_json, require_disk, write_json
from pipeline.core.progress import Progress
from pipeline.train.backends.sampler import MixedLengthSampler
from pipeline.train.job import TrainJob

_MARKER = "complete.json"
_SECONDS_BETWEEN_CHECKPOINTS = 600.0
"""However long a step takes, one process loses no more work than this (and what is left until the next logged step)."""


class PrefixTrainer(SFTTrainer):
    """SFTTrainer whose batches come from ``PrefixCollator`` and whose model has the loss of ``install_loss``."""

    order_batch_size: int
    """Micro batch that row order is made for: the recipe's own, also after a step down the ladder."""
    is_stepping = False
    """True from the end of the gradients until the next batch: weights change, and are no state to save."""

    @property
    def folder(self) -> Path:
        """Where checkpoints go."""
        return Path(str(self.args.output_dir))

    def sum_losses(self, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of a batch, summed over what it counts, and the count: here predicted tokens."""
        outputs = model(**inputs)
        return outputs["row_losses"].sum(), outputs["num_predicted"]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: ANN001, ANN201
        """Mean loss (over what the accumulated batch of all devices counts, in training)."""
        total, count = self.sum_losses(model, inputs)
        if num_items_in_batch is not None:
            # DDP averages gradients over its processes; this count is that of all of them.
            total, count = total * self.accelerator.num_processes, num_items_in_batch
        loss = total / torch.as_tensor(count, device=total.device).clamp(min=1)
        return (loss, {}) if return_outputs else loss

    def training_step(self, *args, **kwargs):  # noqa: ANN002, ANN003, ANN201
        """One micro batch; stops the run when its loss is not a number (the trainer itself would log zeros)."""
        self.is_stepping = False
        loss = super().training_step(*args, **kwargs)
        if not math.isfinite(float(loss)):
            raise self._not_finite("loss", float(loss))
        return loss

    def _clip_grad_norm(self, model):  # noqa: ANN001, ANN202
        self.is_stepping = True
        norm: Any = super()._clip_grad_norm(model)
        # With float16 the scaler meets infinite gradients on purpose, skips the step and scales less.
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            raise self._not_finite("gradient", float(norm))
        return norm

    def _not_finite(self, what: str, value: float) -> OperationFailedError:
        newest = newest_checkpoint(self.folder)
        rate = self._get_learning_rate() if self.lr_scheduler else self.args.learning_rate
        return OperationFailedError(
            f"the {what} is {value} in step {self.state.global_step + 1} (learning rate {rate:.2g}); training stopped "
            f"before it could spoil the weights",
            hint=f"Use a learning_rate of {self.args.learning_rate / 4:.1g} or a longer warmup_ratio, and dtype=float32 "
            "if it was float16; `llmops data validate` finds broken rows.",
            step=self.state.global_step + 1,
            checkpoint=str(newest) if newest else None,
        )

    def _get_train_sampler(self, train_dataset=None):  # noqa: ANN001, ANN202
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        return MixedLengthSampler(list(dataset["length"]), self.order_batch_size, self.args.seed)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):  # noqa: ANN001, ANN201
        """Mean loss of the whole evaluation set: tokens (or pairs) weigh the same, not batches."""
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        lengths = list(dataset["length"])
        order = sorted(range(len(lengths)), key=lambda row: lengths[row])
        # Each process takes its share; a sharded model runs on all of them at once, so there each takes all rows.
        is_sharded = bool(self.is_fsdp_enabled)
        rank, world = (
            (0, 1) if is_sharded else (self.accelerator.process_index, self.accelerator.num_processes)
        )
        loader = DataLoader(
            Subset(dataset, order[rank::world]), self.args.eval_batch_size, collate_fn=self.data_collator
        )
        model: Any = self.model_wrapped if is_sharded else self.model
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for batch in loader:
                total, count = self.sum_losses(model, self._prepare_inputs(batch))
                sums += torch.stack([total.double(), count.double()])
        reduced: Any = self.accelerator.reduce(sums, reduction="sum")
        total, count = reduced.tolist()
        metrics = {f"{metric_key_prefix}_loss": total / max(1.0, count)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model, trial):  # noqa: ANN001, ANN202
        folder = self.folder / f"checkpoint-{self.state.global_step}"
        require_disk(folder, self.checkpoint_bytes(), f"The checkpoint of step {self.state.global_step}")
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError):
            shutil.rmtree(folder, ignore_errors=True)
            require_disk(folder, self.checkpoint_bytes(), f"The checkpoint of step {self.state.global_step}")
            raise

    def adopt_end(self, checkpoint: Path) -> None:
        """Take over the history and the weights to keep of a run that ended with a checkpoint; another step would be one too many."""
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        best = Path(self.state.best_model_checkpoint or checkpoint)
        self._load_from_checkpoint(str(best if best.is_dir() else checkpoint))

    def checkpoint_bytes(self) -> int:
        """Return about what a checkpoint takes: what is trained, and its two Adam moments in 32 bits."""
        model: Any = self.model
        trained = [p for p in model.parameters() if p.requires_grad]
        return sum(p.numel() * (p.element_size() + 8) for p in trained) + (1 << 20)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, or None."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{_MARKER}")]
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the number of steps that a checkpoint comes after."""
    return int(checkpoint.name.split("-")[1])


def evaluations_without_progress(checkpoint: Path | None) -> int:
    """Return how many evaluations in a row, up to a checkpoint, were no better than the best before them."""
    if checkpoint is None:
        return 0
    saved = read_json(checkpoint / TRAINER_STATE_NAME).get("stateful_callbacks", {})
    stopping = saved.get(EarlyStoppingCallback.__name__, {})
    return int(stopping.get("attributes", {}).get("early_stopping_patience_counter", 0))


def seconds_in(checkpoint: Path | None) -> float:
    """Return the training time that a checkpoint holds."""
    return float(read_json(checkpoint / _MARKER)["train_seconds"]) if checkpoint else 0.0


class Reporter(TrainerCallback):
    """Log each step, keep the progress bar, save in time, mark whole checkpoints."""

    def __init__(self, job: TrainJob, progress: Progress, mean_tokens: float, resume: Path | None) -> None:
        self.job, self.progress, self.mean_tokens = job, progress, mean_tokens
        self.seconds_before = seconds_in(resume)
        self.started = self.last_save = time.monotonic()
        self.first_step: int | None = None
        self.loss: float | None = None

    def seconds(self) -> float:
        """Wall time of training, earlier attempts up to their checkpoint included."""
        return self.seconds_before + time.monotonic() - self.started

    def on_train_begin(self, args, state, control, **_) -> None:  # noqa: ANN001, ANN003
        """Begin to count."""
        self.first_step, self.started = state.global_step, time.monotonic()
        self.last_save = self.started
        self.progress.done = state.global_step

    def on_step_end(self, args, state, control, **_) -> None:  # noqa: ANN001, ANN003
        """Show the pace, and ask for a checkpoint when the last one is old."""
        done = state.global_step - (self.first_step or 0)
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        rate = done * batch * self.mean_tokens / max(1e-9, time.monotonic() - self.started)
        loss = "" if self.loss is None else f"loss {self.loss:.3f}  "  # the first is logged after its step
        self.progress.update(state.global_step, f"{loss}{rate:.0f} tok/s")
        is_late = time.monotonic() - self.last_save > _SECONDS_BETWEEN_CHECKPOINTS
        # A logged loss is a mean since the last one: saved between two, it would be another after a resume.
        if is_late and args.world_size == 1 and state.global_step % args.logging_steps == 0:
            control.should_save = True

    def on_log(self, args, state, control, logs, **_) -> None:  # noqa: ANN001, ANN003
        """Append to metrics.jsonl."""
        rewards = [name for name in logs if "rewards/" in name]  # preference training only
        names = ("loss", "eval_loss", "learning_rate", "grad_norm", *rewards)
        values = {name: float(logs[name]) for name in names if name in logs}
        if not values:
            return
        self.loss = values.get("loss", self.loss)
        self.job.run.log_metrics(step=state.global_step, train_seconds=round(self.seconds(), 2), **values)

    def on_save(self, args, state, control, **_) -> None:  # noqa: ANN001, ANN003
        """Mark the checkpoint as whole."""
        self.last_save = time.monotonic()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(folder / _MARKER, {"step": state.global_step, "train_seconds": round(self.seconds(), 2)})
