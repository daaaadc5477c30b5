# pyright: basic
"""What a test set shares with training rows: word 8-grams, and the most similar training row of each test row.

Everything is indexed by the test set, which is small; training rows pass by once. Similarity of user texts is the mean of
two Jaccard indexes, over character 4-grams and over words.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from xxhash import xxh3_64_intdigest

NGRAM = 8
_CHARACTERS = 4


class NgramOverlap:
    """Which word 8-grams of the test rows occur in training rows."""

    def __init__(self, test_rows: Sequence[Iterable[tuple[str, ...]]]) -> None:
        self._grams_of_row = [_hash_ngrams(turns) for turns in test_rows]
        self._known = np.unique(np.concatenate([np.empty(0, np.uint64), *self._grams_of_row]))
        self._is_seen = np.zeros(len(self._known), dtype=bool)

    def add(self, turns: Iterable[tuple[str, ...]]) -> None:
        """Take the words of a training row's turns."""
        grams = _hash_ngrams(turns)
        places = np.searchsorted(self._known, grams)
        inside = places < len(self._known)
        found = places[inside][self._known[places[inside]] == grams[inside]]
        self._is_seen[found] = True

    def shares(self) -> list[float | None]:
        """Return for each test row the share of its 8-grams that occur in training; None for a row without any."""
        return [
            float(self._is_seen[np.searchsorted(self._known, grams)].mean()) if len(grams) else None
            for grams in self._grams_of_row
        ]


class NearestRows:
    """The most similar training row of each test row."""

    def __init__(self, test_texts: Sequence[Sequence[str]]) -> None:
        self._characters = _Index([_characters_of(words) for words in test_texts])
        self._words = _Index([_hash_all(set(words)) for words in test_texts])
        self.similarity = np.zeros(len(test_texts))
        """Of each test row with its nearest training row so far."""
        self.nearest = np.full(len(test_texts), -1, dtype=np.int64)
        """Number of that row; -1 when none shares anything."""

    def add(self, number: int, words: Sequence[str]) -> np.ndarray:
        """Take a training row; return the test rows that it is now nearest to. Of equals the first stays."""
        similarity = (
            self._characters.jaccard(_characters_of(words)) + self._words.jaccard(_hash_all(set(words)))
        ) / 2
        better = np.flatnonzero(similarity > self.similarity)
        self.similarity[better] = similarity[better]
        self.nearest[better] = number
        return better


class _Index:
    """Sets of numbers, with an inverted index to compare all of them with another set at once."""

    def __init__(self, sets: Sequence[np.ndarray]) -> None:
        self._sizes = np.array([len(numbers) for numbers in sets], dtype=np.int64)
        owners = np.repeat(np.arange(len(sets)), self._sizes)
        numbers = np.concatenate([np.empty(0, np.uint64), *sets])
        order = np.argsort(numbers, kind="stable")
        self._owners = owners[order]
        self._numbers, starts = np.unique(numbers[order], return_index=True)
        self._starts = np.append(starts, len(numbers))

    def jaccard(self, numbers: np.ndarray) -> np.ndarray:
        """Return the Jaccard index of every set with this one."""
        places = np.searchsorted(self._numbers, numbers)
        inside = places < len(self._numbers)
        found = places[inside][self._numbers[places[inside]] == numbers[inside]]
        pieces = [self._owners[self._starts[place] : self._starts[place + 1]] for place in found.tolist()]
        if not pieces:
            return np.zeros(len(self._sizes))
        common = np.bincount(np.concatenate(pieces), minlength=len(self._sizes))
        return common / (self._sizes + len(numbers) - common)


def _characters_of(words: Sequence[str]) -> np.ndarray:
    text = f" {' '.join(words)} "
    return _hash_all({text[start : start + _CHARACTERS] for start in range(len(text) - _CHARACTERS + 1)})


def _hash_ngrams(turns: Iterable[tuple[str, ...]]) -> np.ndarray:
    grams = {
        " ".join(words[start : start + NGRAM]) for words in turns for start in range(len(words) - NGRAM + 1)
    }
    return _hash_all(grams)


def _hash_all(texts: set[str]) -> np.ndarray:
    return np.array([xxh3_64_intdigest(text.encode("utf-8")) for text in texts], dtype=np.uint64)
