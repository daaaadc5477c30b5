# pyright: basic
"""Conversation -> token ids and labels through the model's own chat template, and the checks on that text.

Only assistant turns get labels. A template with ``{% generation %}`` marks says where they stand; for one without
(Qwen, Llama and most others) a turn begins where the prompt before it ends, generation prompt included, and goes to
the template's own end-of-turn text (docs/decisions/0016). Never cuts a row.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message, Tool
from pipeline.rendering.row import IGNORED, EncodedRow, TurnProblem
from pipeline.rendering.turn_checks import Range, find_lost_turns

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "Qx7probe"  # a text that no template treats specially
_HINT = "Pull the model with `llmops models pull`, which adds our template, or add {% generation %} marks to yours."


class ChatEncoder:
    """Encodes conversations with one model's tokenizer and chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise InvalidInputError("the model has no chat template", hint=_HINT)
        if not tokenizer.is_fast:
            raise InvalidInputError(
                "the model's tokenizer does not say where tokens stand in the text",
                hint="Use a model folder with a tokenizer.json.",
            )
        self.tokenizer = tokenizer
        self._has_marks = _GENERATION.search(tokenizer.get_chat_template()) is not None
        self._end_of_turn = "" if self._has_marks else self._probe_end_of_turn()
        special = sorted(set(tokenizer.all_special_tokens), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")

    @classmethod
    def from_folder(cls, folder: Path) -> "ChatEncoder":
        """Load the tokenizer of a model folder.

        Raises:
            InvalidInputError: If it has none, or no chat template that tells assistant turns apart.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise InvalidInputError(
                f"{folder.name} has no tokenizer that loads: {str(error).splitlines()[0][:200]}",
                hint="Name a folder with tokenizer.json, tokenizer_config.json and a chat template.",
            ) from error
        return cls(tokenizer)

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[Tool]) -> EncodedRow:
        """Encode messages in template form (:func:`to_template`); what goes wrong with a turn is in ``problems``."""
        definitions: Any = list(tools) or None
        try:
            text = self._render(messages, definitions)
        except (TemplateError, TypeError, ValueError) as error:
            return EncodedRow("", [], [], [], (self._find_refused(messages, definitions, error),))
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
        if self._has_marks:
            spans = self._marked_spans(messages, definitions, offsets)
        else:
            spans = self._prompted_spans(messages, definitions, text)
        return self._label(messages, definitions, text, (ids, offsets, spans))

    def _label(
        self,
        messages: Sequence[dict[str, Any]],
        tools: list[Tool] | None,
        text: str,
        found: tuple[list[int], list[Range], list[Range | None]],
    ) -> EncodedRow:
        ids, offsets, spans = found
        labels = [IGNORED] * len(ids)
        for first, last in (_token_range(offsets, span) for span in spans if span is not None):
            labels[first:last] = ids[first:last]
        turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
        if len(spans) == len(turns) and None not in spans:

            def is_printed(turn: int) -> bool:
                return self._is_printed(messages, tools, turn)

            problems = [
                *self._find_control_tokens(messages),
                *find_lost_turns(messages, text, [s for s in spans if s], is_printed),
            ]
        else:
            missing = spans.index(None) if None in spans else min(len(spans), len(turns) - 1)
            problems = [
                TurnProblem(
                    "untrained",
                    turns[missing] if turns else 0,
                    "assistant" if turns else str(messages[0]["role"]),
                    f"it cannot be told apart in the training text ({len(turns)} assistant turns, "
                    f"{sum(s is not None for s in spans)} trained spans)",
                )
            ]
        return EncodedRow(text, ids, labels, offsets, tuple(problems))

    def _render(self, messages: Sequence[dict[str, Any]], tools: Any, *, prompt: bool = False) -> str:
        text: Any = self.tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=prompt
        )
        return str(text)

    def _marked_spans(
        self, messages: Sequence[dict[str, Any]], tools: Any, offsets: list[Range]
    ) -> list[Range | None]:
        encoded: Any = self.tokenizer.apply_chat_template(
            list(messages), tools=tools, return_dict=True, return_assistant_tokens_mask=True
        )
        spans: list[Range | None] = []
        start: int | None = None
        for position, is_trained in enumerate([*encoded["assistant_masks"], 0]):
            if is_trained and start is None:
                start = position
            elif not is_trained and start is not None:
                spans.append((offsets[start][0], offsets[position - 1][1]))
                start = None
        return spans

    def _prompted_spans(
        self, messages: Sequence[dict[str, Any]], tools: Any, text: str
    ) -> list[Range | None]:
        spans: list[Range | None] = []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            try:
                prompt = self._render(messages[:turn], tools, prompt=True)
            except (TemplateError, TypeError, ValueError):  # e.g. nothing stands before the turn
                spans.append(None)
                continue
            end = text.find(self._end_of_turn, len(prompt)) if text.startswith(prompt) else -1
            spans.append(None if end < 0 else (len(prompt), end + len(self._end_of_turn)))
        return spans

    def _probe_end_of_turn(self) -> str:
        try:
            text = self._render(
                [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}], None
            )
        except (TemplateError, TypeError, ValueError):
            text = ""
        end = text.rpartition(_PROBE)[2].rstrip()
        if not end:
            raise InvalidInputError(
                "the model's chat template has no {% generation %} marks and prints no end of an assistant turn, "
                "so that what to train on cannot be found",
                hint=_HINT,
            )
        return end

    def _is_printed(self, messages: Sequence[dict[str, Any]], tools: Any, turn: int) -> bool:
        changed = [dict(message) for message in messages]
        changed[turn]["content"] = _PROBE
        try:
            return _PROBE.casefold() in self._render(changed, tools).casefold()
        except (TemplateError, TypeError, ValueError):
            return True  # the template looks into the content, so it does use it

    def _find_refused(self, messages: Sequence[dict[str, Any]], tools: Any, error: Exception) -> TurnProblem:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        for turn, message in enumerate(messages):
            try:
                self._render(messages[: turn + 1], tools)
            except (TemplateError, TypeError, ValueError):
                return TurnProblem(
                    "refused", turn, str(message["role"]), f"the chat template refuses it: {reason}"
                )
        return TurnProblem(
            "refused", 0, str(messages[0]["role"]), f"the chat template refuses the row: {reason}"
        )

    def _find_control_tokens(self, messages: Sequence[dict[str, Any]]) -> list[TurnProblem]:
        found: list[TurnProblem] = []
        for turn, message in enumerate(messages):
            texts = [
                message.get("content"),
                *(str(c["function"]["arguments"]) for c in message.get("tool_calls") or ()),
            ]
            match = next(
                (m for text in texts if isinstance(text, str) and (m := self._special.search(text))), None
            )
            if match is not None:
                what = f"its text holds the control token {match.group()!r}, which would end or begin a turn"
                found.append(TurnProblem("control_token", turn, str(message["role"]), what))
        return found


def to_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as templates get them: arguments parsed, as the server's template engine passes them."""
    raw = [message.to_openai() for message in messages]
    for wire, message in zip(raw, messages, strict=True):
        for call, parsed in zip(wire.get("tool_calls", []), message.tool_calls, strict=True):
            call["function"]["arguments"] = parsed.arguments
    return raw


def _token_range(offsets: list[Range], span: Range) -> Range:
    # Tokenizers may leave spaces out of a token's position, so positions are compared, not matched.
    first = bisect_right(offsets, span[0], key=lambda offset: offset[1])
    last = bisect_left(offsets, span[1], key=lambda offset: offset[0])
    return first, last
