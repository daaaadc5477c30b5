"""From a request's fields to a recipe with every choice made: what each stack does when nothing is said.

The stacks' defaults are read from their documentation and sources; each one that moves the result is returned as an
assumption in words.
"""

from typing import Any, Literal, NamedTuple

from pipeline.core.errors import InvalidInputError
from pipeline.vram.architecture import FAMILIES, Architecture, Linear
from pipeline.vram.recipe import Attention, Loss, Recipe, Stack
from pipeline.vram.registry import Gpu
from pipeline.vram.targets import resolve_targets
from pipeline.vram.weight_bytes import DTYPE_BYTES, Dtype, Quantization

Checkpointing = Literal["none", "standard", "offload"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "sgd"]
Parallelism = Literal["none", "ddp", "fsdp", "zero1", "zero2", "zero3"]
DEFAULT_RANK = 16
ALL_LINEAR = "all-linear"
_FLASH_CAPABILITY = (8, 0)
_UNFUSING = frozenset({"litgpt", "torchtune", "unsloth"})
_QKV = ("q_proj", "k_proj", "v_proj")
_FUSED = ("qkv_proj", "query_key_value")


class Plan(NamedTuple):
    """A recipe and what surrounds it."""

    recipe: Recipe
    checkpointing: Checkpointing
    optimizer: Optimizer
    accumulates: bool
    steps_in_backward: bool
    """Each weight is updated as soon as its gradient is there (torchtune, one device)."""
    fused_optimizer: bool
    num_gpus: int
    parallelism: Parallelism
    is_dpo: bool
    copies_reference: bool
    """DPO keeps a second copy of the weights instead of switching the adapter off."""
    assumptions: tuple[str, ...]


class StackDefaults(NamedTuple):
    """What a stack does unless told otherwise."""

    loss: Loss
    checkpointing: Checkpointing
    optimizer: Optimizer
    fp32_adapters: bool
    """LoRA matrices are kept in fp32 on a 16-bit base."""
    has_dropout: bool = False
    upcasts_rest: bool = False
    keeps_outputs: bool = False
    keeps_quantized_input: bool = False
    quantized_head: bool = False
    expands_kv: bool = False
    unties_head: bool = False


STACKS: dict[Stack, StackDefaults] = {
    "peft": StackDefaults("standard", "standard", "adamw", True, upcasts_rest=True, keeps_outputs=True),
    "trainer": StackDefaults("standard", "standard", "adamw", True),
    "unsloth": StackDefaults("chunked", "offload", "adamw_8bit", True),
    "litgpt": StackDefaults(
        "chunked", "none", "adamw", False, has_dropout=True, keeps_quantized_input=True, quantized_head=True,
        unties_head=True,
    ),
    "torchtune": StackDefaults("chunked", "standard", "adamw", False, expands_kv=True),
}  # fmt: skip


class _Widths(NamedTuple):
    """Bytes of the number types."""

    weights: int
    adapter: int
    stream: int
    activations: int
    rest: int
    is_autocast: bool


