"""What rendering a conversation gives: text, token ids, labels, and the turns that did not survive.

No library types, so that reports and pages can be made from it without loading a tokenizer.
"""

from dataclasses import dataclass
from typing import Literal

IGNORED = -100
"""Label of a token that is not trained on (PyTorch's default ``ignore_index``)."""

ProblemKind = Literal["dropped", "altered", "untrained", "control_token", "refused"]


@dataclass(frozen=True, slots=True)
class TurnProblem:
    """Why a row must not be trained on as it is."""

    kind: ProblemKind
    """``dropped``/``altered`` by the template, ``untrained`` assistant turn, ``control_token`` inside a text,
    or the template ``refused`` the conversation."""
    turn: int
    """Position in the conversation, from 0."""
    role: str
    """Who speaks in that turn."""
    message: str
    """What happened, in a sentence without the turn's name."""

    def __str__(self) -> str:
        return f"turn {self.turn} ({self.role}): {self.message}"


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One conversation as the model sees it."""

    text: str
    """The whole training text."""
    token_ids: list[int]
    """Token ids of the text."""
    labels: list[int]
    """Token ids to learn, IGNORED elsewhere; same length."""
    offsets: list[tuple[int, int]]
    """Where each token stands in the text, as character positions [start, end)."""
    problems: tuple[TurnProblem, ...]
    """Empty when the row says what its conversation says."""

    @property
    def num_trained_tokens(self) -> int:
        """Tokens with a label."""
        return sum(label != IGNORED for label in self.labels)

    def trained_ranges(self) -> list[tuple[int, int]]:
        """Return the stretches of text that are trained on, as character positions [start, end)."""
        ranges: list[tuple[int, int]] = []
        was_trained = False
        for label, (start, end) in zip(self.labels, self.offsets, strict=True):
            is_trained = label != IGNORED
            if is_trained:
                ranges.append((ranges.pop()[0] if was_trained else start, end))
            was_trained = is_trained
        return ranges
