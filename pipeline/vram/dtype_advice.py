"""Which number formats a device computes in: by compute capability for GPUs, by instruction set for processors.

Knows NVIDIA GPUs and x86 processors. The limits are the libraries' own: bfloat16 and FlashAttention-2 from compute
capability 8.0 (CUDA programming guide; README of flash-attention), LLM.int8 from 7.5 and NF4 from 6.0 (installation
guide of bitsandbytes).
"""

from collections.abc import Collection
from typing import Literal

from pipeline.core.machine import supports_bfloat16
from pipeline.core.operation import Part

ComputeDtype = Literal["bf16", "fp16", "fp32"]
_INT8_CAPABILITY, _NF4_CAPABILITY = (7, 5), (6, 0)
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")


class DtypeAdvice(Part):
    """What one device computes in."""

    device: str
    """Device name."""
    compute_dtype: ComputeDtype
    """Train and serve 16-bit weights in this."""
    quantizations: list[str]
    """What bitsandbytes can load there, beside 16 bit."""
    flash_attention: bool
    """FlashAttention-2 runs there."""
    reason: str
    """Why."""


def advise_gpu(name: str, compute_capability: str) -> DtypeAdvice:
    """Return the number formats of an NVIDIA GPU from its compute capability, such as 7.5 for a T4."""
    has_bfloat16 = supports_bfloat16(compute_capability)
    capability = tuple(int(part) for part in compute_capability.split("."))
    dtype: ComputeDtype = "bf16" if has_bfloat16 else "fp16"
    limits = (("int8", _INT8_CAPABILITY), ("nf4", _NF4_CAPABILITY), ("nf4_dq", _NF4_CAPABILITY))
    why = "has bfloat16" if has_bfloat16 else "is below 8.0: no bfloat16, so float16 with loss scaling"
    return DtypeAdvice(
        device=name,
        compute_dtype=dtype,
        quantizations=[name for name, limit in limits if capability >= limit],
        flash_attention=has_bfloat16,
        reason=f"compute capability {compute_capability} {why}",
    )


def advise_cpu(features: Collection[str]) -> DtypeAdvice:
    """Return the number formats of a processor from its instruction sets."""
    found = [name for name in _CPU_BFLOAT16 if name in features]
    reason = (
        f"has {' and '.join(found)}"
        if found
        else "has no bfloat16 instructions, so bfloat16 would be emulated"
    )
    return DtypeAdvice(
        device="cpu",
        compute_dtype="bf16" if found else "fp32",
        quantizations=[],
        flash_attention=False,
        reason=reason,
    )
