"""Bytes and durations as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.units import format_bytes, format_seconds


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (269_060_552, "256.6 MiB"),
        (3 * 1024**3, "3.0 GiB"),
        (2048 * 1024**4, "2048.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_bytes_use_the_largest_binary_unit(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


@given(st.integers(0, 1024**5 - 1024**4))
def test_no_amount_is_shown_as_1024_of_a_unit_that_has_a_larger_one(num_bytes: int) -> None:
    assert not format_bytes(num_bytes).startswith("1024")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.85, "850 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations_use_the_unit_a_person_would(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