def make_plan(request: Any, model: Architecture, gpu: Gpu | None) -> Plan:
    """Fill in a training request.

    Args:
        request: The fields of the request as attributes.
        model: What it names.
        gpu: What it names, if anything.

    Raises:
        InvalidInputError: If fields contradict each other or the model.
    """
    stack: Stack = request.stack
    defaults = STACKS[stack]
    quantization = quantization_of(request)
    _check_method(request, quantization)
    said: list[str] = []
    if defaults.unties_head and model.is_tied:
        model = model._replace(is_tied=False)
        said.append("litgpt keeps a tied output head as a matrix of its own")
    if model.family.fused_qkv and model.family.mlp == "fused_gated" and stack in _UNFUSING:
        model = model._replace(family=FAMILIES["llama"])
        said.append(f"{stack} splits the fused projections of {model.model_type} into separate modules")
    is_full = request.method == "full"
    linears, remarks = ([], []) if is_full else resolve_targets(model, request.target_modules or ALL_LINEAR)
    rank = 0 if is_full else request.rank or DEFAULT_RANK
    check_rank(model, linears, rank)
    widths = _choose_widths(request, gpu, quantization)
    attention, reason = _choose_attention(request.attention, model, gpu, stack)
    dropout = defaults.has_dropout if request.lora_dropout is None else request.lora_dropout > 0
    recipe = Recipe(
        model=model,
        stack=stack,
        is_full=is_full,
        quantization=quantization,
        target_names=_target_names(request, linears),
        rank=rank,
        has_dropout=dropout and not is_full,
        batch=request.micro_batch_size,
        length=request.max_length,
        dtype_bytes=widths.weights,
        adapter_bytes=widths.adapter,
        activation_bytes=widths.activations,
        stream_bytes=widths.stream,
        is_autocast=widths.is_autocast,
        attention=attention,
        expands_kv=defaults.expands_kv or attention == "efficient",
        keeps_quantized_input=defaults.keeps_quantized_input and quantization != "none",
        keeps_outputs=defaults.keeps_outputs,
        loss=request.loss or defaults.loss,
        rest_bytes=widths.rest,
        quantized_head=defaults.quantized_head and quantization != "none",
    )
    plan = _surround(request, recipe, defaults)
    return plan._replace(assumptions=(*said, *remarks, *reason, *_explain(request, plan)))


def quantization_of(request: Any) -> Quantization:
    """Return how the linears are stored: QLoRA means NF4 with double quantisation unless told otherwise."""
    return request.quantization or ("nf4_dq" if request.method == "qlora" else "none")


def default_dtype(gpu: Gpu | None) -> Dtype:
    """Return bf16, or fp16 on a GPU that has no bf16."""
    return "fp16" if gpu is not None and _capability(gpu) < _FLASH_CAPABILITY else "bf16"


def _surround(request: Any, recipe: Recipe, defaults: StackDefaults) -> Plan:
    accumulates = request.gradient_accumulation_steps > 1
    parallelism: Parallelism = request.parallelism or ("ddp" if request.num_gpus > 1 else "none")
    is_torchtune = recipe.stack == "torchtune"
    return Plan(
        recipe=recipe,
        checkpointing=request.gradient_checkpointing or defaults.checkpointing,
        optimizer=request.optimizer or defaults.optimizer,
        accumulates=accumulates,
        steps_in_backward=is_torchtune and recipe.is_full and request.num_gpus == 1 and not accumulates,
        fused_optimizer=is_torchtune,
        num_gpus=request.num_gpus,
        parallelism=parallelism if request.num_gpus > 1 else "none",
        is_dpo=request.objective == "dpo",
        copies_reference=request.objective == "dpo" and recipe.is_full,
        assumptions=(),
    )


def _choose_widths(request: Any, gpu: Gpu | None, quantization: Quantization) -> _Widths:
    defaults = STACKS[request.stack]
    dtype: Dtype = request.dtype or default_dtype(gpu)
    is_full = request.method == "full"
    weights = DTYPE_BYTES[dtype]
    adapter = weights
    if not is_full:
        adapter = (
            DTYPE_BYTES[request.adapter_dtype]
            if request.adapter_dtype
            else max(weights, 4 if defaults.fp32_adapters else 0)
        )
    is_autocast = request.stack in {"trainer", "unsloth"} and not is_full and adapter > weights
    if request.stack == "trainer" and is_full and dtype == "fp16":  # its loss scaling needs weights in fp32
        weights, is_autocast = 4, True
    upcasts = defaults.upcasts_rest if request.kbit_upcast is None else request.kbit_upcast
    # FSDP needs one type in all of a layer, so nobody converts parts of it.
    is_sharded = request.kbit_upcast is None and request.parallelism in {"fsdp", "zero3"}
    upcasts = upcasts and quantization != "none" and weights == 2 and not is_sharded
    stream = 4 if upcasts else weights
    return _Widths(
        weights=weights,
        adapter=weights if is_full else adapter,
        stream=stream,
        activations=2 if is_autocast and not upcasts else stream,
        rest=4 if upcasts else 0,
        is_autocast=is_autocast,
    )


