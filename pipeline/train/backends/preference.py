# pyright: basic
"""DPO (arXiv:2305.18290) in our trainer: chosen and rejected share their whole prompt, so the prefix is computed once.

The reference model is the base without its adapter, so that no second model is loaded. The loss equals TRL's
DPOTrainer with ``loss_type="sigmoid"`` (tests/integration/test_train_dpo.py).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline.train.backends.prefix import PrefixCollator
from pipeline.train.backends.trainer import PrefixTrainer


class PairCollator(PrefixCollator):
    """Make a batch whose even rows are chosen and whose odd rows are the rejected ones beside them."""

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate pairs as ``PrefixCollator`` does rows."""
        rows: list[dict[str, Any]] = []
        for feature in features:
            rows.append({"input_ids": feature["input_ids"], "labels": feature["labels"]})
            rows.append({"input_ids": feature["rejected_ids"], "labels": feature["rejected_labels"]})
        return super().__call__(rows)


class PreferenceTrainer(PrefixTrainer):
    """PrefixTrainer with the DPO loss over pairs."""

    beta: float
    """Strength of the pull towards the reference."""

    def sum_losses(self, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the DPO loss summed over pairs, and the number of pairs."""
        adapted: Any = self.accelerator.unwrap_model(model)
        with torch.no_grad(), adapted.disable_adapter():
            reference_P = _margins(adapted(**inputs)["row_losses"])
        margins_P = self.beta * (_margins(model(**inputs)["row_losses"]) - reference_P)
        mode = "train" if model.training else "eval"
        self._metrics[mode]["rewards/accuracies"].append((margins_P > 0).float().mean().item())
        self._metrics[mode]["rewards/margins"].append(margins_P.mean().item())
        return -nn.functional.logsigmoid(margins_P).sum(), torch.tensor(
            len(margins_P), device=margins_P.device
        )

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        count = torch.tensor(sum(len(batch["input_ids"]) // 2 for batch in batch_samples), device=device)
        if self.accelerator.num_processes == 1:
            return count
        gathered: Any = self.accelerator.gather(count)
        return gathered.sum()


def _margins(row_losses_B: torch.Tensor) -> torch.Tensor:
    """Return by pair log p(chosen) - log p(rejected)."""
    return row_losses_B[1::2] - row_losses_B[0::2]
