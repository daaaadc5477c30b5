# pyright: basic
"""Row order: rows of a micro batch have similar lengths, micro batches come in random order.

Transformers' own length grouping feeds whole stretches of one length, and here length means kind of conversation
(small talk is short): the loss then jumps by a factor of ten whenever a stretch ends (docs/experiments.md).
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_MICRO_BATCHES_PER_SORT = 50


class MixedLengthSampler(Sampler[int]):
    """Yields row indices; the order depends on the seed and the epoch only, so that a resumed run can skip ahead."""

    def __init__(self, lengths: Sequence[int], micro_batch_size: int, seed: int) -> None:
        self.lengths, self.micro_batch_size, self.seed = lengths, micro_batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose another order for another pass over the rows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        span = self.micro_batch_size * _MICRO_BATCHES_PER_SORT
        batches: list[list[int]] = []
        for start in range(0, len(order), span):
            rows = sorted(order[start : start + span], key=lambda row: self.lengths[row])
            batches += [
                rows[i : i + self.micro_batch_size] for i in range(0, len(rows), self.micro_batch_size)
            ]
        # A short last batch must stay last, or every batch after it would be cut differently.
        full = [batch for batch in batches if len(batch) == self.micro_batch_size]
        rest = [row for batch in batches if len(batch) < self.micro_batch_size for row in batch]
        for index in torch.randperm(len(full), generator=generator).tolist():
            yield from full[index]
        yield from rest
