"""Operation ``vram.trace``: the memory of a training step, observed on the real modules without GPU, weights or data.

Runs transformers and PEFT on fake tensors (the ``train`` extra), so it also serves models whose family the estimate
does not know. What a GPU adds (kernels' own buffers, the optimizer's step) is not in it: see ``vram.estimate``.
"""

from typing import Any

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.vram.fields import AttentionChoice, Method
from pipeline.vram.registry import find_config
from pipeline.vram.weight_bytes import Dtype

_MAX_TOKENS = 1_000_000


class VramTraceRequest(Request):
    """What to run."""

    model: WorkspaceRef | None = Field(default=None, min_length=1)
    """Registry name, a config.json, or the folder that holds one."""
    config: dict[str, Any] | None = None
    """The model's configuration itself, in place of `model`."""
    method: Method = "lora"
    """All weights, or LoRA matrices; bitsandbytes needs a GPU, so qlora is refused."""
    rank: int = Field(default=16, ge=1)
    """LoRA rank."""
    target_modules: str | list[str] = "all-linear"
    """Modules that get an adapter, as PEFT names them."""
    max_length: int = Field(default=2048, ge=1, le=_MAX_TOKENS)
    """Tokens of a row."""
    micro_batch_size: int = Field(default=1, ge=1, le=_MAX_TOKENS)
    """Rows at once."""
    gradient_checkpointing: bool = True
    """Keep only the inputs of layers."""
    dtype: Dtype = "bf16"
    """Type of the weights."""
    adapter_dtype: Dtype = "fp32"
    """Type of the LoRA matrices."""
    autocast: bool = True
    """Products in bf16 by autocast, as Hugging Face's trainer does."""
    attention: AttentionChoice = "sdpa"
    """Attention; FlashAttention has no CPU form and keeps what sdpa keeps."""


class VramTraceResult(Result):
    """Bytes counted."""

    num_parameters: int
    """Parameters, the adapter's too."""
    num_trainable_parameters: int
    """Those that train."""
    weight_bytes: int
    """All parameters as they lie in memory."""
    saved_bytes: int
    """Activations kept from the forward to the backward pass."""
    forward_peak_bytes: int
    """Largest sum of tensors in the forward pass, weights apart."""
    backward_peak_bytes: int
    """The same in the backward pass, gradients with it."""
    gradient_bytes: int
    """What is left at the end."""
    peak_bytes: int
    """Weights and the worse of the two passes."""


def trace_memory(request: VramTraceRequest) -> VramTraceResult:
    """Count the memory of a training step by running the real modules on fake tensors.

    Raises:
        InvalidInputError: If the model is unknown to transformers, or the method needs a GPU.
        MissingDependencyError: If the train extra is not installed.
    """
    if request.method == "qlora":
        raise InvalidInputError(
            "method: qlora cannot be traced, bitsandbytes quantises on a GPU", hint="Use lora or full."
        )
    config = find_config(request.model, request.config)
    require("torch", "transformers", "peft", extra="train")
    from pipeline.vram.backends.fake_trace import TraceJob, run_trace

    is_full = request.method == "full"
    found = run_trace(
        TraceJob(
            config=config,
            batch=request.micro_batch_size,
            length=request.max_length,
            dtype=request.dtype,
            attention="eager" if request.attention == "eager" else "sdpa",
            checkpointing=request.gradient_checkpointing,
            targets=() if is_full else request.target_modules,
            rank=request.rank,
            adapter_dtype=request.adapter_dtype,
            autocast=request.autocast,
        )
    )
    return VramTraceResult(
        num_parameters=found.num_parameters,
        num_trainable_parameters=found.num_trainable,
        weight_bytes=found.weight_bytes,
        saved_bytes=found.saved_bytes,
        forward_peak_bytes=found.forward_peak_bytes,
        backward_peak_bytes=found.backward_peak_bytes,
        gradient_bytes=found.end_bytes,
        peak_bytes=found.weight_bytes + max(found.forward_peak_bytes, found.backward_peak_bytes),
        next_step="llmops vram estimate adds optimizer, allocator and CUDA context",
    )


VRAM_TRACE = Operation(
    name="vram.trace",
    request=VramTraceRequest,
    result=VramTraceResult,
    run=trace_memory,
    read_only=True,
    positional=("model",),
)
