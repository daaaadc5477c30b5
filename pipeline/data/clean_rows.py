"""The cleaning steps that look at one row at a time: normalise, length filter, schema.

The same object judges rows on one machine and in a datatrove task. Does not compare rows.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.core.errors import InvalidInputError
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.data.conversation import Conversation, RowError, parse_conversation, parse_row
from pipeline.data.reader import Line, read_lines
from pipeline.data.rules import check_row
from pipeline.data.strict_json import json_error, parse_json_text

Step = Literal["exact", "near", "normalise", "length", "schema"]
STEPS: tuple[Step, ...] = ("exact", "near", "normalise", "length", "schema")

_TEXT_FIELDS = ("messages", "conversations", "system", "instruction", "input", "output", "history")
_CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]"
)  # C0 and C1 but tab and LF; byte order mark
# Vertical tab, form feed and NEL part lines or pages: without them the words around would be one
_LINE_ENDS = ("\r\n", "\r", "\x0b", "\x0c", "\x85")
_BYTES_PER_TOKEN = 4


class RowDrop(NamedTuple):
    """A row that is left out for what it is itself."""

    line: int
    """Physical line."""
    reason: str
    """Code: ``too_short``, ``too_long``, or that of the first schema problem."""
    detail: str
    """The same in words."""


class RowKept(NamedTuple):
    """A row that goes on to be compared."""

    line: int
    """Physical line."""
    raw: bytes
    """The row as it will be written."""
    conversation: Conversation
    """The row as it was understood."""
    is_changed: bool
    """Normalising changed it."""


def estimate_tokens(text: str) -> int:
    """Return a rough number of tokens, 4 UTF-8 bytes each; measured 38 % too low on short synthetic rows."""
    return -(-len(text.encode("utf-8")) // _BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Applies the row-wise ones among the steps."""

    steps: Sequence[Step] = ()
    """What to do; without any step a row is only read."""
    min_tokens: int = 0
    """Shorter rows are dropped."""
    max_tokens: int = 0
    """Longer rows are dropped."""
    allow_final_calls: bool = False
    """The schema step accepts rows that end with calls without results."""
    count_tokens: Callable[[str], int] = estimate_tokens
    """How long a text is."""

    def judge(self, line: Line) -> RowKept | RowDrop:
        """Return what becomes of a line.

        Raises:
            InvalidInputError: If it is no conversation and the steps do not include ``schema``.
        """
        try:
            return self._judge(line)
        except RowError as error:
            if "schema" not in self.steps:
                raise InvalidInputError(
                    f"line {line.number}{error.path and f', {error.path}'}: {error}",
                    hint=f"{error.fix} `llmops data clean` with the step `schema` leaves such rows out.",
                ) from error
            where = f"{error.path}: " if error.path else ""
            return RowDrop(line.number, error.code, f"{where}{error}")

    def _judge(self, line: Line) -> RowKept | RowDrop:
        if line.problem:
            raise json_error(line.problem, "the line is too long to be a row")
        row, raw = parse_row(line.raw), line.raw
        is_changed = "normalise" in self.steps and normalise_row(row)
        if is_changed:
            raw = json.dumps(row, ensure_ascii=False).encode("utf-8")
        problem: RowError | None = None
        if "schema" in self.steps:
            try:
                conversation = check_row(row, allow_final_calls=self.allow_final_calls)
            except RowError as error:
                problem, conversation = error, parse_conversation(row)
        else:
            conversation = parse_conversation(row)
        if "length" in self.steps and (drop := self._judge_length(line.number, conversation)):
            return drop
        if problem:
            raise problem
        return RowKept(line.number, raw, conversation, is_changed)

    def _judge_length(self, line: int, conversation: Conversation) -> RowDrop | None:
        num_tokens = self.count_tokens(text_of(conversation))
        if num_tokens < self.min_tokens:
            return RowDrop(line, "too_short", f"{num_tokens} tokens, the least is {self.min_tokens}")
        if num_tokens > self.max_tokens:
            return RowDrop(line, "too_long", f"{num_tokens} tokens, the most is {self.max_tokens}")
        return None


def judge_rows(source: Path, row_filter: RowFilter, *, label: str, run: Run) -> Generator[RowKept | RowDrop]:
    """Yield what becomes of each row of a file, and show how far reading is.

    Raises:
        InvalidInputError: If the file cannot be used, or a row is none and the steps do not include ``schema``.
    """
    total = source.stat().st_size
    with Progress(label, total, unit="bytes", run=run) as progress:
        for num_rows, line in enumerate(read_lines(source), start=1):
            # The text of a compressed file is longer than the file.
            progress.update(min(total, progress.done + len(line.raw) + 1), f"{num_rows} rows")
            yield row_filter.judge(line)


def read_rows(source: Path, *, label: str, run: Run) -> Generator[RowKept]:
    """Yield the rows of a file in which every row has to be a conversation.

    Raises:
        InvalidInputError: If the file cannot be used, or a row is none.
    """
    for row in judge_rows(source, RowFilter(), label=label, run=run):
        assert isinstance(row, RowKept)  # only steps drop rows
        yield row


def text_of(conversation: Conversation) -> str:
    """Return what is counted as the length of a row: contents and calls, without tool definitions and template."""
    parts: list[str] = []
    for message in conversation.messages:
        parts.append(message.content or "")
        parts += [json.dumps({call.name: call.arguments}, ensure_ascii=False) for call in message.tool_calls]
    return "\n".join(parts)


def normalise_row(row: dict[str, Any]) -> bool:
    """Tidy the texts of a row in place, call arguments included; return whether anything changed."""
    is_changed = False
    for field in _TEXT_FIELDS:
        if field in row:
            tidied = _tidy_value(row[field], field)
            is_changed |= tidied != row[field]
            row[field] = tidied
    return is_changed


def tidy(text: str) -> str:
    """Return the text in Unicode NFC with LF line ends, no control characters, no white space around it."""
    return _tidy_characters(text).strip()


def _tidy_value(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return _tidy_json(value) if key == "arguments" else tidy(value)
    if isinstance(value, list):
        return [_tidy_value(item, key) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        if key == "arguments":
            return _tidy_arguments(value)
        return {name: _tidy_value(item, name) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


def _tidy_json(text: str) -> str:
    """Tidy the texts inside arguments that are a JSON string; anything but JSON stays for the schema step to name."""
    try:
        arguments = parse_json_text(text)
    except RowError:
        return text
    tidied = _tidy_arguments(arguments)
    return text if tidied == arguments else json.dumps(tidied, ensure_ascii=False)


def _tidy_arguments(value: Any) -> Any:
    # White space around an argument may be meant; the characters inside follow the text they were taken from.
    if isinstance(value, str):
        return _tidy_characters(value)
    if isinstance(value, list):
        items: list[Any] = []
        for item in value:  # pyright: ignore[reportUnknownVariableType] - any JSON
            items.append(_tidy_arguments(item))  # one call a level: rows may have 512
        return items
    if isinstance(value, dict):
        tidied: dict[str, Any] = {}
        for name, item in value.items():  # pyright: ignore[reportUnknownVariableType] - any JSON
            tidied[name] = _tidy_arguments(item)  # as above
        return tidied
    return value


def _tidy_characters(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    for line_end in _LINE_ENDS:
        text = text.replace(line_end, "\n")
    return _CONTROLS.sub("", text)
