"""Memory of serving on one device: weights, key-value cache, and what the prompt needs on its way through.

Counts one engine that loads everything. vLLM reserves a share of the device whatever the model needs, which is a
setting and not counted here.
"""

from typing import Any, NamedTuple

from pipeline.vram.architecture import Architecture
from pipeline.vram.plan import STACKS, default_dtype, quantization_of
from pipeline.vram.registry import Gpu
from pipeline.vram.weight_bytes import DTYPE_BYTES, weight_bytes

CACHE_BITS: dict[str, float] = {"16bit": 16, "q8_0": 8.5, "fp8": 8, "q4_0": 4.5}
"""Bits of a cached value; q8_0 and q4_0 are llama.cpp's blocks of 32 with a 16-bit scale."""
_PROMPT_CHUNK = 512
"""Tokens that llama.cpp takes through the model at once (`--ubatch-size`)."""


class Serving(NamedTuple):
    """Bytes by part."""

    weights: int
    cache: int
    working: int
    """Prompt tokens on their way through a layer, their logits, a weight dequantised for the moment."""


def cache_bytes(model: Architecture, tokens: int, batch: int, bits: float) -> int:
    """Return the bytes of the key-value cache; layers with a sliding window keep no more than the window."""
    full = model.num_layers - model.num_sliding_layers
    windowed = min(tokens, model.sliding_window or tokens)
    positions = full * tokens + model.num_sliding_layers * windowed
    return int(2 * model.kv_size * batch * positions * bits / 8)


def measure_serving(request: Any, model: Architecture, gpu: Gpu | None) -> Serving:
    """Return the bytes of serving a model with a full context."""
    width = DTYPE_BYTES[request.dtype or default_dtype(gpu)]
    stack = STACKS[request.stack]
    quantization = quantization_of(request)
    quantized = quantization != "none"
    quantized_head = quantized and stack.quantized_head
    model = model._replace(is_tied=model.is_tied and not stack.unties_head)
    cache = cache_bytes(model, request.max_length, request.micro_batch_size, CACHE_BITS[request.kv_cache])
    if request.gguf:
        from pipeline.vram.gguf_bytes import gguf_bytes

        tokens = min(_PROMPT_CHUNK, request.max_length)
        working = 4 * tokens * (model.vocab_size + 3 * max(model.intermediate_size, model.hidden_size))
        return Serving(gguf_bytes(model, request.gguf), cache, working)
    weights = weight_bytes(model, quantization, width, quantized_head=quantized_head).total
    tokens = request.max_length * request.micro_batch_size
    inner = model.expert_size * model.experts_per_token if model.num_experts else model.intermediate_size
    # The widest moment of a layer: residual stream, its norm in fp32, and gate, up and product of the MLP.
    layer = tokens * (2 * width * model.hidden_size + 4 * model.hidden_size + 3 * width * inner)
    is_litgpt = request.stack == "litgpt"
    rows = tokens if is_litgpt else request.micro_batch_size  # LitGPT makes logits of the whole prompt
    logits = rows * model.vocab_size * (width + 4)
    largest = max(linear.num_weights for linear in model.linears)
    # A quantised weight is unpacked for the prompt; LitGPT's bitsandbytes does it by way of fp16.
    unpacked = (4 if stack.keeps_quantized_input else 2) * (
        max(largest, model.num_embedding_weights if quantized_head else 0) if quantized else 0
    )
    return Serving(weights, cache, max(layer, logits) + unpacked)
