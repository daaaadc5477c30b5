"""``data.preview``: the exact text that training trains on, with the trained tokens marked, and what gets lost on the way.

The text, tokens and labels come from :mod:`pipeline.rendering`, which training uses too. Shows some rows and checks all of
them; changes nothing. Rules of conversations beyond what a template does to them are the matter of ``data.validate``.
"""

from collections.abc import Generator
from pathlib import Path

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.files import write_atomic
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.core.progress import Progress
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.data.preview_page import render_page, show_controls
from pipeline.data.preview_rows import PreviewProblem, Rendered, Tally, render_line
from pipeline.data.reader import read_lines
from pipeline.data.sources import no_rows_error
from pipeline.rendering.row import EncodedRow

MAX_SHOWN_TOKENS = 4096
MAX_SHOWN_CHARACTERS = 20_000


class DataPreviewRequest(Request):
    """Which rows to show, and for which model."""

    data: WorkspaceRef = Field(min_length=1)
    """JSON Lines file of messages, ShareGPT or Alpaca rows."""
    model: WorkspaceRef = "smollm2-135m"
    """Model whose chat template and tokenizer are used: starter name, folder, or `file:PATH`."""
    lines: tuple[int, ...] = Field(default=(), max_length=50)
    """Lines of the file to show (from 1); without them the first `num_rows` rows."""
    num_rows: int = Field(default=3, ge=1, le=50)
    """Rows to show when no lines are named."""
    max_length: int = Field(default=1024, ge=16, le=1_048_576)
    """Longest row in tokens: training leaves longer rows out, so give the recipe's own number."""
    check_all: bool = True
    """Also render every row that is not shown, and report what training would refuse or leave out."""


class PreviewRow(Part):
    """One row as the model sees it. The text is the user's data, never an instruction."""

    line: int
    """Line in the file, from 1."""
    num_tokens: int
    """Tokens of the whole row."""
    num_trained_tokens: int
    """Tokens with a label."""
    trained_share: float
    """Their share."""
    is_too_long: bool
    """Longer than max_length: training leaves the row out."""
    untrusted_text: str
    """The training text, its first 20,000 characters."""
    trained_ranges: list[tuple[int, int]]
    """Character positions [start, end) of `untrusted_text` that are trained on."""
    token_ids: list[int]
    """The first 4,096 token ids."""
    labels: list[int]
    """Beside each token id: itself when it is trained on, else -100."""
    problems: list[PreviewProblem]
    """Why training would refuse the row."""


class DataPreviewResult(Result):
    """What training would make of the file."""

    num_rows: int
    """Rows rendered: all of the file, or the shown ones without check_all."""
    num_refused: int
    """Rows that training refuses: broken, or with a turn that the template drops or alters."""
    num_too_long: int
    """Rows that training leaves out because they are longer than max_length."""
    num_untrained: int
    """Rows without a single trained token."""
    num_tokens: int
    """Tokens of the rows that would be trained."""
    num_trained_tokens: int
    """Those with a label."""
    trained_share: float
    """Their share; training refuses a data set where it is 0."""
    longest_tokens: int
    """Tokens of the longest row."""
    page: str
    """The shown rows as an HTML page, relative to the workspace."""
    problems: list[PreviewProblem]
    """The first 100 problems of the file."""
    rows: list[PreviewRow]
    """The shown rows."""

    def is_negative(self) -> bool:
        """True when training would refuse the file."""
        return self.num_refused > 0 or self.num_trained_tokens == 0

    def styled_text(self) -> list[tuple[str, str]]:
        """Return the shown rows with trained text in reverse colours."""
        pieces: list[tuple[str, str]] = []
        for row in self.rows:
            pieces += _style_row(row)
        pieces.append(
            (
                f"{self.num_rows} rows: {self.num_refused} refused, {self.num_too_long} too long, "
                f"{self.num_untrained} without a trained token; {self.trained_share:.1%} of "
                f"{self.num_tokens} tokens are trained\n",
                "bold",
            )
        )
        shown = {row.line for row in self.rows}
        others = [problem for problem in self.problems if problem.line not in shown]
        pieces += [(f"line {problem.line}: {_describe(problem)}\n", "red") for problem in others]
        return [*pieces, (f"page: {self.page}", "dim")]


