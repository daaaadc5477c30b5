# pyright: basic
"""The shared-prefix loss is the ordinary loss: same value, same gradients, for any groups of rows, on several models.

The reference is always transformers' own loss of one unpadded row at a time. Tolerances: in 32 bits relative 1e-5 for
the loss and 1e-4 (L2) for the gradients; in 16 bits no further from the 32-bit numbers than twice what row-by-row
computing in 16 bits is.
"""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from pipeline.rendering.row import IGNORED
from pipeline.train.backends.fast_layers import fuse_lora, register_attention
from pipeline.train.backends.prefix import (
    PrefixCollator,
    install_loss,
    predicted_loss,
    prefix_limits,
    why_not_shared,
)

pytestmark = pytest.mark.slow

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
# Windows of 12 tokens are shorter than prefix and rest, so that they cut through both.
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=12),
    "gemma": GemmaConfig(**SIZES),
    "gemma2": Gemma2Config(**SIZES, sliding_window=12, query_pre_attn_scalar=8),
    "gemma3": Gemma3TextConfig(
        **{**SIZES, "num_hidden_layers": 6}, sliding_window=12, query_pre_attn_scalar=8
    ),
}
Row = dict[str, list[int]]


class Shape(NamedTuple):
    """One batch: by group its prefix length and by row (rest length, predicted tokens)."""

    groups: list[tuple[int, list[tuple[int, int]]]]
    seed: int


def _make_rows(shape: Shape) -> list[Row]:
    generator = torch.Generator().manual_seed(shape.seed)
    rows: list[Row] = []
    for prefix_length, rests in shape.groups:
        prefix = torch.randint(0, VOCABULARY, (prefix_length,), generator=generator).tolist()
        for length, num_predicted in rests:
            rest = torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
            ids = prefix + rest
            count = min(num_predicted, len(ids) - 1)
            rows.append({"input_ids": ids, "labels": [IGNORED] * (len(ids) - count) + ids[-count:]})
    return rows


_RESTS = st.lists(st.tuples(st.integers(2, 24), st.integers(1, 8)), min_size=1, max_size=3)
SHAPES = st.builds(
    Shape,
    st.lists(st.tuples(st.integers(0, 40), _RESTS), min_size=1, max_size=3),
    st.integers(0, 1000),
)
TWO_GROUPS = Shape([(20, [(5, 3), (11, 4), (9, 8)]), (33, [(9, 2), (4, 3)]), (3, [(30, 5)])], seed=1)


def _model(name: str, *, attention: str = "eager", dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention).to(dtype)


def _row_by_row(model: Any, rows: list[Row]) -> torch.Tensor:
    total = torch.zeros(())
    for row in rows:
        labels = torch.tensor([row["labels"]])
        count = int((labels[:, 1:] != IGNORED).sum())
        total = total + model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss.float() * count
    return total


def _gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.float().clone() for n, p in model.named_parameters() if p.grad is not None}


