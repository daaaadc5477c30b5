# pyright: basic
"""Sort the notes of ``answers.py`` with numpy: into partitions, and down to those whose conversation occurs again."""

from array import array

import numpy as np

_FIELDS = 3  # prefix, answer, line


def partition_notes(notes: "array[int]", num_bits: int) -> list[bytes]:
    """Return the notes by the top bits (at most 8) of their prefix, in order within each part."""
    table = np.frombuffer(notes, dtype=np.uint64).reshape(-1, _FIELDS)
    parts = (table[:, 0] >> np.uint64(64 - num_bits)).astype(np.uint8)
    order = np.argsort(parts, kind="stable")  # for bytes numpy sorts by counting
    ends = np.cumsum(np.bincount(parts, minlength=2**num_bits))[:-1]
    return [table[part].tobytes() for part in np.split(order, ends)]


def keep_repeated(notes: "bytes | array[int]") -> "array[int]":
    """Return the notes whose prefix occurs more than once, in order."""
    table = np.frombuffer(notes, dtype=np.uint64).reshape(-1, _FIELDS)
    order = np.argsort(table[:, 0], kind="stable")
    prefixes = table[order, 0]
    is_same = prefixes[1:] == prefixes[:-1]
    is_kept = np.zeros(len(table), dtype=bool)
    is_kept[1:] |= is_same
    is_kept[:-1] |= is_same
    return array("Q", table[np.sort(order[is_kept])].tobytes())
