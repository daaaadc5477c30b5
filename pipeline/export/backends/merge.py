# pyright: basic
"""Adapter + 16-bit base -> one merged model; computed in 32 bits on the CPU, stored in the base's 16-bit type.

Only weights are written here. Every other file is copied from the base byte for byte: a tokenizer re-saved by
transformers is no longer recognised by converters, and may split text differently.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.export.checkpoint import Checkpoint

logging.disable_progress_bar()  # progress of ours is shown instead


def merge_adapter(base: Checkpoint, adapter: Path, target: Path) -> int:
    """Write ``target`` (a safetensors file) with the adapter merged in; return how many tensors it changed.

    Raises:
        OperationFailedError: If the adapter changes nothing.
        InvalidInputError: If it does not fit the base.
    """
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    try:
        with warnings.catch_warnings():
            # peft 0.21 reads a property that transformers 5.23 renamed
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (RuntimeError, ValueError, KeyError) as error:
        raise InvalidInputError(
            f"the adapter does not fit {base.folder.name}: {str(error)[:300]}",
            hint="Name the base model the adapter was trained on (training.json, base_model_path).",
        ) from error
    return _write(base, merged.state_dict(), target)


def convert_full_model(base: Checkpoint, trained: Checkpoint, target: Path) -> int:
    """Write a fully trained model in the base's 16-bit type; return how many tensors training changed."""
    return _write(base, dict(_read_all(trained)), target)


def _write(base: Checkpoint, state: dict[str, torch.Tensor], target: Path) -> int:
    dtype = getattr(torch, base.dtype)
    missing = [name for name in base.tensors if name not in state]
    if missing:
        raise InvalidInputError(
            f"the trained model lacks {len(missing)} tensors of the base, such as {missing[0]}",
            hint="Train and export the same architecture.",
        )
    tensors: dict[str, torch.Tensor] = {}
    num_changed = 0
    for name, before in _read_all(base):
        tensors[name] = state[name].detach().to(dtype).contiguous()
        if tensors[name].shape != before.shape:
            raise InvalidInputError(
                f"{name} has shape {tuple(tensors[name].shape)}, the base {tuple(before.shape)}",
                hint="A resized vocabulary needs its own tokenizer: make that a base model first.",
            )
        num_changed += not torch.equal(tensors[name], before.to(dtype))
    if num_changed == 0:
        raise OperationFailedError(
            "training changed no weight of the base model, so there is nothing to export",
            hint="Check that training took steps and its learning rate was not 0.",
        )
    part = target.with_name(target.name + ".part")
    save_file(tensors, part, metadata={"format": "pt"})
    part.replace(target)
    return num_changed


def _read_all(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    for name, fact in checkpoint.tensors.items():
        with safe_open(checkpoint.folder / fact.file, framework="pt") as handle:
            yield name, handle.get_tensor(name)
