"""Bytes of a model's tensors in a GGUF file: the sum over its tensors, each in whole blocks of its own type.

Not counted: what the file holds besides, which is the vocabulary (a few MB), and a few hundred bytes of rotary factors.
"""

from pipeline.core.gguf_types import FileType, plan_types, tensor_bytes
from pipeline.vram.architecture import Architecture

_NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "qkv_proj": "attn_qkv",
    "o_proj": "attn_output",
    "dense": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "gate_up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "fc1": "ffn_up",
    "fc2": "ffn_down",
}
_SMALL_BYTES = 4  # norms, biases and routers stay in 32 bits
# Falcon and gpt-oss have rules of their own in llama.cpp; NeoX models do not appear in the size table.
_WITHOUT_RULES = frozenset({"falcon", "gpt_neox", "gpt_oss"})


def has_gguf_rules(model: Architecture) -> bool:
    """True when llama.cpp's policy for this model type is known here."""
    return not model.is_guess and model.model_type not in _WITHOUT_RULES


def gguf_bytes(model: Architecture, file_type: FileType) -> int:
    """Return the bytes of all tensors of a model in that file type."""
    shapes = _list_shapes(model)
    plan = plan_types(shapes, file_type, model.num_layers, model.num_experts)
    matrices = sum(tensor_bytes(shape, plan[name]) for name, shape in shapes.items())
    head_bias = model.vocab_size if model.family.head_bias else 0
    small = model.num_layers * model.num_small_weights + model.num_final_norm_weights + head_bias
    return matrices + small * _SMALL_BYTES


def _list_shapes(model: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all matrices by llama.cpp's names."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (model.vocab_size, model.hidden_size)}
    if not model.is_tied:
        shapes["output.weight"] = (model.vocab_size, model.hidden_size)
    experts, hidden, inner = model.num_experts, model.hidden_size, model.expert_size
    for layer in range(model.num_layers):
        block = f"blk.{layer}."
        for linear in model.linears:
            shapes[f"{block}{_NAMES[linear.name]}.weight"] = (linear.out_features, linear.in_features)
        if experts:
            shapes[f"{block}ffn_gate_inp.weight"] = (experts, hidden)
            shapes[f"{block}ffn_gate_exps.weight"] = (experts, inner, hidden)
            shapes[f"{block}ffn_up_exps.weight"] = (experts, inner, hidden)
            shapes[f"{block}ffn_down_exps.weight"] = (experts, hidden, inner)
    return shapes
