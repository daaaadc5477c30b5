"""Disjoint sets of rows: groups that grow together (the same template, near-duplicates of each other).

Knows nothing of what makes rows belong together.
"""

from array import array


class DisjointSets:
    """Union-find over rows numbered from 0 (Tarjan, JACM 22 (1975) 215), by size with path halving; 8 bytes a row."""

    def __init__(self) -> None:
        self._parents = array("I")
        self._sizes = array("I")

    def __len__(self) -> int:
        return len(self._parents)

    def add(self) -> int:
        """Add a row on its own and return its number."""
        self._parents.append(len(self._parents))
        self._sizes.append(1)
        return len(self._parents) - 1

    def find(self, row: int) -> int:
        """Return the row that stands for the set of this row."""
        parents = self._parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    def union(self, one: int, other: int) -> None:
        """Make one set of two."""
        one, other = self.find(one), self.find(other)
        if one == other:
            return
        if self._sizes[one] < self._sizes[other]:
            one, other = other, one
        self._parents[other] = one
        self._sizes[one] += self._sizes[other]

    def number(self) -> "array[int]":
        """Return for each row the number of its set; sets are numbered from 0 by their first row."""
        numbers: dict[int, int] = {}
        return array("I", (numbers.setdefault(self.find(row), len(numbers)) for row in range(len(self))))
