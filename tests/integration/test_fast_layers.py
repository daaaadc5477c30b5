# pyright: basic
"""The CPU kernels compute what transformers' SDPA and PEFT compute, forward and backward."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from pipeline.train.backends.fast_layers import fuse_lora, keep_activations_in, register_attention

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def _lora_model(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start: all its gradients' effects would be hidden
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def _loss_and_gradients(
    model: Any, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = model(**batch, labels=batch["input_ids"]).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen3Config])
def test_fused_lora_and_grouped_attention_give_the_same_loss_and_gradients(
    config_class: type[PretrainedConfig],
) -> None:
    reference = _lora_model(config_class(**{**SIZES, "attn_implementation": "sdpa"}))
    fast = copy.deepcopy(reference)
    fast.get_base_model().set_attn_implementation(register_attention())
    assert fuse_lora(fast) == 2 * 7
    batch = {
        "input_ids": torch.randint(0, 64, (3, 11), generator=torch.Generator().manual_seed(3)),
        "attention_mask": torch.tensor([[1] * 11, [1] * 8 + [0] * 3, [1] * 5 + [0] * 6]),
    }
    expected_loss, expected = _loss_and_gradients(reference, batch)
    loss, gradients = _loss_and_gradients(fast, batch)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == expected.keys()
    assert len(expected) == 2 * 7 * 2
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_a_disabled_adapter_gives_the_base_model_back() -> None:
    model = _lora_model(LlamaConfig(**SIZES))
    ids = torch.arange(9)[None]
    with model.disable_adapter():
        expected = model(ids).logits
        fuse_lora(model)
        torch.testing.assert_close(model(ids).logits, expected)
    assert not torch.allclose(model(ids).logits, expected)


def test_layers_with_dropout_keep_pefts_forward() -> None:
    base = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))
    model = get_peft_model(base, LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear"))
    assert fuse_lora(model) == 0


def _error(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Relative L2 distance over all gradients."""
    apart = sum(float((gradients[name] - expected[name]).square().sum()) for name in expected)
    return (apart / sum(float(value.square().sum()) for value in expected.values())) ** 0.5


def test_full_fine_tuning_in_16_bits_is_as_close_to_32_bits_as_plain_autocast_is() -> None:
    torch.manual_seed(0)
    exact = AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZES, "attn_implementation": "sdpa"}))
    plain, fast = copy.deepcopy(exact), copy.deepcopy(exact)
    fast.set_attn_implementation(register_attention())
    keep_activations_in(fast, torch.bfloat16)
    streams: list[torch.dtype] = []
    fast.model.layers[1].register_forward_pre_hook(lambda _module, inputs: streams.append(inputs[0].dtype))
    batch = {"input_ids": torch.randint(0, 64, (4, 24), generator=torch.Generator().manual_seed(3))}
    loss, expected = _loss_and_gradients(exact, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain_loss, plain_gradients = _loss_and_gradients(plain, batch)
        fast_loss, fast_gradients = _loss_and_gradients(fast, batch)
    assert streams == [torch.bfloat16]
    assert all(gradient.dtype is torch.float32 for gradient in fast_gradients.values())
    assert fast_gradients.keys() == expected.keys()
    # bfloat16 has 8 significant bits: 2^-8 a rounding.
    torch.testing.assert_close(fast_loss.float(), loss, rtol=2**-8, atol=0)
    torch.testing.assert_close(plain_loss.float(), loss, rtol=2**-8, atol=0)
    assert _error(fast_gradients, expected) < 2 * _error(plain_gradients, expected) + 2**-8
