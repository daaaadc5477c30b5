"""What a decoder model is made of, read from its configuration: shapes, norms, attention and MLP kind.

Knows the families of :data:`FAMILIES`; another ``model_type`` with the usual sizes is taken for a Llama-like decoder
and marked ``is_guess``, one without them is refused. Holds no weights and imports no library.
"""

from typing import Any, Literal, NamedTuple, cast

from pipeline.core.errors import InvalidInputError

Norm = Literal["rms", "rms_fp32_weight", "gemma", "layer"]
Mlp = Literal["gated", "fused_gated", "plain", "experts"]

HEAD_NAME = "lm_head"
MAX_PARAMETERS = 10**12
"""More than any open model; beyond it a number is a slip of the pen."""
_MAX_SIZE = 10**7


class Linear(NamedTuple):
    """One linear module of a decoder layer."""

    name: str
    out_features: int
    in_features: int
    has_bias: bool = False

    @property
    def num_weights(self) -> int:
        """Elements of the weight matrix."""
        return self.out_features * self.in_features


class Family(NamedTuple):
    """How the layers of a model type are built."""

    norm: Norm = "rms"
    mlp: Mlp = "gated"
    fused_qkv: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: Literal["", "head", "full"] = ""
    layer_norms: int = 2
    """Norms on the residual stream of one layer."""
    post_norms: bool = False
    """The outputs of attention and MLP are normalised too (Gemma 2 and 3), or instead (OLMo 2)."""
    parallel: bool = False
    """Attention and MLP read the same stream."""
    softcaps: bool = False
    scaled_embedding: bool = False
    rotates_by_cat: bool = False
    """Rotated queries are laid out head by head, so what attention puts out is copied for the next linear."""
    experts_bias: bool = False
    sinks: bool = False
    tied: bool = False
    names: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