def _target_names(request: Any, linears: list[Linear]) -> tuple[str, ...]:
    names = [linear.name for linear in linears]
    asked: list[str] = [] if isinstance(request.target_modules, str) else request.target_modules or []
    if request.stack == "litgpt" and linears and asked:  # one fused projection, trained part by part
        names = [name for name in names if name not in _FUSED]
        names += [name for name in asked if name in _QKV and name not in names]
    return tuple(names)


def _choose_attention(
    asked: str | None, model: Architecture, gpu: Gpu | None, stack: Stack
) -> tuple[Attention, list[str]]:
    if asked == "eager":
        return "eager", []
    if model.family.softcaps and asked != "flash" and stack != "unsloth":
        return "eager", [f"attention is eager: sdpa cannot cap the scores of {model.model_type}"]
    if gpu is not None and _capability(gpu) < _FLASH_CAPABILITY:
        said = (
            f"{gpu.name} has no FlashAttention: the memory-efficient kernel runs, on repeated keys and values"
        )
        return "efficient", [said]
    return "flash", []


def _capability(gpu: Gpu) -> tuple[int, ...]:
    return tuple(int(part) for part in gpu.compute_capability.split("."))


def _check_method(request: Any, quantization: Quantization) -> None:
    if request.method == "full" and quantization != "none":
        raise InvalidInputError(
            f"quantization: full fine-tuning cannot train {quantization} weights",
            hint="Set quantization to none, or method to qlora.",
        )
    if request.method == "qlora" and quantization == "none":
        raise InvalidInputError(
            "quantization: none contradicts method qlora", hint="Use nf4, nf4_dq or int8, or method lora."
        )
    if request.gradient_checkpointing == "offload" and request.stack == "litgpt":
        raise InvalidInputError(
            "gradient_checkpointing: litgpt cannot offload checkpoints", hint="Use none or standard."
        )
    if request.parallelism not in {None, "none"} and request.num_gpus == 1:
        raise InvalidInputError(
            f"num_gpus: parallelism {request.parallelism} needs at least 2, not 1",
            hint="Raise num_gpus or leave parallelism out.",
        )


def check_rank(model: Architecture, linears: list[Linear], rank: int) -> None:
    """Refuse a rank above the smallest dimension of the target modules."""
    limit = min((min(linear.in_features, linear.out_features) for linear in linears), default=rank)
    if rank > limit:
        raise InvalidInputError(
            f"rank: {rank} exceeds the smallest dimension of the target modules of {model.name}",
            hint=f"Use 1 to {limit}.",
        )


def _explain(request: Any, plan: Plan) -> list[str]:
    recipe = plan.recipe
    said = [
        f"{recipe.stack}: {recipe.loss} loss, {plan.checkpointing} checkpointing, optimizer {plan.optimizer}"
    ]
    if not recipe.is_full:
        kind = {2: "16-bit", 4: "fp32"}[recipe.adapter_bytes]
        said.append(
            f"LoRA matrices in {kind}" + (", products in 16 bit by autocast" if recipe.is_autocast else "")
        )
    if recipe.rest_bytes:
        said.append(
            "embedding, head and norms are converted to fp32 (prepare_model_for_kbit_training); "
            "say kbit_upcast false if yours are not"
        )
    if recipe.keeps_quantized_input:
        said.append("4-bit linears keep their inputs, as in bitsandbytes before 0.43.2, which litgpt pinned")
    if plan.optimizer == "adamw" and recipe.is_full and not plan.fused_optimizer:
        said.append("adamw is torch.optim.AdamW as it is: its step makes a temporary as large as the weights")
    if plan.optimizer == "paged_adamw_8bit":
        said.append("paged optimizer states lie outside PyTorch's allocator and can move to main memory")
    if plan.steps_in_backward:
        said.append("torchtune updates each weight in the backward pass, so gradients do not pile up")
    said.append("all rows are max_length long" + (" (packed)" if request.packing else ""))
    if recipe.model.num_experts:
        said.append("experts are fused tensors: not quantised, not adapted, and not traced")
    if recipe.model.is_guess:
        said.append(f"model type {recipe.model.model_type!r} is unknown: taken for a Llama-like decoder")
    return said
