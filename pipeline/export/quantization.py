"""The GGUF files that the export makes; which type each tensor gets is llama.cpp's policy (``core/gguf_types.py``)."""

from typing import Literal, cast, get_args

Quantization = Literal["f16", "q8_0", "q5_k_m", "q4_k_m"]
QUANTIZATIONS = cast("tuple[Quantization, ...]", get_args(Quantization))
"""From the most exact to the smallest."""
DEFAULT_QUANTIZATIONS: tuple[Quantization, ...] = ("f16", "q8_0", "q4_k_m")

FILE_TYPES: dict[Quantization, str] = {
    "f16": "MOSTLY_F16",
    "q8_0": "MOSTLY_Q8_0",
    "q5_k_m": "MOSTLY_Q5_K_M",
    "q4_k_m": "MOSTLY_Q4_K_M",
}
"""Name in gguf's ``LlamaFileType``, written as ``general.file_type``."""
BITS_PER_WEIGHT: dict[Quantization, float] = {"f16": 16, "q8_0": 8.5, "q5_k_m": 7.1, "q4_k_m": 6.5}
"""Upper estimate for the disk check; q4_k_m is 4.9 in large models, 6.2 where rows fall back."""
