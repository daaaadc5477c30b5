"""Operation ``vram.quantizations``: exact sizes of one model in every format, and which of them a GPU computes in.

Bytes of weights only: what runs on top of them (activations, cache, optimizer) is ``vram.estimate``'s. Says nothing
about quality: how much a format costs on a task is measured by ``evals``.
"""

from typing import Literal

from pydantic import Field

from pipeline.core.gguf_types import FileType
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.vram.architecture import Architecture
from pipeline.vram.dtype_advice import DtypeAdvice, advise_gpu
from pipeline.vram.gguf_bytes import gguf_bytes, has_gguf_rules
from pipeline.vram.registry import Gpu, find_architecture, find_gpu
from pipeline.vram.weight_bytes import DTYPE_BYTES, Quantization, weight_bytes

Runtime = Literal["transformers", "bitsandbytes", "llama.cpp"]
_GPU_FORMATS: tuple[tuple[str, Quantization, str], ...] = (
    ("fp32", "none", "fp32"),
    ("bf16", "none", "bf16"),
    ("int8", "int8", "bf16"),
    ("nf4", "nf4", "bf16"),
    ("nf4_dq", "nf4_dq", "bf16"),
)
_GGUF_FORMATS: tuple[FileType, ...] = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")


class VramQuantizationsRequest(Request):
    """Which model, and for which GPU."""

    model: WorkspaceRef = Field(min_length=1)
    """Registry name such as meta-llama/Llama-3.1-8B, a config.json, or the folder that holds one."""
    gpu: str | None = Field(default=None, min_length=1)
    """GPU by registry name, such as T4: adds what it computes in and whether the weights alone fit."""


class QuantizationRow(Part):
    """The model in one format."""

    format: str
    """`fp32`, `bf16` (fp16 is the same size), `int8`, `nf4`, `nf4_dq` (double quantisation), or a GGUF file type."""
    runtime: Runtime
    """What loads it."""
    weight_bytes: int
    """All weights; linear layers in this format, embedding, head and norms as the runtime keeps them."""
    bits_per_weight: float
    """Over all parameters."""
    share_of_bf16: float
    """Size over the size in bf16."""
    loads_on_gpu: bool | None
    """Weights alone fit, and the GPU has what the format needs; none: no GPU was given."""


class VramQuantizationsResult(Result):
    """Sizes."""

    model: str
    """As asked."""
    num_parameters: int
    """Parameters; a tied head counts once."""
    formats: list[QuantizationRow]
    """One a format."""
    dtype: DtypeAdvice | None
    """What the GPU computes in."""


def list_quantizations(request: VramQuantizationsRequest) -> VramQuantizationsResult:
    """List the exact size of a model in every format, and what a GPU can load and compute in.

    Raises:
        InvalidInputError: If the model or the GPU is not known, or the configuration is broken.
    """
    model = find_architecture(request.model)
    gpu = find_gpu(request.gpu) if request.gpu is not None else None
    dtype = advise_gpu(gpu.name, gpu.compute_capability) if gpu else None
    sixteen_bit = model.num_parameters * DTYPE_BYTES["bf16"]
    return VramQuantizationsResult(
        model=request.model,
        num_parameters=model.num_parameters,
        formats=[
            QuantizationRow(
                format=name,
                runtime=runtime,
                weight_bytes=size,
                bits_per_weight=round(size * 8 / model.num_parameters, 4),
                share_of_bf16=round(size / sixteen_bit, 4),
                loads_on_gpu=_loads(name, size, gpu, dtype),
            )
            for name, runtime, size in _list_sizes(model)
        ],
        dtype=dtype,
        warnings=_find_warnings(model, gpu),
        next_step=f"llmops vram estimate --model {request.model}" + (f" --gpu {gpu.name}" if gpu else ""),
    )


VRAM_QUANTIZATIONS = Operation(
    name="vram.quantizations",
    request=VramQuantizationsRequest,
    result=VramQuantizationsResult,
    run=list_quantizations,
    read_only=True,
    positional=("model",),
)


def _list_sizes(model: Architecture) -> list[tuple[str, Runtime, int]]:
    sizes: list[tuple[str, Runtime, int]] = []
    for name, quantization, rest in _GPU_FORMATS:
        runtime: Runtime = "transformers" if quantization == "none" else "bitsandbytes"
        sizes.append((name, runtime, weight_bytes(model, quantization, DTYPE_BYTES[rest]).total))
    for file_type in _GGUF_FORMATS if has_gguf_rules(model) else ():
        sizes.append((file_type, "llama.cpp", gguf_bytes(model, file_type)))
    return sizes


def _loads(name: str, size: int, gpu: Gpu | None, dtype: DtypeAdvice | None) -> bool | None:
    if gpu is None or dtype is None:
        return None
    needs_support = name in {"int8", "nf4", "nf4_dq"}
    return size <= gpu.usable_bytes and (not needs_support or name in dtype.quantizations)


def _find_warnings(model: Architecture, gpu: Gpu | None) -> list[str]:
    warnings: list[str] = []
    if model.is_guess:
        warnings.append(
            f"model type {model.model_type!r} is not known: it is counted as a Llama-like decoder"
        )
    if not has_gguf_rules(model):
        warnings.append(f"no GGUF sizes: llama.cpp's rules for {model.model_type!r} are not known here")
    if model.num_experts:
        warnings.append(
            "experts are one fused tensor, which bitsandbytes leaves in 16 bits: int8 and nf4 save little"
        )
    if gpu is not None and not gpu.is_measured:
        warnings.append(f"the usable memory of {gpu.name} was not measured: {gpu.source}")
    return warnings
