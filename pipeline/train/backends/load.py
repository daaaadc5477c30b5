# pyright: basic
"""Load a base model for training: compute type, kernels, 4 bits or 16, and the adapter on it."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from pipeline.core.errors import InvalidInputError
from pipeline.train.backends.fast_layers import fuse_lora, keep_activations_in, register_attention
from pipeline.train.job import TrainJob
from pipeline.train.recipe import TrainRecipe


def choose_dtype(recipe: TrainRecipe) -> tuple[str, torch.dtype]:
    """Return the device type and compute dtype: bfloat16 from compute capability 8.0 and on CPUs that have it."""
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.dtype != "auto":
        return device_type, getattr(torch, recipe.dtype)
    if device_type == "cuda":
        return device_type, torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    has_bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device_type, torch.bfloat16 if has_bf16 else torch.float32


def refuse_four_bits_on_cpu(recipe: TrainRecipe, device_type: str) -> None:
    """Refuse what no backend computes rightly.

    Raises:
        InvalidInputError: If a CPU should train on a base in 4 bits.
    """
    if recipe.quantization is not None and device_type == "cpu":
        # bitsandbytes 0.50.2 repacks the weights at the first evaluation; the gradients of every step after it are
        # wrong by 70 %, without an error (docs/experiments.md).
        raise InvalidInputError(
            "training on a base in 4 bits needs a GPU: on a CPU bitsandbytes computes wrong gradients after the first "
            "evaluation, and it is no faster there",
            hint="Leave quantization out, or use --preset cpu-lora.",
        )


def load_model(job: TrainJob, device_type: str, dtype: torch.dtype, checkpointing: bool) -> Any:
    """Load with transformers and PEFT; see ``ModelLoader``.

    Raises:
        InvalidInputError: If a target module is unknown.
    """
    recipe = job.recipe
    is_full = recipe.method == "full"
    options: dict[str, Any] = {}
    if device_type == "cpu":
        options["attn_implementation"] = register_attention()
    if recipe.quantization is not None:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        options["device_map"] = {"": torch.cuda.current_device()}
    # Frozen base weights can stay in 16 bits; what is trained needs 32-bit master weights.
    model = AutoModelForCausalLM.from_pretrained(
        job.base_model, dtype=torch.float32 if is_full else dtype, **options
    )
    if is_full:
        if device_type == "cpu" and dtype is not torch.float32:
            keep_activations_in(model, dtype)
        return model
    if recipe.quantization is not None:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    elif checkpointing:
        model.enable_input_require_grads()  # frozen embeddings would cut the recomputed graph
    config = LoraConfig(task_type="CAUSAL_LM", **lora_arguments(recipe))
    return add_adapter(model, recipe, lambda: get_peft_model(model, config), device_type)


def find_causal(model: Any) -> Any:
    """Return the ``*ForCausalLM`` inside a model that may have an adapter."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def lora_arguments(recipe: TrainRecipe) -> dict[str, Any]:
    """Return the recipe's adapter in the words that PEFT and Unsloth share."""
    return {
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
        "target_modules": "all-linear" if recipe.trains_all_linears else list(recipe.target_modules),
    }


def add_adapter(model: nn.Module, recipe: TrainRecipe, wrap: Callable[[], Any], device_type: str) -> Any:
    """Call ``wrap`` to make the adapted model; give it 32-bit master weights, and our kernels on CPU.

    Raises:
        InvalidInputError: If no module has the name of a target.
    """
    _require_targets(model, recipe)
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        # peft 0.21.2 reads a property that transformers 5.23 renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = wrap()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if device_type == "cpu":
        fuse_lora(adapted)
    return adapted


def _require_targets(model: nn.Module, recipe: TrainRecipe) -> None:
    # PEFT refuses only when no name at all is known, and leaves a mistyped one among others out in silence.
    if recipe.trains_all_linears:
        return
    modules = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for target in recipe.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            known = sorted({name.rpartition(".")[2] for name in modules})
            raise InvalidInputError(
                f"no linear module of the model is called {target!r}",
                hint=f"Use target_modules=all-linear, or some of {', '.join(known)}.",
                target=target,
                known=known,
            )