def preview_data(request: DataPreviewRequest, run: Run) -> DataPreviewResult:
    """Show the exact training text of rows with the trained tokens marked, and what the chat template loses.

    Raises:
        InvalidInputError: If the file or the model is unusable, or a line asked for is not there.
    """
    require("transformers", extra="train")
    from pipeline.rendering.backends.chat_text import ChatEncoder

    path, folder = resolve_path(request.data), resolve_path(request.model)
    encoder = ChatEncoder.from_folder(folder)
    tally = Tally(request.max_length)
    shown: list[Rendered] = []
    with Progress("preview", path.stat().st_size, unit="bytes", run=run) as progress:
        for line in read_lines(path):
            is_shown = line.number in request.lines if request.lines else len(shown) < request.num_rows
            if is_shown or request.check_all:
                rendered = render_line(line, encoder)
                tally.add(rendered)
                shown += [rendered] if is_shown else []
            progress.advance(len(line.raw) + 1)
            if not request.check_all and len(shown) == (len(set(request.lines)) or request.num_rows):
                break
    if missing := sorted(set(request.lines) - {rendered.line for rendered in shown}):
        raise InvalidInputError(
            f"{path.name} has no row on line {missing[0]}",
            hint="Blank lines are no rows; lines count from 1.",
        )
    if not tally.num_rows:
        raise no_rows_error(path)
    page = run.artifacts / "preview.html"
    write_atomic(
        page,
        render_page(path.name, request.model, [(r.line, r.row, _texts(r)) for r in shown], tally.facts()),
    )
    return DataPreviewResult(
        **tally.facts(),
        page=str(page.relative_to(Settings.load().workspace)),
        problems=tally.problems,
        rows=[_bound(rendered, request.max_length) for rendered in shown],
        warnings=tally.warnings(),
        next_step=_next_step(request.data, path, tally),
    )


def _bound(rendered: Rendered, max_length: int) -> PreviewRow:
    row = rendered.row or EncodedRow("", [], [], [], ())
    num_tokens, num_trained = len(row.token_ids), row.num_trained_tokens
    return PreviewRow(
        line=rendered.line,
        num_tokens=num_tokens,
        num_trained_tokens=num_trained,
        trained_share=num_trained / num_tokens if num_tokens else 0.0,
        is_too_long=num_tokens > max_length,
        untrusted_text=row.text[:MAX_SHOWN_CHARACTERS],
        trained_ranges=[
            (start, min(end, MAX_SHOWN_CHARACTERS))
            for start, end in row.trained_ranges()
            if start < MAX_SHOWN_CHARACTERS
        ],
        token_ids=row.token_ids[:MAX_SHOWN_TOKENS],
        labels=row.labels[:MAX_SHOWN_TOKENS],
        problems=rendered.problems,
    )


def _texts(rendered: Rendered) -> list[str]:
    return [_describe(problem) for problem in rendered.problems]


def _describe(problem: PreviewProblem) -> str:
    return show_controls(f"{problem.message} ({problem.kind})")


def _style_row(row: PreviewRow) -> Generator[tuple[str, str]]:
    verdict = "refused" if row.problems else "too long, left out" if row.is_too_long else "trained"
    yield (
        f"line {row.line}: {row.num_tokens} tokens, {row.num_trained_tokens} trained ({row.trained_share:.1%}), "
        f"{verdict}\n",
        "bold",
    )
    for problem in row.problems:
        yield f"{_describe(problem)}\n", "red"
    cursor = 0
    for start, end in row.trained_ranges:
        yield show_controls(row.untrusted_text[cursor:start]), "dim"
        yield show_controls(row.untrusted_text[start:end]), "black on green"
        cursor = end
    yield show_controls(row.untrusted_text[cursor:]) + "\n\n", "dim"


def _next_step(data: str, path: Path, tally: Tally) -> str:
    if tally.num_refused:
        return f"llmops data validate {data}"
    if tally.formats - {"messages"}:
        return f"llmops data convert {data} --to messages --out {path.stem}.messages.jsonl   (training reads messages)"
    return f"llmops train run {data}"


DATA_PREVIEW = Operation(
    name="data.preview",
    request=DataPreviewRequest,
    result=DataPreviewResult,
    run=preview_data,
    read_only=True,
    long_running=True,
    positional=("data",),
)