_NEOX_NAMES = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "smollm3": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm="head"),
    "qwen3_moe": Family(qk_norm="head", mlp="experts"),
    "mixtral": Family(mlp="experts"),
    "gemma": Family(norm="gemma", scaled_embedding=True, tied=True),
    "gemma2": Family(
        norm="gemma", layer_norms=4, post_norms=True, softcaps=True, scaled_embedding=True, tied=True
    ),
    "gemma3_text": Family(
        norm="gemma", layer_norms=4, post_norms=True, qk_norm="head", scaled_embedding=True, tied=True
    ),
    "phi": Family(
        norm="layer",
        mlp="plain",
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        head_bias=True,
        layer_norms=1,
        parallel=True,
        rotates_by_cat=True,
        names=("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    ),
    "phi3": Family(
        mlp="fused_gated",
        fused_qkv=True,
        rotates_by_cat=True,
        names=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    ),
    "gpt_oss": Family(mlp="experts", qkv_bias=True, out_bias=True, experts_bias=True, sinks=True),
    "olmo2": Family(norm="rms_fp32_weight", qk_norm="full", post_norms=True),
    "gpt_neox": Family(
        norm="layer",
        mlp="plain",
        fused_qkv=True,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        parallel=True,
        rotates_by_cat=True,
        names=_NEOX_NAMES,
    ),
    "falcon": Family(
        norm="layer", mlp="plain", fused_qkv=True, layer_norms=1, parallel=True, tied=True, names=_NEOX_NAMES
    ),
}
"""Read from the modelling code of transformers 5.23 (`models/*/modeling_*.py`)."""
_SAME_AS = {"gemma3": "gemma3_text", "qwen2_5": "qwen2", "mistral3": "mistral"}
_ALIASES = {
    "output_proj": "o_proj",
    "out_proj": "o_proj",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
}
_FUSED_INTO = {
    "q_proj": ("qkv_proj", "query_key_value"),
    "k_proj": ("qkv_proj", "query_key_value"),
    "v_proj": ("qkv_proj", "query_key_value"),
    "gate_proj": ("gate_up_proj", "fc1", "dense_h_to_4h"),
    "up_proj": ("gate_up_proj", "fc1", "dense_h_to_4h"),
    "down_proj": ("fc2", "dense_4h_to_h"),
    "o_proj": ("dense",),
}


class Architecture(NamedTuple):
    """A decoder model by its sizes."""

    name: str
    model_type: str
    family: Family
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    is_tied: bool
    max_positions: int
    sliding_window: int
    num_sliding_layers: int
    num_experts: int
    experts_per_token: int
    expert_size: int
    is_guess: bool

    @property
    def q_size(self) -> int:
        """Width of the queries of one token."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of the keys, or values, of one token."""
        return self.num_kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Linear modules of one layer; fused experts are not among them."""
        family, names = self.family, self.family.names
        hidden, q_size, kv_size = self.hidden_size, self.q_size, self.kv_size
        if family.fused_qkv:
            found = [Linear(names[0], q_size + 2 * kv_size, hidden, family.qkv_bias)]
        else:
            widths = (q_size, kv_size, kv_size)
            found = [
                Linear(name, width, hidden, family.qkv_bias)
                for name, width in zip(names[:3], widths, strict=True)
            ]
        found.append(Linear(names[len(found)], hidden, q_size, family.out_bias))
        rest, ffn = names[len(found) :], self.intermediate_size
        if family.mlp == "gated":
            found += [Linear(name, ffn, hidden, family.mlp_bias) for name in rest[:2]]
        elif family.mlp == "fused_gated":
            found.append(Linear(rest[0], 2 * ffn, hidden, family.mlp_bias))
        elif family.mlp == "plain":
            found.append(Linear(rest[0], ffn, hidden, family.mlp_bias))
        if family.mlp != "experts":
            found.append(Linear(rest[-1], hidden, ffn, family.mlp_bias))
        return tuple(found)

    @property
    def num_expert_weights(self) -> int:
        """Elements of all fused experts of one layer, biases too."""
        if not self.num_experts:
            return 0
        weights = 3 * self.hidden_size * self.expert_size
        biases = 2 * self.expert_size + self.hidden_size if self.family.experts_bias else 0
        return self.num_experts * (weights + biases)

    @property
    def num_router_weights(self) -> int:
        """Elements of the router of one layer."""
        return self.num_experts * (self.hidden_size + (1 if self.family.experts_bias else 0))

    @property
    def num_small_weights(self) -> int:
        """Elements of norms, attention sinks and biases of linears in one layer."""
        norm = self.hidden_size * (2 if self.family.norm == "layer" else 1)
        qk_norm = {"": 0, "head": 2 * self.head_dim, "full": self.q_size + self.kv_size}[self.family.qk_norm]
        biases = sum(linear.out_features for linear in self.linears if linear.has_bias)
        return (
            self.family.layer_norms * norm + qk_norm + biases + (self.num_heads if self.family.sinks else 0)
        )

    @property
    def num_final_norm_weights(self) -> int:
        """Elements of the last norm."""
        return self.hidden_size * (2 if self.family.norm == "layer" else 1)

    @property
    def num_embedding_weights(self) -> int:
        """Elements of the token embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def num_head_weights(self) -> int:
        """Elements of the output head that the embedding does not share."""
        bias = self.vocab_size if self.family.head_bias else 0
        return bias if self.is_tied else self.num_embedding_weights + bias

    @property
    def num_parameters(self) -> int:
        """All parameters; a tied head counts once."""
        layer = sum(linear.num_weights for linear in self.linears) + self.num_small_weights
        layer += self.num_expert_weights + self.num_router_weights
        ends = self.num_embedding_weights + self.num_head_weights + self.num_final_norm_weights
        return self.num_layers * layer + ends

    @property
    def num_active_parameters(self) -> int:
        """Parameters that one token uses: of the experts only those it is sent to."""
        if not self.num_experts:
            return self.num_parameters
        idle = (self.num_experts - self.experts_per_token) * (self.num_expert_weights // self.num_experts)
        return self.num_parameters - self.num_layers * idle


def read_architecture(config: dict[str, Any], name: str) -> Architecture:
    """Read a Hugging Face style configuration.

    Raises:
        InvalidInputError: If a size is missing, out of range or contradicts another.
    """
    config = _text_part(config)
    model_type = str(config.get("model_type", "llama"))
    model_type = _SAME_AS.get(model_type, model_type)
    family = FAMILIES.get(model_type)
    required = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [key for key in required if config.get(key) is None]
    if missing:
        kind = "unknown architecture" if family is None else "incomplete configuration"
        raise InvalidInputError(
            f"config: {kind} {model_type!r}, no {', '.join(missing)}",
            hint=f"Known model types: {', '.join(FAMILIES)}. Others need at least {', '.join(required)}.",
        )
    num_experts = _size(config, ("num_local_experts", "num_experts"), 0, minimum=0)
    if family is None and num_experts:
        raise InvalidInputError(
            f"config.model_type: unknown architecture {model_type!r} with experts",
            hint="Experts are built differently in each family: use `llmops vram trace`.",
        )
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


def resolve_targets(architecture: Architecture, targets: str | list[str]) -> tuple[list[Linear], list[str]]:
    """Return the linears that get an adapter, and remarks about names that were translated.

    Raises:
        InvalidInputError: If a name is not a linear module of the model.
    """
    if targets == "all-linear":
        return list(architecture.linears), []
    wanted = [targets] if isinstance(targets, str) else targets
    by_name = {linear.name: linear for linear in architecture.linears}
    by_name[HEAD_NAME] = Linear(HEAD_NAME, architecture.vocab_size, architecture.hidden_size)
    chosen: dict[str, Linear] = {}
    remarks: list[str] = []
    for name in wanted:
        own = _ALIASES.get(name, name)
        own = own if own in by_name else next((n for n in _FUSED_INTO.get(own, ()) if n in by_name), own)
        if own not in by_name:
            raise InvalidInputError(
                f"target_modules: {architecture.name} has no linear module {name!r}",
                hint=f"Use 'all-linear' or some of: {', '.join(by_name)}.",
            )
        if own != name:
            remarks.append(f"target_modules: {name} is {own} in {architecture.model_type}")
        chosen[own] = by_name[own]
    if not chosen:
        raise InvalidInputError(
            "target_modules: the list is empty", hint="Name at least one module or 'all-linear'."
        )
    return list(chosen.values()), remarks


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config  # pyright: ignore[reportUnknownVariableType]


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
