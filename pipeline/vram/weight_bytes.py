"""Exact bytes of weights as they lie in GPU memory: 32 and 16 bit, LLM.int8, NF4 with and without double quantisation.

The 4-bit layout is that of bitsandbytes (``functional.py``, ``quantize_4bit``): blocks of 64 values share one scale,
and double quantisation stores the scales in 8 bits, 256 of them sharing one more. A test compares with the library.
"""

from typing import Literal, NamedTuple

from pipeline.vram.architecture import HEAD_NAME, Architecture

Quantization = Literal["none", "nf4", "nf4_dq", "int8"]
Dtype = Literal["fp32", "bf16", "fp16"]

DTYPE_BYTES: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
_BLOCK, _SCALE_BLOCK = 64, 256
_CODE_BYTES = 16 * 4
"""The table of the 16 values of NF4, one for each tensor."""
_SCALE_CODE_BYTES, _OFFSET_BYTES = 256 * 4, 4


class WeightBytes(NamedTuple):
    """Base weights on the device, by part."""

    linears: int
    experts: int
    embedding: int
    head: int
    small: int
    """Norms, biases, routers, attention sinks."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def matrix_bytes(num_weights: int, rows: int, quantization: Quantization, dtype_bytes: int) -> int:
    """Return the bytes of one linear module's matrix."""
    if quantization == "none":
        return num_weights * dtype_bytes
    if quantization == "int8":
        return num_weights + 4 * rows  # one fp32 scale a row (LLM.int8, arXiv:2208.07339)
    blocks = -(-num_weights // _BLOCK)
    packed = -(-num_weights // 2)
    if quantization == "nf4":
        return packed + 4 * blocks + _CODE_BYTES
    return packed + blocks + 4 * -(-blocks // _SCALE_BLOCK) + _SCALE_CODE_BYTES + _CODE_BYTES + _OFFSET_BYTES


def weight_bytes(
    model: Architecture,
    quantization: Quantization,
    dtype_bytes: int,
    *,
    rest_bytes: int = 0,
    quantized_head: bool = False,
) -> WeightBytes:
    """Return the bytes of all base weights.

    Args:
        model: What it is made of.
        quantization: Of the linear modules; embedding, head, norms, biases and fused experts keep their type.
        dtype_bytes: Of a weight that is not quantised.
        rest_bytes: Of embedding, head, norms and biases when they were converted to another type; 0 for the same.
        quantized_head: The output head is quantised like the other linears (LitGPT).
    """
    rest = rest_bytes or dtype_bytes
    linears = sum(
        matrix_bytes(linear.num_weights, linear.out_features, quantization, dtype_bytes)
        for linear in model.linears
    )
    head = model.num_head_weights * rest
    if quantized_head and not model.is_tied:
        head = matrix_bytes(model.num_embedding_weights, model.vocab_size, quantization, dtype_bytes)
        head += (model.vocab_size if model.family.head_bias else 0) * rest
    small = (
        model.num_layers * (model.num_small_weights + model.num_router_weights) + model.num_final_norm_weights
    )
    return WeightBytes(
        linears=model.num_layers * linears,
        experts=model.num_layers * model.num_expert_weights * dtype_bytes,
        embedding=model.num_embedding_weights * rest,
        head=head,
        small=small * rest,
    )


def adapter_parameters(model: Architecture, target_names: tuple[str, ...], rank: int) -> int:
    """Return the parameters of LoRA matrices of that rank on those linears, all layers and the head."""
    widths = sum(
        linear.in_features + linear.out_features for linear in model.linears if linear.name in target_names
    )
    head = model.vocab_size + model.hidden_size if HEAD_NAME in target_names else 0
    return rank * (model.num_layers * widths + head)
