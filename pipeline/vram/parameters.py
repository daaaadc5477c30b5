"""Operation ``vram.parameters``: how many parameters a model has, part by part, and a LoRA adapter on it.

Exact, from the configuration alone: no weights are read and no library is imported.
"""

from typing import Any

from pydantic import Field

from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.vram.architecture import Architecture
from pipeline.vram.estimator import read_model
from pipeline.vram.fields import Fields
from pipeline.vram.plan import check_rank
from pipeline.vram.targets import resolve_targets
from pipeline.vram.weight_bytes import adapter_parameters

_ATTENTION_NAMES = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value", "dense"})


class VramParametersRequest(Request):
    """Which model, and which adapter."""

    model: WorkspaceRef | None = Field(default=None, min_length=1)
    """Registry name such as meta-llama/Llama-3.1-8B, a config.json, or the folder that holds one."""
    config: dict[str, Any] | None = None
    """The model's configuration itself, in place of `model`."""
    rank: int = Field(default=16, ge=1)
    """LoRA rank."""
    target_modules: str | list[str] = "all-linear"
    """Modules that get an adapter: names, or all-linear (all but the head)."""


class ParameterRow(Part):
    """One kind of parameters."""

    part: str
    """What they are."""
    num_parameters: int
    """How many, all layers."""
    share: float
    """Of all."""


class VramParametersResult(Result):
    """Counts."""

    model: str
    """The model."""
    model_type: str
    """Its family."""
    num_parameters: int
    """All parameters; a tied head counts once."""
    num_active_parameters: int
    """Those one token uses: fewer with experts."""
    is_tied: bool
    """The head is the embedding."""
    parts: list[ParameterRow]
    """By kind; they add up to all parameters."""
    linear_modules: list[str]
    """Names that `target_modules` may hold."""
    adapter_parameters: int
    """Of a LoRA adapter of this rank on these modules."""
    adapter_file_bytes_16bit: int
    """Its tensors in 16 bits."""
    adapter_file_bytes_fp32: int
    """Its tensors in fp32, as PEFT saves what it trained in fp32."""


def count_parameters(request: VramParametersRequest) -> VramParametersResult:
    """Count the parameters of a model part by part, and those of a LoRA adapter on it.

    Raises:
        InvalidInputError: If the model is unknown, its configuration broken, a module missing or the rank too large.
    """
    model = read_model(Fields(model=request.model, config=request.config))
    linears, remarks = resolve_targets(model, request.target_modules)
    check_rank(model, linears, request.rank)
    adapter = adapter_parameters(model, tuple(linear.name for linear in linears), request.rank)
    total = model.num_parameters
    if model.is_guess:
        remarks.append(f"model type {model.model_type!r} is unknown: counted as a Llama-like decoder")
    return VramParametersResult(
        model=model.name,
        model_type=model.model_type,
        num_parameters=total,
        num_active_parameters=model.num_active_parameters,
        is_tied=model.is_tied,
        parts=[
            ParameterRow(part=part, num_parameters=count, share=round(count / total, 6))
            for part, count in _split(model).items()
            if count
        ],
        linear_modules=[linear.name for linear in model.linears],
        adapter_parameters=adapter,
        adapter_file_bytes_16bit=2 * adapter,
        adapter_file_bytes_fp32=4 * adapter,
        warnings=remarks,
        next_step=f"llmops vram estimate {request.model or '--config ...'} --rank {request.rank}",
    )


VRAM_PARAMETERS = Operation(
    name="vram.parameters",
    request=VramParametersRequest,
    result=VramParametersResult,
    run=count_parameters,
    read_only=True,
    positional=("model",),
)


def _split(model: Architecture) -> dict[str, int]:
    attention = mlp = 0
    for linear in model.linears:
        size = linear.num_weights + (linear.out_features if linear.has_bias else 0)
        if linear.name in _ATTENTION_NAMES:
            attention += size
        else:
            mlp += size
    biases = sum(linear.out_features for linear in model.linears if linear.has_bias)
    norms = model.num_small_weights - biases
    layers = model.num_layers
    return {
        "embedding": model.num_embedding_weights,
        "attention": layers * attention,
        "feed_forward": layers * mlp,
        "experts": layers * model.num_expert_weights,
        "routers": layers * model.num_router_weights,
        "norms": layers * norms + model.num_final_norm_weights,
        "head": model.num_head_weights,
    }
