# pyright: basic
"""Shared-prefix batches: what all rows of a batch begin with is computed once per step, with gradients.

All rows of a tool-calling set begin with the same tools text. The prefix runs once, its keys and values are expanded
over the batch, and only the rest of each row runs per row; ``lm_head`` runs on predicted positions only. Loss and
gradients equal those of ordinary padded batches (tests/integration/test_shared_prefix.py). The gradient of the prefix
is the sum over the rows, by the rule for ``expand``.

Shape legend: B rows, P prefix tokens, S suffix tokens, H hidden size, N predicted positions, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from pipeline.rendering.row import IGNORED

MIN_PREFIX_TOKENS = 16
"""Below this the second pass costs more than it saves."""
WIDTH_STEP = 8
"""Suffix widths are rounded up to a multiple of this."""
SUPPORTED_MODEL_TYPES = frozenset({"llama", "qwen2", "qwen3", "smollm3"})
"""Architectures whose cache is plain full attention in every layer."""


class PrefixCollator:
    """Make a batch of right-padded suffixes and, when worth it, one shared prefix."""

    def __init__(self, pad_token_id: int, *, share_prefix: bool) -> None:
        self.pad_token_id = pad_token_id
        self.share_prefix = share_prefix

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate rows with ``input_ids`` and ``labels`` into tensors of shape [B, S] plus ``prefix_ids`` [1, P]."""
        ids = [list(feature["input_ids"]) for feature in features]
        labels = [list(feature["labels"]) for feature in features]
        prefix_length = common_prefix_length(ids, labels) if self.share_prefix else 0
        if prefix_length < MIN_PREFIX_TOKENS:
            prefix_length = 0
        # A few widths instead of many: oneDNN prepares a kernel for every new matrix shape.
        width = -(-(max(len(row) for row in ids) - prefix_length) // WIDTH_STEP) * WIDTH_STEP
        return {
            "prefix_ids": torch.tensor([ids[0][:prefix_length]], dtype=torch.long),
            "input_ids": _pad([row[prefix_length:] for row in ids], self.pad_token_id, width),
            "labels": _pad([row[prefix_length:] for row in labels], IGNORED, width),
            "attention_mask": _pad([[1] * (len(row) - prefix_length) for row in ids], 0, width),
        }


def common_prefix_length(ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all rows share before anything is predicted.

    One token less than the first label, because the token before a label must stay in the suffix to predict it.
    """
    first_label = min(
        next((i for i, label in enumerate(row) if label != IGNORED), len(row)) for row in labels
    )
    limit = max(0, min(first_label - 1, *(len(row) - 1 for row in ids)))
    for position in range(limit):
        token = ids[0][position]
        if any(row[position] != token for row in ids):
            return position
    return limit


def predicted_loss(causal_model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Return the summed cross entropy of a collated batch and the number of predicted tokens N.

    ``causal_model`` is a Hugging Face ``*ForCausalLM`` (adapters injected in place).
    """
    hidden_BSH = _hidden_states(causal_model.model, batch)
    targets_BS = batch["labels"][:, 1:]
    is_predicted_BS = targets_BS != IGNORED
    hidden_NH = hidden_BSH[:, :-1][is_predicted_BS]
    logits_NV = causal_model.get_output_embeddings()(hidden_NH)
    loss = nn.functional.cross_entropy(logits_NV.float(), targets_BS[is_predicted_BS], reduction="sum")
    return loss, int(is_predicted_BS.sum())


def _hidden_states(decoder: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    prefix_1P, suffix_BS, mask_BS = batch["prefix_ids"], batch["input_ids"], batch["attention_mask"]
    num_rows, width = suffix_BS.shape
    prefix_length = prefix_1P.shape[1]
    if prefix_length == 0:
        return decoder(input_ids=suffix_BS, attention_mask=mask_BS, use_cache=False).last_hidden_state
    cache = DynamicCache(config=decoder.config)
    decoder(input_ids=prefix_1P, past_key_values=cache, use_cache=True)
    layers: Any = cache.layers
    for layer in layers:
        layer.keys = layer.keys.expand(num_rows, -1, -1, -1)
        layer.values = layer.values.expand(num_rows, -1, -1, -1)
    positions_1S = torch.arange(prefix_length, prefix_length + width, device=suffix_BS.device)[None]
    return decoder(
        input_ids=suffix_BS,
        attention_mask=torch.cat([mask_BS.new_ones(num_rows, prefix_length), mask_BS], dim=1),
        position_ids=positions_1S,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state


def _pad(rows: Sequence[Sequence[int]], value: int, width: int) -> torch.Tensor:
    return torch.tensor([[*row, *([value] * (width - len(row)))] for row in rows], dtype=torch.long)
