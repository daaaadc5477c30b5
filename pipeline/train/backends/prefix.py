# pyright: basic
"""Shared-prefix batches: what rows of a batch begin with is computed once per step, with gradients.

Rows of a tool-calling set begin with their tools; rows with the same tools form a group. Each group's prefix runs once,
its keys and values are handed to the group's rows, and only the rest of each row runs per row; ``lm_head`` runs on
predicted positions only. Loss and gradients equal those of single rows (tests/integration/test_shared_prefix.py): the
gradient of a prefix is the sum over its rows, by the rules for ``expand`` and ``index_select``.

Positions and masks are made here, from places in the conversation instead of places in the tensor, so that prefixes of
several lengths and sliding windows come out right.

Shape legend: B rows, G prefixes, P prefix tokens, S rest tokens, K keys, H hidden size, N predictions, V vocabulary.
"""

import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from pipeline.rendering.row import IGNORED
from pipeline.train.prefix_groups import PrefixPlan, plan_prefixes

WIDTH_STEP = 8
"""Widths are rounded up to a multiple of this."""
SUPPORTED_MODEL_TYPES = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text"}
)
"""Architectures whose decoder is attention with keys and values per layer, rotary positions, and a plain head."""


def why_not_shared(config: Any, *, gradient_checkpointing: bool) -> str | None:
    """Return why the prefix cannot be shared with a model of this configuration, or None when it can."""
    if config.model_type not in SUPPORTED_MODEL_TYPES:
        return f"it is not written for the architecture {config.model_type}"
    if getattr(config, "use_bidirectional_attention", None):
        return "the model reads in both directions"
    if gradient_checkpointing:
        return "gradient checkpointing keeps no keys and values"
    return None


class PrefixCollator:
    """Make a batch of right-padded rests and, when worth it, the prefixes that rows share."""

    def __init__(self, pad_token_id: int, *, share_prefix: bool) -> None:
        self.pad_token_id = pad_token_id
        self.share_prefix = share_prefix

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate rows with ``input_ids`` and ``labels``: tensors [B, S], ``prefix_ids`` [G, P] and which row has which."""
        ids = [list(feature["input_ids"]) for feature in features]
        labels = [list(feature["labels"]) for feature in features]
        plan = plan_prefixes(ids, prefix_limits(labels)) if self.share_prefix else None
        plan = plan or PrefixPlan(((),), (0,) * len(ids), (0,) * len(ids))
        starts = plan.prefix_lengths
        # A few widths instead of many: oneDNN prepares a kernel for every new matrix shape.
        rests = [len(row) - start for row, start in zip(ids, starts, strict=True)]
        width = -(-max(rests) // WIDTH_STEP) * WIDTH_STEP
        widest_prefix = max(len(prefix) for prefix in plan.prefixes)
        return {
            "input_ids": _pad(
                [row[start:] for row, start in zip(ids, starts, strict=True)], self.pad_token_id, width
            ),
            "labels": _pad([row[start:] for row, start in zip(labels, starts, strict=True)], IGNORED, width),
            "attention_mask": _pad([[1] * rest for rest in rests], 0, width),
            "prefix_ids": _pad(plan.prefixes, self.pad_token_id, widest_prefix),
            "prefix_of_row": torch.tensor(plan.prefix_of_row),
            "prefix_lengths": torch.tensor(starts),
        }


def prefix_limits(labels: Sequence[Sequence[int]]) -> list[int]:
    """Return by row how long its prefix may be.

    One token less than the first label, because the token before a label must stay in the rest to predict it.
    """
    firsts = [next((i for i, label in enumerate(row) if label != IGNORED), len(row)) for row in labels]
    return [max(0, first - 1) for first in firsts]


def predicted_loss(
    causal_model: Any, batch: dict[str, torch.Tensor], ordinary_forward: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross entropy by row [B] of a collated batch and the number of predicted tokens N.

    ``causal_model`` is a Hugging Face ``*ForCausalLM`` (adapters injected in place). Architectures outside
    SUPPORTED_MODEL_TYPES run their own whole forward.
    """
    targets_BS = batch["labels"][:, 1:]
    is_predicted_BS = targets_BS != IGNORED
    if causal_model.config.model_type in SUPPORTED_MODEL_TYPES:
        hidden_BSH = _hidden_states(causal_model.model, batch)
        logits_NV = causal_model.get_output_embeddings()(hidden_BSH[:, :-1][is_predicted_BS])
        if cap := getattr(causal_model.config, "final_logit_softcapping", None):
            logits_NV = torch.tanh(logits_NV / cap) * cap
    else:
        forward = ordinary_forward or causal_model.forward
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits_NV = forward(**inputs, use_cache=False).logits[:, :-1][is_predicted_BS]
    losses_N = nn.functional.cross_entropy(logits_NV.float(), targets_BS[is_predicted_BS], reduction="none")
    rows_N = is_predicted_BS.nonzero()[:, 0]
    return losses_N.new_zeros(len(targets_BS)).index_add(0, rows_N, losses_N), is_predicted_BS.sum()


