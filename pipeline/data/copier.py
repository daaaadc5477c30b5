"""The nearest-neighbour copier: answer each test row with the answer of the most similar training row.

What copying scores, a model can score without having learnt anything (docs/decisions/0015). Needs no model and no tools:
it compares the calls that rows hold.
"""

import json
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from pipeline.core.operation import Part
from pipeline.data.conversation import Conversation

SIMILAR = 0.6
"""Similarity from which a test row counts as reworded training data in the report."""


class CopierScore(Part):
    """How far copying goes."""

    num_rows: int
    """Test rows asked."""
    num_right_tools: int
    """Rows for which the copied answer calls the right tools in the right order, or rightly calls none."""
    num_rows_with_calls: int
    """Test rows that hold calls."""
    num_right_calls: int
    """Of those: rows for which the copied calls are right in every argument."""
    median_similarity: float | None
    """Of test rows with their nearest training row: mean Jaccard index of character 4-grams and words of user turns."""
    num_similar: int
    """Test rows whose nearest training row has a similarity of at least 0.6."""
    histogram: list[int] = Field(min_length=10, max_length=10)
    """Test rows by similarity, in tenths from 0 to 1."""


class Answer(NamedTuple):
    """What a row answers, as far as a program can compare it."""

    tools: str
    """Names of the tools it calls, in order."""
    calls: str
    """The calls with their arguments, in order."""

    @classmethod
    def of(cls, conversation: Conversation) -> "Answer":
        """Collect the calls of a conversation."""
        calls = [
            (call.name, call.arguments) for message in conversation.messages for call in message.tool_calls
        ]
        return cls(
            tools=" ".join(name for name, _ in calls),
            calls=json.dumps(calls, ensure_ascii=False, sort_keys=True),
        )


def score_copies(
    right: Sequence[Answer], copied: Sequence[Answer | None], similarities: Sequence[float]
) -> CopierScore:
    """Compare what was copied for each test row with what is right; None stands for a row without any neighbour."""
    pairs = list(zip(right, copied, strict=True))
    with_calls = [(wanted, got) for wanted, got in pairs if wanted.tools]
    histogram = [0] * 10
    for similarity in similarities:
        histogram[min(9, int(similarity * 10))] += 1
    return CopierScore(
        num_rows=len(pairs),
        num_right_tools=sum(got is not None and got.tools == wanted.tools for wanted, got in pairs),
        num_rows_with_calls=len(with_calls),
        num_right_calls=sum(wanted == got for wanted, got in with_calls),
        median_similarity=round(statistics.median(similarities), 4) if similarities else None,
        num_similar=sum(similarity >= SIMILAR for similarity in similarities),
        histogram=histogram,
    )
