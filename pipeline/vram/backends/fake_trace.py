# pyright: basic
"""Memory of one training step, observed: the real model runs on fake tensors that have shapes but no data.

Every storage that PyTorch creates is counted from its creation to its end, so the numbers are those of the real
modules, of PEFT and of autograd; kernels that exist on a GPU only (FlashAttention, bitsandbytes) are replaced by their
CPU counterparts. Needs no GPU, no weights and little memory.
"""

import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pipeline.core.errors import InvalidInputError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """What to run."""

    config: dict[str, Any]
    batch: int
    length: int
    dtype: str
    attention: str
    checkpointing: bool
    targets: Sequence[str]
    """Modules with an adapter, or PEFT's word for all of them; empty trains all weights."""
    rank: int
    adapter_dtype: str
    autocast: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Bytes, weights apart."""

    num_parameters: int
    num_trainable: int
    weight_bytes: int
    saved_bytes: int
    forward_peak_bytes: int
    backward_peak_bytes: int
    end_bytes: int


class _LiveStorages(TorchDispatchMode):
    """Counts the bytes of storages made while it is active."""

    def __init__(self, ignored: set[int]) -> None:
        super().__init__()
        self._seen: dict[int, int] = dict.fromkeys(ignored, 0)
        self.live = self.peak = 0

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        self._seen[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._seen.pop(key, 0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._note, out)
        return out


def run_trace(job: TraceJob) -> Trace:
    """Run forward and backward once on fake tensors and count.

    Raises:
        InvalidInputError: If the installed transformers does not know the model, or it computes with what tokens say.
    """
    try:
        return _run(job)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise InvalidInputError(
            f"config: {job.config.get('model_type')!r} asks for values that fake tensors do not have ({error})",
            hint="Models that route tokens to experts cannot be traced; use `llmops vram estimate`.",
        ) from error


def _run(job: TraceJob) -> Trace:
    with FakeTensorMode(allow_non_fake_inputs=True), _no_packing_check():
        model = _build(job)
        parameters = list(model.parameters())
        ignored = {t.untyped_storage()._cdata for t in [*parameters, *model.buffers()]}
        ids = torch.ones(job.batch, job.length, dtype=torch.long)
        ignored.add(ids.untyped_storage()._cdata)
        saved = _saved_bytes(model, job, ids, ignored)
        live = _LiveStorages(ignored)
        with live:
            outputs = _forward(model, job, ids)
            forward_peak = live.peak
            loss = outputs.loss
            del outputs  # a trainer drops the logits before it goes backwards
            live.peak = live.live
            loss.backward()
            del loss
        return Trace(
            num_parameters=sum(p.numel() for p in parameters),
            num_trainable=sum(p.numel() for p in parameters if p.requires_grad),
            weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
            saved_bytes=saved,
            forward_peak_bytes=forward_peak,
            backward_peak_bytes=live.peak,
            end_bytes=live.live,
        )


def _forward(model: Any, job: TraceJob, ids: torch.Tensor) -> Any:
    cast = torch.autocast("cpu", dtype=torch.bfloat16) if job.autocast else nullcontext()
    with cast:
        return model(input_ids=ids, labels=ids)


def _saved_bytes(model: Any, job: TraceJob, ids: torch.Tensor, ignored: set[int]) -> int:
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in ignored:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = _forward(model, job, ids)
    total = sum(storage.nbytes() for storage in kept.values())
    del outputs
    return total


def _build(job: TraceJob) -> Any:
    settings = dict(job.config)
    model_type = settings.pop("model_type", "")
    if model_type not in transformers.CONFIG_MAPPING:
        raise InvalidInputError(
            f"config.model_type: transformers {transformers.__version__} has no {model_type!r}",
            hint="Give a model type that the installed transformers knows.",
        )
    config = transformers.AutoConfig.for_model(model_type, **settings)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=job.attention, dtype=_DTYPES[job.dtype]
    )
    if job.targets:
        model = _add_adapters(model, job)
    if job.checkpointing:
        # The name before transformers 5.23 is deprecated there.
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable()
        if job.targets:
            model.enable_input_require_grads()
    model.config.use_cache = False
    return model.train()


def _add_adapters(model: Any, job: TraceJob) -> Any:
    """Wrap the model; moving fake modules is skipped, so the default type decides that of the adapters."""
    targets = job.targets if isinstance(job.targets, str) else list(job.targets)
    settings = LoraConfig(r=job.rank, lora_alpha=job.rank, target_modules=targets, task_type="CAUSAL_LM")
    previous = torch.get_default_dtype()
    torch.set_default_dtype(_DTYPES[job.adapter_dtype])
    try:
        with (
            patch.object(torch.nn.Module, "to", lambda module, *_, **__: module),
            patch(
                "peft.tuners.tuners_utils.BaseTunerLayer._move_adapter_to_device_of_base_layer",
                lambda *_, **__: None,
            ),
        ):
            return get_peft_model(model, settings, autocast_adapter_dtype=False)
    finally:
        torch.set_default_dtype(previous)


@contextmanager
def _no_packing_check() -> Generator[None]:
    """Whether sequences are packed is read from data, which fake tensors do not have."""
    with patch.object(transformers.masking_utils, "find_packed_sequence_indices", lambda *_: None):
        yield