def install_loss(causal_model: Any, *, autocast: bool) -> None:
    """Make a collated batch the input of the model's own ``forward``, which then returns losses by row and count.

    Through ``forward``, wrappers (PEFT, DDP, FSDP, autocast) do what they do for any model. Without ``autocast`` an
    outer one is switched off: frozen 16-bit weights are in the compute type already.
    """
    ordinary = causal_model.forward

    def forward(_self: Any, *args: Any, **inputs: Any) -> Any:
        if "prefix_ids" not in inputs:
            return ordinary(*args, **inputs)
        device = inputs["input_ids"].device.type
        with torch.autocast(device, enabled=autocast and torch.is_autocast_enabled(device)):
            losses_B, count = predicted_loss(causal_model, inputs, ordinary)
        return {"row_losses": losses_B, "num_predicted": count}

    causal_model.forward = types.MethodType(forward, causal_model)


def _hidden_states(decoder: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    prefix_GP, rest_BS, rest_mask_BS = batch["prefix_ids"], batch["input_ids"], batch["attention_mask"]
    if prefix_GP.shape[1] == 0:
        return decoder(input_ids=rest_BS, attention_mask=rest_mask_BS, use_cache=False).last_hidden_state
    num_prefixes, width = prefix_GP.shape
    places_1P = torch.arange(width, device=rest_BS.device)[None]
    cache = (
        DynamicCache()
    )  # without a configuration every layer keeps all keys, also one with a sliding window
    decoder(
        input_ids=prefix_GP,
        attention_mask=_masks(decoder, places_1P, places_1P, torch.ones_like(places_1P, dtype=torch.bool)),
        position_ids=places_1P,
        past_key_values=cache,
        use_cache=True,
    )
    layers: Any = cache.layers
    for layer in layers:
        layer.keys = _for_rows(layer.keys, batch["prefix_of_row"], num_prefixes)
        layer.values = _for_rows(layer.values, batch["prefix_of_row"], num_prefixes)
    lengths_B1 = batch["prefix_lengths"][:, None]
    places_BS = lengths_B1 + torch.arange(rest_BS.shape[1], device=rest_BS.device)
    places_BK = torch.cat([places_1P.expand(len(rest_BS), -1), places_BS], dim=1)
    is_there_BK = torch.cat([places_1P < lengths_B1, rest_mask_BS.bool()], dim=1)
    return decoder(
        input_ids=rest_BS,
        attention_mask=_masks(decoder, places_BS, places_BK, is_there_BK),
        position_ids=places_BS,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state


def _for_rows(states: torch.Tensor, prefix_of_row: torch.Tensor, num_prefixes: int) -> torch.Tensor:
    if num_prefixes == 1:  # a view; the cache copies it once, when it appends
        return states.expand(len(prefix_of_row), -1, -1, -1)
    return states.index_select(0, prefix_of_row)


def _masks(decoder: Any, queries: torch.Tensor, keys: torch.Tensor, is_there: torch.Tensor) -> Any:
    """Return additive masks [B, 1, S, K] by kind of layer, or one mask where the decoder has one kind only."""
    config = decoder.config
    distance_BSK = queries[:, :, None] - keys[:, None, :]
    may_see_BSK = (distance_BSK >= 0) & is_there[:, None, :]
    dtype = next(decoder.parameters()).dtype

    def additive(allowed: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]

    window: int | None = getattr(config, "sliding_window", None)
    near_BSK = may_see_BSK if window is None else may_see_BSK & (distance_BSK < window)
    if config.model_type in {"llama", "gemma", "mistral"}:
        return additive(near_BSK)
    kinds: set[str] = set(config.layer_types)
    return {kind: additive(near_BSK if kind == "sliding_attention" else may_see_BSK) for kind in kinds}


def _pad(rows: Sequence[Sequence[int]], value: int, width: int) -> torch.Tensor:
    return torch.tensor([[*row, *([value] * (width - len(row)))] for row in rows], dtype=torch.long)
