# pyright: basic
"""Training rows -> token ids and labels, by the same encoder that `llmops data preview` shows.

A row whose turn the template drops or alters is refused here, before any time is spent on training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message
from pipeline.rendering.backends.chat_text import ChatEncoder, to_template
from pipeline.rendering.row import IGNORED
from pipeline.train.job import TrainExample


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What training keeps of a row."""

    token_ids: list[int]
    """Token ids of the whole conversation."""
    labels: list[int]
    """Token ids to learn, IGNORED elsewhere; same length."""
    rejected: "TokenRow | None" = None
    """The same conversation with the turn that preference training pushes away."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the longer of both."""
        return max(len(self.token_ids), len(self.rejected.token_ids) if self.rejected else 0)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """All rows of one file."""

    rows: list[TokenRow]
    """Rows inside max_length."""
    num_too_long: int
    """Rows left out because they are longer than max_length."""

    @property
    def num_tokens(self) -> int:
        """Tokens in the kept rows."""
        return sum(len(row.token_ids) for row in self.rows)

    @property
    def num_trained_tokens(self) -> int:
        """Tokens with a label in the kept rows."""
        return sum(label != IGNORED for row in self.rows for label in row.labels)

    @property
    def lengths(self) -> list[int]:
        """Tokens of every kept row."""
        return [row.num_tokens for row in self.rows]

    def within(self, max_length: int) -> "EncodedRows":
        """Return the rows of at most that many tokens."""
        kept = [row for row in self.rows if row.num_tokens <= max_length]
        return EncodedRows(kept, self.num_too_long + len(self.rows) - len(kept))


def encode_rows(
    examples: Sequence[TrainExample], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> EncodedRows:
    """Encode conversations.

    Raises:
        InvalidInputError: If assistant turns cannot be told apart, or the template drops or alters a turn.
    """
    encoder = ChatEncoder(tokenizer)
    rows: list[TokenRow] = []
    too_long = 0
    for example in examples:
        row = _encode(encoder, example, example.messages)
        if example.rejected is not None:
            other = _encode(encoder, example, (*example.messages[:-1], example.rejected))
            row = TokenRow(
                row.token_ids, _last_turn(row.labels), TokenRow(other.token_ids, _last_turn(other.labels))
            )
        if row.num_tokens > max_length:
            too_long += 1
        else:
            rows.append(row)
    return EncodedRows(rows, too_long)


def _encode(encoder: ChatEncoder, example: TrainExample, messages: Sequence[Message]) -> TokenRow:
    row = encoder.encode(to_template(messages), example.tools)
    if row.problems:
        raise InvalidInputError(
            f"{example.name}: {row.problems[0]}",
            hint="`llmops data preview FILE --model MODEL` shows the training text of every such row.",
        )
    _require_tools(example, row.text)
    return TokenRow(row.token_ids, row.labels)


def _last_turn(labels: list[int]) -> list[int]:
    """Return the labels of the last assistant turn only."""
    end = max(position for position, label in enumerate(labels) if label != IGNORED) + 1
    start = next((p for p in range(end - 1, -1, -1) if labels[p] == IGNORED), -1) + 1
    return [IGNORED] * start + labels[start:end] + [IGNORED] * (len(labels) - end)


def _require_tools(example: TrainExample, text: str) -> None:
    names = [str(tool.get("function", tool).get("name")) for tool in example.tools]
    missing = [name for name in names if name not in text]
    if missing:
        raise InvalidInputError(
            f"{example.name}: the model's chat template does not print the tools ({missing[0]} is not in the training "
            "text), so that the model would learn to call what it was never shown",
            hint="Pull the model with `llmops models pull`, which adds our template, or use one with tool support.",
        )
