# pyright: basic
"""The shared-prefix loss is the ordinary loss: same value, same gradients, on several architectures."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from pipeline.rendering.row import IGNORED
from pipeline.train.backends.prefix import PrefixCollator, common_prefix_length, predicted_loss

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def _rows(generator: torch.Generator) -> list[dict[str, list[int]]]:
    shared = torch.randint(0, 96, (20,), generator=generator).tolist()
    rows: list[dict[str, list[int]]] = []
    for length, num_predicted in ((5, 3), (11, 4), (8, 8)):
        tail = torch.randint(0, 96, (length + 1,), generator=generator).tolist()
        labels = [IGNORED] * (20 + 1 + length - num_predicted) + tail[-num_predicted:]
        rows.append({"input_ids": shared + tail, "labels": labels})
    return rows


def _loss_row_by_row(model: Any, rows: list[dict[str, list[int]]]) -> torch.Tensor:
    # Second implementation: transformers' own loss, one unpadded row at a time, summed over predicted tokens.
    total = torch.zeros(())
    for row in rows:
        labels = torch.tensor([row["labels"]])
        count = int((labels[:, 1:] != IGNORED).sum())
        total = total + model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss * count
    return total


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_loss_and_gradients_equal_those_of_single_rows(
    config_class: type[PretrainedConfig], share_prefix: bool
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_class(**SIZES))
    rows = _rows(torch.Generator().manual_seed(1))
    expected = _loss_row_by_row(model, rows)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    batch = PrefixCollator(0, share_prefix=share_prefix)(rows)
    assert batch["prefix_ids"].shape[1] == (20 if share_prefix else 0)
    loss, count = predicted_loss(model, batch)
    loss.backward()
    assert count == 3 + 4 + 8
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_changed_label_changes_the_loss() -> None:
    # Negative control of the test above: it must be able to fail.
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))
    rows = _rows(torch.Generator().manual_seed(1))
    expected = _loss_row_by_row(model, rows)
    rows[0]["labels"][-1] = (rows[0]["labels"][-1] + 1) % 96
    loss, _ = predicted_loss(model, PrefixCollator(0, share_prefix=True)(rows))
    assert abs(float(loss.detach() - expected.detach())) > 1e-3


def test_the_token_before_the_first_label_stays_in_the_suffix() -> None:
    # Rows agree on 6 tokens; token 5 is predicted, so token 4 must predict it: the prefix may hold tokens 0..3 only.
    ids = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]
    labels = [[IGNORED] * 5 + [6], [IGNORED] * 5 + [6]]
    assert common_prefix_length(ids, labels) == 4


def test_rows_that_differ_at_once_share_nothing() -> None:
    assert common_prefix_length([[1, 2, 3], [9, 2, 3]], [[IGNORED, IGNORED, 3]] * 2) == 0
