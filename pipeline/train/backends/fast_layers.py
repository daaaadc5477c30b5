# pyright: basic
"""CPU kernels in plain PyTorch that make training about twice as fast with the same mathematics.

*Attention*: PyTorch's CPU flash kernel spends most of its time in the backward pass; two batched matrix products per
group of query heads take a third of it (docs/experiments.md), and keys are not repeated per query head.
*LoRA linear*: the adapter's update is added inside the matrix product, forward and backward, instead of through five
element-wise passes over activations.

Equality with transformers' SDPA and PEFT's own forward is tested in tests/integration/test_fast_layers.py. Used on
CPU only; GPUs keep their fused kernels.

Shape legend: B rows, H query heads, G key-value heads, R = H / G, S queries, K keys, D head size; N tokens (all
leading axes flattened), I inputs, O outputs, r rank.
"""

import ctypes
import sys
import types
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

ATTENTION_NAME = "llmops_grouped"
_M_MMAP_THRESHOLD = -3  # glibc, malloc.h


def grouped_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of [B, H, S, D] queries over [B, G, K, D] keys; returns [B, S, H, D] and no weights.

    ``attention_mask`` is additive, [B or 1, 1, S, K]. Gemma 2 caps its scores. Dropout is not supported, as LoRA recipes
    do not use it here.
    """
    device = query.device.type
    if torch.is_autocast_enabled(device):
        # Autocast would compute and keep the softmax in 32 bits: 1.5 GB more for the longest batch (docs/experiments.md).
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        attention_mask = None if attention_mask is None else attention_mask.to(dtype)
    with torch.autocast(device, enabled=False):
        return _attend(query, key, value, attention_mask, (scaling, options.get("softcap"))), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scale_and_cap: tuple[float | None, float | None],
) -> torch.Tensor:
    scaling, softcap = scale_and_cap
    num_rows, num_heads, num_queries, head_size = query.shape
    num_groups, num_keys = key.shape[1], key.shape[2]
    repeats = num_heads // num_groups
    factor = head_size**-0.5 if scaling is None else scaling
    query_BGMD = (query * factor).reshape(num_rows, num_groups, repeats * num_queries, head_size)
    scores = (query_BGMD @ key.transpose(2, 3)).view(num_rows, num_groups, repeats, num_queries, num_keys)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None]
    weights = torch.softmax(scores, dim=-1, dtype=scores.dtype)
    mixed_BGMD = weights.view(num_rows, num_groups, repeats * num_queries, num_keys) @ value
    output_BHSD = mixed_BGMD.view(num_rows, num_heads, num_queries, head_size)
    return output_BHSD.transpose(1, 2).contiguous()


def register_attention() -> str:
    """Make the attention known to transformers and return its name for ``attn_implementation``."""
    AttentionInterface.register(ATTENTION_NAME, grouped_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, eager_mask)
    return ATTENTION_NAME


def keep_activations_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the residual stream of a model with 32-bit weights in the compute type.

    Under autocast only matrix products run in 16 bits: the embedding and every norm put the stream back into 32, which
    doubles what is kept for the backward pass. A LoRA model, whose frozen weights are 16-bit, has a 16-bit stream anyway.
    """

    def cast(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.to(dtype)

    for module in model.modules():
        if isinstance(module, nn.Embedding) or type(module).__name__.endswith("RMSNorm"):
            module.register_forward_hook(cast)


def map_large_blocks(dtype: torch.dtype) -> None:
    """Make glibc give tensors over 2 million numbers back to the system as soon as they are freed; elsewhere does nothing.

    By default its threshold grows with what is freed, up to 32 MB, and batches of many lengths then leave holes: a run of
    300 steps grew from 8.5 to 11.3 GB. A threshold of 4 MB cost no measurable time in 16 bits (docs/experiments.md), but
    some in 32, where the same tensors are twice as large: so it is counted in numbers of ``dtype``, the compute type
    (decision 0095).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2_000_000 * dtype.itemsize)


class _LoraProduct(torch.autograd.Function):
    """y = x W^T + scale (x A^T) B^T, with the gradients of x, A and B; W is frozen."""

    @staticmethod
    def forward(ctx, x_NI, weight_OI, a_rI, b_Or, scale):  # noqa: ANN001, ANN205
        u_Nr = x_NI @ a_rI.T
        y_NO = x_NI @ weight_OI.T
        y_NO.addmm_(u_Nr, b_Or.T, alpha=scale)
        ctx.save_for_backward(x_NI, weight_OI, a_rI, b_Or, u_Nr)
        ctx.scale = scale
        return y_NO

    @staticmethod
    def backward(ctx, grad_NO):  # noqa: ANN001, ANN205
        x_NI, weight_OI, a_rI, b_Or, u_Nr = ctx.saved_tensors
        v_Nr = grad_NO @ b_Or
        grad_x_NI = None
        if ctx.needs_input_grad[0]:
            grad_x_NI = grad_NO @ weight_OI
            grad_x_NI.addmm_(v_Nr, a_rI, alpha=ctx.scale)
        return grad_x_NI, None, (v_Nr.T @ x_NI) * ctx.scale, (grad_NO.T @ u_Nr) * ctx.scale, None


def _fused_forward(self: LoraLinear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
        return LoraLinear.forward(self, x, *args, **kwargs)
    name = self.active_adapters[0]
    weight_OI: Any = self.base_layer.weight
    # The type of the product is the base weight's: the adapter's 32-bit master weights are rounded once per call.
    dtype: torch.dtype = weight_OI.dtype
    a_rI, b_Or = self.lora_A[name].weight.to(dtype), self.lora_B[name].weight.to(dtype)
    flat = x.reshape(-1, x.shape[-1]).to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        y_NO = _LoraProduct.apply(flat, weight_OI, a_rI, b_Or, self.scaling[name])
    return y_NO.view(*x.shape[:-1], y_NO.shape[-1])


def fuse_lora(model: nn.Module) -> int:
    """Give every plain LoRA linear of a model the fused product; return how many.

    Layers with bias, dropout, DoRA or quantised weights keep PEFT's forward.
    """
    count = 0
    for module in model.modules():
        if isinstance(module, LoraLinear) and _is_plain(module):
            module.forward = types.MethodType(_fused_forward, module)
            count += 1
    return count


def _is_plain(module: LoraLinear) -> bool:
    base = module.base_layer
    dropout = any(not isinstance(layer, nn.Identity) for layer in module.lora_dropout.values())
    bias = any(layer.bias is not None for layer in module.lora_B.values())
    variant = any(module.use_dora.values())
    return type(base) is nn.Linear and base.bias is None and not (dropout or bias or variant)
