"""A training set-up with every choice made: what the tapes of layers and losses read."""

from typing import Literal, NamedTuple

from pipeline.vram.architecture import Architecture
from pipeline.vram.weight_bytes import Quantization

Attention = Literal["flash", "efficient", "eager"]
Loss = Literal["standard", "chunked", "fused"]
Stack = Literal["peft", "trainer", "unsloth", "litgpt", "torchtune"]


class Recipe(NamedTuple):
    """One micro batch of training on one device, with nothing left to defaults."""

    model: Architecture
    stack: Stack
    is_full: bool
    """All weights train; else only LoRA matrices."""
    quantization: Quantization
    target_names: tuple[str, ...]
    rank: int
    has_dropout: bool
    batch: int
    length: int
    dtype_bytes: int
    """Of weights that are not quantised."""
    adapter_bytes: int
    """Of a LoRA parameter."""
    activation_bytes: int
    """Of what linears put out."""
    stream_bytes: int
    """Of the residual stream."""
    is_autocast: bool
    """Matrix products run in 16 bit on weights or adapters kept in 32."""
    attention: Attention
    expands_kv: bool
    """Keys and values are repeated for all query heads before attention."""
    keeps_quantized_input: bool
    """A 4-bit linear keeps its input for the backward pass (bitsandbytes before 0.43.2)."""
    keeps_outputs: bool
    """The logits stay alive during the backward pass."""
    loss: Loss
    rest_bytes: int
    """Of embedding, head and norms."""
    quantized_head: bool

    @property
    def tokens(self) -> int:
        """Tokens of one micro batch."""
        return self.batch * self.length

    @property
    def is_quantized(self) -> bool:
        """Linears are dequantised for each product."""
        return self.quantization != "none"
