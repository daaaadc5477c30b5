# pyright: basic
"""Training rows -> token ids and labels, by the same encoder that `llmops data preview` shows.

A row whose turn the template drops or alters is refused here, before any time is spent on training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from pipeline.core.errors import InvalidInputError
from pipeline.rendering.backends.chat_text import ChatEncoder, to_template
from pipeline.train.job import TrainExample


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What training keeps of a row."""

    token_ids: list[int]
    """Token ids of the whole conversation."""
    labels: list[int]
    """Token ids to learn, IGNORED elsewhere; same length."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """All rows of one file."""

    rows: list[TokenRow]
    """Rows inside max_length."""
    num_too_long: int
    """Rows left out because they are longer than max_length."""
    num_tokens: int
    """Tokens in the kept rows."""
    num_trained_tokens: int
    """Tokens with a label in the kept rows."""


def encode_rows(
    examples: Sequence[TrainExample], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> EncodedRows:
    """Encode conversations.

    Raises:
        InvalidInputError: If assistant turns cannot be told apart, or the template drops or alters a turn.
    """
    encoder = ChatEncoder(tokenizer)
    rows: list[TokenRow] = []
    num_trained = 0
    too_long = 0
    for example in examples:
        row = encoder.encode(to_template(example.messages), example.tools)
        if row.problems:
            raise InvalidInputError(
                f"{example.name}: {row.problems[0]}",
                hint="`llmops data preview FILE --model MODEL` shows the training text of every such row.",
            )
        if len(row.token_ids) > max_length:
            too_long += 1
        else:
            rows.append(TokenRow(row.token_ids, row.labels))
            num_trained += row.num_trained_tokens
    return EncodedRows(
        rows=rows,
        num_too_long=too_long,
        num_tokens=sum(len(row.token_ids) for row in rows),
        num_trained_tokens=num_trained,
    )
