# pyright: basic
"""Adapter + 16-bit base -> merged model, one weight file of the base after the other.

Each matrix is computed in 32 bits and stored in the base's 16-bit type, so memory holds one file of the base and not the
model. A quantised base is never merged into: that loses quality (docs: errata of QLoRA merges). Only weights are written
here. Every other file is copied from the base byte for byte: a tokenizer re-saved by transformers is no longer
recognised by converters, and may split text differently.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.export.checkpoint import Checkpoint

_PREFIX = "base_model.model."
_UNKNOWN_KINDS = ("use_dora", "lora_bias", "trainable_token_indices", "megatron_config", "target_parameters")

TensorSource = Callable[[str, torch.Tensor], torch.Tensor]
"""Name and 16-bit value in the base -> value after training."""
OnFile = Callable[[int, int], None]


def merge_adapter(base: Checkpoint, adapter: Path, target: Path, on_file: OnFile | None = None) -> int:
    """Write the weight files of the base with the adapter added in; return how many tensors it changed.

    Raises:
        OperationFailedError: If the adapter changes nothing.
        InvalidInputError: If it does not fit the base, or is of a kind that cannot be added to a matrix.
    """
    deltas = _Deltas(base, adapter)
    return _write(base, deltas.apply, target, on_file)


def convert_full_model(
    base: Checkpoint, trained: Checkpoint, target: Path, on_file: OnFile | None = None
) -> int:
    """Write a fully trained model in the base's 16-bit type; return how many tensors training changed.

    Raises:
        OperationFailedError: If training changed nothing.
        InvalidInputError: If the trained model is not of the base's shape.
    """
    missing = [name for name in base.tensors if name not in trained.tensors]
    if missing:
        raise InvalidInputError(
            f"the trained model lacks {len(missing)} tensors of the base, such as {missing[0]}",
            hint="Train and export the same architecture.",
        )

    def read(name: str, _: torch.Tensor) -> torch.Tensor:
        with safe_open(trained.folder / trained.tensors[name].file, framework="pt") as handle:
            return handle.get_tensor(name)

    return _write(base, read, target, on_file)


class _Deltas:
    """What a LoRA adds to the matrices of a base."""

    def __init__(self, base: Checkpoint, folder: Path) -> None:
        self._config: Any = LoraConfig.from_pretrained(str(folder))
        unknown = [kind for kind in _UNKNOWN_KINDS if getattr(self._config, kind, None)]
        self._path = folder / "adapter_model.safetensors"
        with safe_open(self._path, framework="pt") as handle:
            names: list[str] = list(handle.keys())
        self._sides: dict[str, dict[str, str]] = defaultdict(dict)
        self._replaced: dict[str, str] = {}
        for name in names:
            self._sort(name.removeprefix(_PREFIX), name)
        strange = [name for name in (*self._sides, *self._replaced) if name not in base.tensors]
        strange += [name for name, sides in self._sides.items() if sides.keys() != {"A", "B"}]
        if unknown or strange:
            raise InvalidInputError(
                f"the adapter does not fit {base.folder.name}: {(unknown or strange)[0]}",
                hint="Name the base model the adapter was trained on (training.json, base_model_path); only plain "
                "LoRA on linear layers can be merged.",
            )

    def _sort(self, place: str, name: str) -> None:
        for side in "AB":
            if place.endswith(f".lora_{side}.weight"):
                self._sides[place.removesuffix(f"lora_{side}.weight") + "weight"][side] = name
                return
        self._replaced[place] = name  # a module trained as a whole (modules_to_save), or a kind we refuse

    def apply(self, name: str, before: torch.Tensor) -> torch.Tensor:
        """Return a matrix of the base with what training added to it."""
        if name not in self._sides and name not in self._replaced:
            return before
        with safe_open(self._path, framework="pt") as handle:
            if name in self._replaced:
                return handle.get_tensor(self._replaced[name])
            down, up = (handle.get_tensor(self._sides[name][side]).float() for side in "AB")
        product = up @ down
        if product.shape != before.shape:
            raise InvalidInputError(
                f"the adapter does not fit: {name} is {tuple(before.shape)}, the adapter's {tuple(product.shape)}",
                hint="Name the base model the adapter was trained on (training.json, base_model_path).",
            )
        return before.float() + self._scale(name.removesuffix(".weight")) * product

    def _scale(self, module: str) -> float:
        config = self._config
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), module), config.r)
        alpha = config.alpha_pattern.get(
            get_pattern_key(config.alpha_pattern.keys(), module), config.lora_alpha
        )
        return alpha / (math.sqrt(rank) if config.use_rslora else rank)


def _write(base: Checkpoint, after: TensorSource, target: Path, on_file: OnFile | None) -> int:
    num_changed = 0
    files = base.weight_files
    for index, (file, names) in enumerate(files.items()):
        tensors: dict[str, torch.Tensor] = {}
        for name, before in _read(base, file, names):
            tensors[name], changed = _store(base, name, before, after(name, before))
            num_changed += changed
        part = target / (file + ".part")
        save_file(tensors, part, metadata={"format": "pt"})
        part.replace(target / file)
        if on_file:
            on_file(index + 1, len(files))
    if num_changed == 0:
        raise OperationFailedError(
            "training changed no weight of the base model, so there is nothing to export",
            hint="Check that training took steps and its learning rate was not 0.",
        )
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": {name: fact.file for name, fact in base.tensors.items()}}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return num_changed


def _read(base: Checkpoint, file: str, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(base.folder / file, framework="pt") as handle:
        for name in names:
            yield name, handle.get_tensor(name)


def _store(
    base: Checkpoint, name: str, before: torch.Tensor, after: torch.Tensor
) -> tuple[torch.Tensor, bool]:
    if after.shape != before.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(after.shape)}, the base {tuple(before.shape)}",
            hint="A resized vocabulary needs its own tokenizer: make that a base model first.",
        )
    dtype = getattr(torch, base.dtype)
    stored = after.to(dtype).contiguous()
    return stored, not torch.equal(stored, before.to(dtype))
