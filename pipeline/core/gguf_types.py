"""Which GGUF type each tensor gets, and how many bytes that takes: llama.cpp's own policy.

The rules are those of ``src/llama-quant.cpp`` at ggml-org/llama.cpp@007dbbf without an importance matrix, the block
sizes those of ``ggml/src/ggml-common.h`` there. Shared by the export, which writes such files, and by the size table,
which predicts them. Left out: Falcon, and MXFP4 experts.
"""

import math
from collections.abc import Mapping
from typing import Literal

FileType = Literal["f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]
TensorType = Literal["F32", "F16", "Q8_0", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]

_BLOCKS: dict[TensorType, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "Q8_0": (32, 34),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
"""Values in a block, and its bytes."""
_DEFAULTS: dict[FileType, TensorType] = {"q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k_m": "Q5_K", "q4_k_m": "Q4_K"}
_FALLBACK: dict[TensorType, TensorType] = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_MIXED: tuple[FileType, ...] = ("q4_k_m", "q5_k_m")
_LAYERS_OF_70B = 80
_MIXTRAL_EXPERTS = 8


def plan_types(
    shapes: Mapping[str, tuple[int, ...]], file_type: FileType, num_layers: int, num_experts: int = 0
) -> dict[str, TensorType]:
    """Return the type of each GGUF tensor; ``shapes`` are [rows, columns] by llama.cpp tensor name."""
    tied = "output.weight" not in shapes
    plan: dict[str, TensorType] = {}
    for name, shape in shapes.items():
        # Expert routers are never quantised, and the converter writes them in 32 bits.
        if len(shape) < 2 or "ffn_gate_inp" in name:
            plan[name] = "F32"
        elif file_type == "f16":
            plan[name] = "F16"
        elif name == "output.weight" or (tied and name == "token_embd.weight"):
            plan[name] = _output_type(file_type, shape[-1])
        else:
            wanted = _layer_type(name, file_type, num_layers, num_experts)
            plan[name] = _fit_to_row(wanted, shape[-1])
    return plan


def tensor_bytes(shape: tuple[int, ...], kind: TensorType) -> int:
    """Return the bytes of one tensor, which are whole blocks along its rows."""
    block_values, block_bytes = _BLOCKS[kind]
    return math.prod(shape) // block_values * block_bytes


def _output_type(file_type: FileType, num_columns: int) -> TensorType:
    # The output matrix skips the fallback table: it goes straight to Q8_0 when a block does not fit.
    kind = _DEFAULTS[file_type] if num_columns % _BLOCKS[_DEFAULTS[file_type]][0] == 0 else "Q8_0"
    return _fit_to_row(kind if kind == "Q8_0" else "Q6_K", num_columns)


def _layer_type(name: str, file_type: FileType, num_layers: int, num_experts: int) -> TensorType:
    kind = _DEFAULTS[file_type]
    is_value = "attn_v." in name or "attn_qkv." in name
    if (is_value or "ffn_down" in name) and file_type in _MIXED:
        kind = "Q6_K" if _use_more_bits(int(name.split(".")[1]), num_layers) else kind
    if is_value and num_layers == _LAYERS_OF_70B and kind == "Q4_K":
        kind = "Q5_K"  # eight heads share it, so it is small
    if num_experts == _MIXTRAL_EXPERTS:
        if is_value or "attn_k." in name:
            return "Q8_0"
        if "attn_output." in name and file_type == "q4_k_m":
            return "Q5_K"
    return kind


def _use_more_bits(layer: int, num_layers: int) -> bool:
    first = num_layers // 8
    return layer < first or layer >= 7 * num_layers // 8 or (layer - first) % 3 == 2


def _fit_to_row(wanted: TensorType, num_columns: int) -> TensorType:
    if num_columns % _BLOCKS[wanted][0] != 0:
        wanted = _FALLBACK.get(wanted, wanted)
    return "F16" if num_columns % _BLOCKS[wanted][0] != 0 else wanted
