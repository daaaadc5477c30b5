# pyright: basic
"""Which modules of a model are sharded as units, and what each process then holds: checked on the meta device.

The dry run shards the real modules at full size without memory: PyTorch's fake process group stands for all processes.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.commands.config.config_args import load_config_from_file
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.core.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedModel:
    """What a dry run found."""

    wrapped_classes: tuple[str, ...]
    """Module classes that are gathered one at a time."""
    num_wrapped: int
    """How many such modules there are."""
    num_parameters: int
    """Of the whole model with its adapter."""
    num_local: int
    """Parameters that the first process holds."""
    num_local_trainable: int
    """Of those, the ones that are trained."""
    largest_unit: int
    """Parameters of the largest unit, which every process holds whole for a moment."""


def shard(model: Any, classes: tuple[str, ...], mesh: Any) -> int:
    """Shard every module of the classes, then the rest; return how many there were."""
    units = [module for module in model.modules() if type(module).__name__ in classes]
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return len(units)


def find_layer_classes(model: Any) -> tuple[str, ...]:
    """Return the classes that transformers says must not be split.

    Raises:
        InvalidInputError: If the architecture names none.
    """
    named = tuple(sorted(model._no_split_modules or ()))
    present = {type(module).__name__ for module in model.modules()}
    classes = tuple(name for name in named if name in present)
    if not classes:
        raise InvalidInputError(
            f"{type(model).__name__} does not say which of its modules stay whole",
            hint="Take another base model, or train it on one GPU.",
        )
    return classes


def dry_run(model_folder: Path, lora: dict[str, Any] | None, num_processes: int) -> ShardedModel:
    """Shard a model over many processes without memory and count what the first one holds."""
    config = AutoConfig.from_pretrained(model_folder)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
        classes = find_layer_classes(model)
        if lora is not None:
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora), low_cpu_mem_usage=True)
    units = [module for module in model.modules() if type(module).__name__ in classes]
    largest = max(sum(p.numel() for p in unit.parameters()) for unit in units)
    num_parameters = sum(p.numel() for p in model.parameters())
    rest = num_parameters - sum(p.numel() for unit in units for p in unit.parameters())
    with _many_processes(num_processes) as mesh:
        num_wrapped = shard(model, classes, mesh)
        local = [(p.to_local().numel(), p.requires_grad) for p in model.parameters()]
    return ShardedModel(
        wrapped_classes=classes,
        num_wrapped=num_wrapped,
        num_parameters=num_parameters,
        num_local=sum(count for count, _ in local),
        num_local_trainable=sum(count for count, is_trained in local if is_trained),
        largest_unit=max(largest, rest),
    )


def check_configuration(path: Path) -> dict[str, Any]:
    """Read a configuration file as ``accelerate launch`` does and return its FSDP part.

    Raises:
        InvalidInputError: If accelerate does not take it.
    """
    try:
        found: Any = load_config_from_file(str(path))
        return dict(found.fsdp_config)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInputError(f"accelerate refuses {path}: {error}", hint="Report this.") from error


@contextmanager
def _many_processes(num_processes: int) -> Any:
    if dist.is_initialized():
        raise InvalidInputError(
            "this process is part of a distributed run", hint="Call it from another process."
        )
    dist.init_process_group("fake", rank=0, world_size=num_processes, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (num_processes,))
    finally:
        dist.destroy_process_group()
