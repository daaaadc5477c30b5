"""How much a set of texts repeats itself, in plain Python: distinct n-grams, self-BLEU, the most repetitive texts."""

import math
import re
from collections import Counter
from collections.abc import Sequence

_ORDERS = (1, 2, 3, 4)
_WORD = re.compile(r"\w+")
_SIMILARITY_GRAM = 3


def words_of(text: str) -> list[str]:
    """Return the words in lower case."""
    return _WORD.findall(text.lower())


def grams(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    """Return the n-grams with their counts."""
    return Counter(zip(*(words[start:] for start in range(size)), strict=False))


def distinct_ratio(texts: Sequence[str], size: int) -> float:
    """Return distinct n-grams over all n-grams (Li et al., arXiv:1510.03055)."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(grams(words_of(text), size))
    return round(len(counts) / counts.total(), 4) if counts else 0.0


def self_bleu(texts: Sequence[str], max_texts: int = 400) -> float:
    """Return the mean BLEU-4 of texts with all others as references (Zhu et al., arXiv:1802.01886); lower is more diverse.

    Texts under four words have no 4-gram and are left out, as are all beyond ``max_texts``. No smoothing; the brevity
    penalty is 1 because among hundreds of references one is as long.
    """
    listed = [words for words in map(words_of, texts) if len(words) >= max(_ORDERS)][:max_texts]
    if len(listed) < 2:
        return 0.0
    logs = [0.0] * len(listed)
    for size in _ORDERS:
        counted = [grams(words, size) for words in listed]
        top: dict[tuple[str, ...], list[int]] = {}
        for counts in counted:
            for gram, count in counts.items():
                top[gram] = sorted([*top.get(gram, []), count], reverse=True)[:2]
        for i, counts in enumerate(counted):
            clipped = sum(min(count, _best_other(top[gram], count)) for gram, count in counts.items())
            logs[i] += math.log(clipped / counts.total()) / len(_ORDERS) if clipped else -math.inf
    return round(sum(math.exp(value) for value in logs) / len(listed), 4)


def find_repetitive(texts: Sequence[str], count: int) -> list[int]:
    """Return the positions of ``count`` texts to leave out: again and again one of the two most similar texts."""
    if count <= 0:
        return []
    sets = [frozenset(grams(words_of(text), _SIMILARITY_GRAM)) | frozenset(words_of(text)) for text in texts]
    pairs = sorted(
        ((similarity(a, b), i, j) for j, b in enumerate(sets) for i, a in enumerate(sets[:j])), reverse=True
    )
    dropped: dict[int, None] = {}
    for _, i, j in pairs:
        if len(dropped) == count:
            break
        if i not in dropped and j not in dropped:
            dropped[j] = None
    return list(dropped)


def similarity(a: frozenset[object], b: frozenset[object]) -> float:
    """Return the Jaccard index of two sets; 0 when both are empty."""
    union = len(a | b)
    return len(a & b) / union if union else 0.0


def _best_other(top: Sequence[int], own: int) -> int:
    """Return the highest count of a gram in any other text: the highest, unless it is one's own alone."""
    others = list(top)
    others.remove(own) if own in others else None
    return others[0] if others else 0
