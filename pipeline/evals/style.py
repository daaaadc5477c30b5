"""Whose voice is this? Naive Bayes over character n-grams: tells writing style apart, not topic.

Sentence embeddings put replies about the same task together whoever speaks; runs of 2 to 4 characters see endings,
punctuation and set phrases. Small enough for plain Python; it needs replies of at least two voices to learn from.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.core.errors import InvalidInputError

_SIZES = (2, 3, 4)
_SMOOTHING = 0.5


class StyleClassifier:
    """Multinomial naive Bayes with additive smoothing and equal priors (Manning et al., IIR, 13.2)."""

    def __init__(self, replies: Iterable[tuple[str, str]]) -> None:
        """Learn from (voice, text) pairs.

        Raises:
            InvalidInputError: If there are fewer than two voices.
        """
        counts: dict[str, Counter[str]] = {}
        for voice, text in replies:
            counts.setdefault(voice, Counter()).update(set(_grams(text)))
        if len(counts) < 2:
            raise InvalidInputError(
                f"a style can only be told apart from another one; found {sorted(counts)}",
                hint="Give replies of at least two personas, or of a neutral voice.",
            )
        vocabulary = {gram for counter in counts.values() for gram in counter}
        self.voices = sorted(counts)
        self._default: dict[str, float] = {}
        self._weights: dict[str, dict[str, float]] = {}
        for voice, counter in counts.items():
            total = sum(counter.values()) + _SMOOTHING * len(vocabulary)
            self._default[voice] = math.log(_SMOOTHING / total)
            self._weights[voice] = {g: math.log((n + _SMOOTHING) / total) for g, n in counter.items()}
        self._vocabulary = vocabulary

    def scores(self, text: str) -> dict[str, float]:
        """Return the mean log-likelihood per known n-gram by voice: larger is closer, whatever the length."""
        known = set(_grams(text)) & self._vocabulary
        return {
            voice: sum(weights.get(gram, self._default[voice]) for gram in known) / max(1, len(known))
            for voice, weights in self._weights.items()
        }

    def classify(self, text: str) -> str:
        """Return the closest voice; the first in the alphabet when nothing is known."""
        scores = self.scores(text)
        return max(self.voices, key=lambda voice: scores[voice])


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Return the share of (right, wrong) pairs in which the right one scores higher; a tie counts half."""
    if not right or not wrong:
        return None
    wins = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    return wins / (len(right) * len(wrong))


def _grams(text: str) -> Iterable[str]:
    padded = f" {' '.join(text.split())} "
    return (padded[i : i + size] for size in _SIZES for i in range(len(padded) - size + 1))
