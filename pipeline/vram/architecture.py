"""What a decoder model is made of: shapes, norms, attention and MLP kind, and the counts that follow from them.

Holds the families it knows; ``model_config.py`` reads a configuration into it. Holds no weights, imports no library.
"""

from typing import Literal, NamedTuple

Norm = Literal["rms", "rms_fp32_weight", "gemma", "layer"]
Mlp = Literal["gated", "fused_gated", "plain", "experts"]

HEAD_NAME = "lm_head"


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
