"""Which GGUF type each tensor gets: llama.cpp's own policy, so that our files are what `llama-quantize` would make.

The rules are those of ``src/llama-quant.cpp`` at ggml-org/llama.cpp@007dbbf for dense Llama models without an
importance matrix. Left out: expert models and the special case for 70B (80 layers, ``attn_v`` one step up).
"""

from collections.abc import Mapping
from typing import Literal, cast, get_args

Quantization = Literal["f16", "q8_0", "q4_k_m"]
QUANTIZATIONS = cast("tuple[Quantization, ...]", get_args(Quantization))
TensorType = Literal["F32", "F16", "Q8_0", "Q5_0", "Q4_K", "Q6_K"]

FILE_TYPES: dict[Quantization, str] = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_k_m": "MOSTLY_Q4_K_M"}
"""Name in gguf's ``LlamaFileType``, written as ``general.file_type``."""
BITS_PER_WEIGHT: dict[Quantization, float] = {"f16": 16, "q8_0": 8.5, "q4_k_m": 6.5}
"""Upper estimate for the disk check; q4_k_m is 4.9 in large models, 6.2 where rows fall back."""

_K_BLOCK, _SMALL_BLOCK = 256, 32
_FALLBACK: dict[TensorType, TensorType] = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}


def plan_types(
    shapes: Mapping[str, tuple[int, ...]], quantization: Quantization, num_layers: int
) -> dict[str, TensorType]:
    """Return the type of each GGUF tensor; ``shapes`` are [rows, columns] by llama.cpp tensor name."""
    tied = "output.weight" not in shapes
    plan: dict[str, TensorType] = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            plan[name] = "F32"
        elif quantization == "f16":
            plan[name] = "F16"
        else:
            wanted = (
                "Q8_0" if quantization == "q8_0" else _q4_k_m_type(name, shape[-1], num_layers, tied=tied)
            )
            plan[name] = _fit_to_row(wanted, shape[-1])
    return plan


def _q4_k_m_type(name: str, num_columns: int, num_layers: int, *, tied: bool) -> TensorType:
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        # The output matrix skips the fallback table: it goes straight to Q8_0 when a K-block does not fit.
        return "Q6_K" if num_columns % _K_BLOCK == 0 else "Q8_0"
    if "attn_v." in name or "ffn_down." in name:
        return "Q6_K" if _use_more_bits(int(name.split(".")[1]), num_layers) else "Q4_K"
    return "Q4_K"


def _use_more_bits(layer: int, num_layers: int) -> bool:
    first = num_layers // 8
    return layer < first or layer >= 7 * num_layers // 8 or (layer - first) % 3 == 2


def _fit_to_row(wanted: TensorType, num_columns: int) -> TensorType:
    if wanted in _FALLBACK and num_columns % _K_BLOCK != 0:
        wanted = _FALLBACK[wanted]
    return "F16" if num_columns % _SMALL_BLOCK != 0 else wanted
