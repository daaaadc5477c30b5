"""Maximum bipartite matching: which predicted call stands for which expected one, so that most are right.

Taking the first call that fits (greedy) rejects right answers when alternatives overlap.
"""

from collections.abc import Sequence


def match_all(edges: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return the largest one-to-one assignment of left nodes to right nodes.

    Augmenting paths, as C. Berge, PNAS 43 (1957) 842: an assignment is largest when no path improves it. The lists
    are short, so that the asymptotically faster Hopcroft-Karp would gain nothing.

    Args:
        edges: For each left node, the right nodes it may take.
    """
    left_of: dict[int, int] = {}
    for start in range(len(edges)):
        _augment(start, edges, left_of)
    return {left: right for right, left in left_of.items()}


def _augment(start: int, edges: Sequence[Sequence[int]], left_of: dict[int, int]) -> None:
    """Assign one more left node if a path allows it; breadth-first, so that long chains cannot exhaust the stack."""
    came_from: dict[int, int] = {}
    queue = [start]
    for left in queue:
        for right in edges[left]:
            if right in came_from:
                continue
            came_from[right] = left
            if right not in left_of:
                _flip(right, start, came_from, left_of)
                return
            queue.append(left_of[right])


def _flip(right: int, start: int, came_from: dict[int, int], left_of: dict[int, int]) -> None:
    previous = {left: other for other, left in left_of.items()}
    while True:
        left = came_from[right]
        left_of[right] = left
        if left == start:
            return
        right = previous[left]
