"""Lines of a data file through the shared renderer, and the counts that say what training would make of them."""

from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.operation import Part
from pipeline.data.conversation import Format, RowError, parse_conversation, parse_row
from pipeline.data.reader import Line
from pipeline.data.strict_json import is_array, is_object, json_error
from pipeline.rendering.row import EncodedRow

if TYPE_CHECKING:
    from pipeline.rendering.backends.chat_text import ChatEncoder

MAX_LISTED_PROBLEMS = 100


class PreviewProblem(Part):
    """Why training would refuse a row."""

    line: int
    """Line in the file, from 1."""
    turn: int | None
    """Position of the turn, from 0; null for the row as a whole."""
    kind: str
    """`dropped`, `altered`, `untrained`, `control_token` or `refused` by the template, else the code of a broken row."""
    message: str
    """What happened."""


class Rendered(NamedTuple):
    """One row of a file, rendered."""

    line: int
    format: Format | None
    """None when the row is broken."""
    row: EncodedRow | None
    """None when there was nothing to render."""
    problems: list[PreviewProblem]


def render_line(line: Line, encoder: "ChatEncoder") -> Rendered:
    """Render one line; a broken row comes back with its problem, and with its text where there is one."""
    from pipeline.rendering.backends.chat_text import to_template

    values: dict[str, Any] = {}
    try:
        if line.problem:
            raise json_error(line.problem, "the line is too long")
        values = parse_row(line.raw)
        conversation = parse_conversation(values)
    except RowError as error:
        broken = PreviewProblem(
            line=line.number, turn=None, kind=error.code, message=f"{error.path} {error.message}".strip()
        )
        messages = _messages_as_they_are(values)
        if messages is None:
            return Rendered(line.number, None, None, [broken])
        row = encoder.encode(messages, [])
        return Rendered(line.number, None, row, [broken, *_problems(line.number, row)])
    if not conversation.messages:
        empty = PreviewProblem(line=line.number, turn=None, kind="no_turns", message="the row has no turns")
        return Rendered(line.number, None, None, [empty])
    row = encoder.encode(to_template(conversation.messages), conversation.tools)
    return Rendered(line.number, conversation.format, row, _problems(line.number, row))


class Tally:
    """Counts over all rendered rows."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.num_rows = self.num_refused = self.num_too_long = self.num_untrained = 0
        self.num_tokens = self.num_trained_tokens = self.longest_tokens = 0
        self.formats: set[Format] = set()
        self.problems: list[PreviewProblem] = []

    def add(self, rendered: Rendered) -> None:
        """Count a row as training would."""
        self.num_rows += 1
        self.formats |= {rendered.format} if rendered.format else set()
        self.problems += rendered.problems[: MAX_LISTED_PROBLEMS - len(self.problems)]
        if rendered.row is not None:
            self.longest_tokens = max(self.longest_tokens, len(rendered.row.token_ids))
            self.num_untrained += not rendered.row.num_trained_tokens
        if rendered.problems or rendered.row is None:
            self.num_refused += 1
        elif len(rendered.row.token_ids) > self.max_length:
            self.num_too_long += 1
        else:
            self.num_tokens += len(rendered.row.token_ids)
            self.num_trained_tokens += rendered.row.num_trained_tokens

    def facts(self) -> dict[str, Any]:
        """Return the counts under the names of the result."""
        counts = (
            "num_rows",
            "num_refused",
            "num_too_long",
            "num_untrained",
            "num_tokens",
            "num_trained_tokens",
        )
        share = self.num_trained_tokens / self.num_tokens if self.num_tokens else 0.0
        return {
            **{name: getattr(self, name) for name in counts},
            "trained_share": share,
            "longest_tokens": self.longest_tokens,
        }

    def warnings(self) -> list[str]:
        """Return what a user should know before training."""
        found: list[str] = []
        if self.num_too_long:
            found.append(
                f"{self.num_too_long} rows are longer than max_length {self.max_length} (longest: "
                f"{self.longest_tokens}) and would be left out, not cut"
            )
        if not self.num_trained_tokens:
            found.append("no token would be trained on")
        return found


def _problems(line: int, row: EncodedRow) -> list[PreviewProblem]:
    return [
        PreviewProblem(line=line, turn=problem.turn, kind=problem.kind, message=str(problem))
        for problem in row.problems
    ]


def _messages_as_they_are(values: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the turns of a broken messages row if a template could take them: it then shows what becomes of them."""
    turns: Any = values.get("messages")
    if not is_array(turns) or not turns:
        return None
    is_plain = all(
        is_object(turn) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in turns
    )
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns] if is_plain else None
