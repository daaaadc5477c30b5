# pyright: basic
"""Row order: every row once, similar lengths together, no stretches of one length."""

import pytest

from pipeline.train.backends.sampler import MixedLengthSampler

pytestmark = pytest.mark.slow

LENGTHS = [10 + (i * 37) % 300 for i in range(1003)]


def test_every_row_comes_exactly_once_per_epoch() -> None:
    assert sorted(MixedLengthSampler(LENGTHS, 8, seed=0)) == list(range(1003))


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    first, second = MixedLengthSampler(LENGTHS, 8, seed=3), MixedLengthSampler(LENGTHS, 8, seed=3)
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)


def test_rows_of_a_micro_batch_are_alike_and_neighbouring_batches_are_not_sorted() -> None:
    order = list(MixedLengthSampler(LENGTHS, 8, seed=0))
    batches = [[LENGTHS[row] for row in order[i : i + 8]] for i in range(0, 1000, 8)]
    # 400 rows of 300 lengths are sorted at a time: eight neighbours span 6 lengths on average; twice that is generous,
    # a random batch of eight would span 233 (300 x 7 / 9).
    spread = sum(max(batch) - min(batch) for batch in batches) / len(batches)
    assert spread < 15
    longer = sum(batches[i + 1][0] > batches[i][0] for i in range(len(batches) - 1))
    assert 0.3 < longer / len(batches) < 0.7
