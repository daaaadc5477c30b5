# pyright: basic
"""Rows -> token ids and labels through the model's own chat template, and the checks on that text.

Only assistant turns get labels (the template's ``{% generation %}`` spans). A row whose turn the template drops or
alters is refused here, before any time is spent on training.
"""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Example, Message, Tool

IGNORED = -100


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as the model sees it."""

    input_ids: list[int]
    """Token ids of the whole conversation."""
    labels: list[int]
    """Token ids to learn, IGNORED elsewhere; same length."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """All rows of one file."""

    rows: list[EncodedRow]
    """Rows inside max_length."""
    num_too_long: int
    """Rows left out because they are longer than max_length."""
    num_tokens: int
    """Tokens in the kept rows."""
    num_trained_tokens: int
    """Tokens with a label in the kept rows."""


def encode_rows(
    examples: list[Example], tokenizer: PreTrainedTokenizerBase, tools: list[Tool], max_length: int
) -> EncodedRows:
    """Encode conversations.

    Raises:
        InvalidInputError: If the template has no generation spans, or drops or alters a turn.
    """
    template = tokenizer.chat_template
    if not template or "generation" not in template:
        raise InvalidInputError(
            "the model's chat template has no {% generation %} spans, so assistant turns cannot be told apart",
            hint="Pull the model with `llmops models pull`, which adds our template, or add the spans to yours.",
        )
    rows: list[EncodedRow] = []
    too_long = 0
    for example in examples:
        row = _encode(example, tokenizer, tools)
        if len(row.input_ids) > max_length:
            too_long += 1
        else:
            rows.append(row)
    return EncodedRows(
        rows=rows,
        num_too_long=too_long,
        num_tokens=sum(len(row.input_ids) for row in rows),
        num_trained_tokens=sum(label != IGNORED for row in rows for label in row.labels),
    )


def _encode(example: Example, tokenizer: PreTrainedTokenizerBase, tools: list[Tool]) -> EncodedRow:
    # The template gets parsed arguments, as the server's template engine does.
    messages = [_for_template(message) for message in example.messages]
    definitions: Any = tools
    encoded: Any = tokenizer.apply_chat_template(
        messages, tools=definitions, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = list(encoded["input_ids"]), list(encoded["assistant_masks"])
    _check_turns(example, str(tokenizer.decode(ids)), mask)
    return EncodedRow(ids, [token if kept else IGNORED for token, kept in zip(ids, mask, strict=True)])


def _for_template(message: Message) -> dict[str, Any]:
    raw = message.to_openai()
    for call, parsed in zip(raw.get("tool_calls", []), message.tool_calls, strict=True):
        call["function"]["arguments"] = parsed.arguments
    return raw


def _check_turns(example: Example, text: str, mask: list[int]) -> None:
    for index, message in enumerate(example.messages):
        lost = message.content is not None and message.content.strip() not in text
        lost = lost or any(call.name not in text for call in message.tool_calls)
        if lost:
            raise InvalidInputError(
                f"row {example.id!r}: the chat template drops or alters turn {index} ({message.role})",
                hint="Check the role names of the row, or use a template that prints tools and tool results.",
            )
    spans = sum(1 for before, now in zip([0, *mask], mask, strict=False) if now and not before)
    turns = sum(message.role == "assistant" for message in example.messages)
    if spans != turns:
        raise InvalidInputError(
            f"row {example.id!r}: {turns} assistant turns but {spans} trained spans",
            hint="Put the whole assistant turn, its end token included, inside {% generation %}.",
        )