def _distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Relative L2 distance over all gradients."""
    assert found.keys() == expected.keys()
    apart = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (apart / sum(float(value.square().sum()) for value in expected.values())) ** 0.5


def _with_adapter(model: Any) -> Any:
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at the start: half of the gradients would be zero
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(shape=SHAPES)
def test_loss_and_gradients_equal_those_of_single_rows(name: str, shape: Shape) -> None:
    model, rows = _model(name), _make_rows(shape)
    expected_loss = _row_by_row(model, rows)
    expected = _gradients(model, expected_loss)
    losses, count = predicted_loss(model, PrefixCollator(0, share_prefix=True)(rows))
    loss = losses.sum()
    assert int(count) == sum(label != IGNORED for row in rows for label in row["labels"][1:])
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert _distance(_gradients(model, loss), expected) < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_several_prefixes_in_one_batch_are_each_computed_once(name: str) -> None:
    batch = PrefixCollator(0, share_prefix=True)(_make_rows(TWO_GROUPS))
    # Rows 0-2 share 20 tokens, rows 3-4 share 33; the lone row of 33 tokens hands its own prompt (27 before the
    # token that predicts its first label) to the prefixes, or else every rest would be as wide as it.
    assert batch["prefix_ids"].shape == (3, 33)
    assert batch["prefix_lengths"].tolist() == [20, 20, 20, 33, 33, 27]
    assert len({*batch["prefix_of_row"].tolist()}) == 3
    model = _model(name)
    expected_loss = _row_by_row(model, _make_rows(TWO_GROUPS))
    expected = _gradients(model, expected_loss)
    losses, _ = predicted_loss(model, batch)
    loss = losses.sum()
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert _distance(_gradients(model, loss), expected) < 1e-4


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gemma3"])
@pytest.mark.parametrize("is_lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("attention", ["sdpa", "grouped"])
def test_16_bits_stay_as_close_to_32_bits_as_single_rows_do(name: str, is_lora: bool, attention: str) -> None:
    if attention == "sdpa" and name == "gemma2":
        attention = "eager"  # Gemma 2 caps its scores, which SDPA cannot
    rows = _make_rows(TWO_GROUPS)
    exact = _model(name)
    exact = _with_adapter(exact) if is_lora else exact
    plain, fast = copy.deepcopy(exact).bfloat16(), copy.deepcopy(exact).bfloat16()
    causal = fast.get_base_model() if is_lora else fast
    causal.set_attn_implementation(register_attention() if attention == "grouped" else attention)
    if is_lora and attention == "grouped":
        assert fuse_lora(fast) > 0
    exact_loss, plain_loss = _row_by_row(exact, rows), _row_by_row(plain, rows)
    losses, _ = predicted_loss(causal, PrefixCollator(0, share_prefix=True)(rows))
    loss = losses.sum()
    torch.testing.assert_close(loss, exact_loss, rtol=2**-8, atol=0)
    expected = _gradients(exact, exact_loss)
    plain_distance = _distance(_gradients(plain, plain_loss), expected)
    assert _distance(_gradients(fast, loss), expected) < 2 * plain_distance + 2**-8


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_an_adapter_gets_the_gradients_of_single_rows(name: str) -> None:
    model, rows = _with_adapter(_model(name)), _make_rows(TWO_GROUPS)
    expected_loss = _row_by_row(model, rows)
    expected = _gradients(model, expected_loss)
    losses, _ = predicted_loss(model.get_base_model(), PrefixCollator(0, share_prefix=True)(rows))
    loss = losses.sum()
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert _distance(_gradients(model, loss), expected) < 1e-4


def test_the_installed_loss_reaches_through_peft_and_leaves_the_ordinary_forward() -> None:
    model, rows = _with_adapter(_model("llama")), _make_rows(TWO_GROUPS)
    batch = PrefixCollator(0, share_prefix=True)(rows)
    expected, _ = predicted_loss(model.get_base_model(), batch)
    ids = torch.arange(9)[None]
    logits = model(ids).logits
    install_loss(model.get_base_model(), autocast=False)
    torch.testing.assert_close(model(**batch)["row_losses"], expected)
    torch.testing.assert_close(model(ids).logits, logits)


def test_a_changed_label_changes_the_loss() -> None:
    # Negative control: the tests above must be able to fail.
    model, rows = _model("llama"), _make_rows(TWO_GROUPS)
    expected = _row_by_row(model, rows)
    rows[0]["labels"][-1] = (rows[0]["labels"][-1] + 1) % VOCABULARY
    losses, _ = predicted_loss(model, PrefixCollator(0, share_prefix=True)(rows))
    loss = losses.sum()
    assert abs(float(loss.detach() - expected.detach())) > 1e-3


def test_another_architecture_computes_its_own_forward_and_says_why() -> None:
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4)
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    torch.manual_seed(0)
    model, rows = AutoModelForCausalLM.from_config(config), _make_rows(TWO_GROUPS)
    reason = why_not_shared(config, gradient_checkpointing=False)
    assert reason == "it is not written for the architecture gpt2"
    losses, _ = predicted_loss(model, PrefixCollator(0, share_prefix=False)(rows))
    loss = losses.sum()
    torch.testing.assert_close(loss, _row_by_row(model, rows), rtol=1e-5, atol=1e-5)


def test_the_token_before_the_first_label_stays_with_the_row() -> None:
    # Token 5 is predicted, so token 4 must predict it: the prefix may hold tokens 0..3 only.
    assert prefix_limits([[IGNORED] * 5 + [6], [IGNORED] * 6]) == [4, 5]
