"""Reads a Hugging Face style configuration into an :class:`Architecture`.

A ``model_type`` that is not among the known families but has the usual sizes is taken for a Llama-like decoder and
marked ``is_guess``; one without them, or with experts, is refused.
"""

from typing import Any, cast

from pipeline.core.errors import InvalidInputError
from pipeline.vram.architecture import FAMILIES, Architecture, Family

MAX_PARAMETERS = 10**12
"""More than any open model; beyond it a number is a slip of the pen."""
_MAX_SIZE = 10**7


_SAME_AS = {"gemma3": "gemma3_text", "qwen2_5": "qwen2", "mistral3": "mistral"}
# Gemma 3's files leave out what equals the defaults of transformers' Gemma3TextConfig.
_DEFAULTS: dict[str, dict[str, int]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "sliding_window_pattern": 6,
    }
}
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def read_architecture(config: dict[str, Any], name: str) -> Architecture:
    """Read a Hugging Face style configuration.

    Raises:
        InvalidInputError: If a size is missing, out of range or contradicts another.
    """
    config = _text_part(config)
    model_type = str(config.get("model_type", "llama"))
    model_type = _SAME_AS.get(model_type, model_type)
    family = FAMILIES.get(model_type)
    config = {**_DEFAULTS.get(model_type, {}), **config}
    num_experts = _check_kind(config, model_type, family)
    hidden, heads, kv_heads = _read_heads(config)
    layers = _size(config, ("num_hidden_layers",))
    ffn = _size(config, ("intermediate_size", "ffn_hidden_size"), 4 * hidden)
    known = family or Family(
        qkv_bias=bool(config.get("attention_bias")), qk_norm="head" if config.get("use_qk_norm") else ""
    )
    known = _adjust(known, config)
    window = _size(config, ("sliding_window",), 0, minimum=0)
    architecture = Architecture(
        name=name,
        model_type=model_type,
        family=known,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_size(config, ("head_dim",), hidden // heads),
        vocab_size=_size(config, ("vocab_size",)),
        is_tied=bool(config.get("tie_word_embeddings", known.tied)),
        max_positions=_size(config, ("max_position_embeddings",), 1 << 20),
        sliding_window=window,
        num_sliding_layers=_sliding_layers(config, layers) if window else 0,
        num_experts=num_experts,
        experts_per_token=_size(config, ("num_experts_per_tok",), 1) if num_experts else 0,
        expert_size=_size(config, ("moe_intermediate_size",), ffn) if num_experts else 0,
        is_guess=family is None,
    )
    _check(architecture)
    return architecture


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config  # pyright: ignore[reportUnknownVariableType]


def _check_kind(config: dict[str, Any], model_type: str, family: Family | None) -> int:
    """Refuse what cannot be counted; return the number of experts."""
    missing = [key for key in _REQUIRED if config.get(key) is None]
    if missing:
        kind = "unknown architecture" if family is None else "incomplete configuration"
        raise InvalidInputError(
            f"config: {kind} {model_type!r}, no {', '.join(missing)}",
            hint=f"Known model types: {', '.join(FAMILIES)}. Others need at least {', '.join(_REQUIRED)}.",
        )
    num_experts = _size(config, ("num_local_experts", "num_experts"), 0, minimum=0)
    if num_experts and (family is None or family.mlp != "experts"):
        raise InvalidInputError(
            f"config.model_type: experts in {model_type!r} are not known",
            hint=f"Known with experts: {', '.join(name for name, f in FAMILIES.items() if f.mlp == 'experts')}.",
        )
    if family is not None and family.mlp == "experts" and not num_experts:
        raise InvalidInputError(
            f"config: {model_type!r} without num_experts",
            hint="Give num_experts or num_local_experts, at least 1.",
        )
    return num_experts


def _read_heads(config: dict[str, Any]) -> tuple[int, int, int]:
    """Return the width of the stream, the query heads and the key-value heads."""
    hidden, heads = _size(config, ("hidden_size",)), _size(config, ("num_attention_heads",))
    kv_heads = _kv_heads(config, heads)
    if heads % kv_heads:
        raise InvalidInputError(
            f"config.num_key_value_heads: {kv_heads} does not divide num_attention_heads {heads}",
            hint="Each key-value head serves the same number of query heads.",
        )
    if config.get("head_dim") is None and hidden % heads:
        raise InvalidInputError(
            f"config.num_attention_heads: {heads} does not divide hidden_size {hidden}",
            hint="Correct one of the two, or give head_dim.",
        )
    return hidden, heads, kv_heads


def _kv_heads(config: dict[str, Any], heads: int) -> int:
    if config.get("multi_query") and not config.get("new_decoder_architecture"):  # Falcon 7B
        return 1
    return _size(config, ("num_key_value_heads", "num_kv_heads"), heads)


def _adjust(family: Family, config: dict[str, Any]) -> Family:
    """Apply the switches that some configurations carry."""
    if config.get("attention_bias") and family.names[0] == "q_proj":
        family = family._replace(qkv_bias=True, out_bias=config.get("model_type") not in {"qwen2"})
    if config.get("mlp_bias") and family.mlp == "gated":
        family = family._replace(mlp_bias=True)
    if config.get("use_parallel_residual") is False:
        family = family._replace(parallel=False)
    return family


def _sliding_layers(config: dict[str, Any], layers: int) -> int:
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return cast("list[Any]", kinds).count("sliding_attention")
    if config.get("use_sliding_window") is False:
        return 0
    pattern = _size(config, ("sliding_window_pattern", "_sliding_window_pattern"), 0, minimum=0)
    return layers - layers // pattern if pattern else layers


def _size(
    config: dict[str, Any], keys: tuple[str, ...], default: int | None = None, *, minimum: int = 1
) -> int:
    key = next((name for name in keys if config.get(name) is not None), None)
    if key is None:
        assert default is not None
        return default
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= _MAX_SIZE:
        raise InvalidInputError(
            f"config.{key}: {value!r} is not an integer from {minimum} to {_MAX_SIZE}",
            hint="Give the configuration as the model's config.json has it.",
        )
    return value


def _check(architecture: Architecture) -> None:
    if architecture.experts_per_token > architecture.num_experts:
        raise InvalidInputError(
            f"config.num_experts_per_tok: {architecture.experts_per_token} of {architecture.num_experts} experts",
            hint=f"At most num_local_experts = {architecture.num_experts}.",
        )
    if architecture.num_parameters > MAX_PARAMETERS:
        raise InvalidInputError(
            f"config: these sizes make {architecture.num_parameters:,} parameters, the limit is {MAX_PARAMETERS:,}",
            hint="Check hidden_size, num_hidden_layers, intermediate_size and vocab_size for a slip.",
        )
