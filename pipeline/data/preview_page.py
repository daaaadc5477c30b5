"""Rendered rows as one HTML page: every token a box, trained ones marked; and text made safe to look at."""

import re
from collections.abc import Generator, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from pipeline.rendering.row import IGNORED, EncodedRow

# Controls but tab and line feed, bidirectional marks, zero-width characters and line separators: they hide or reorder text.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class Piece(NamedTuple):
    """The text of one token."""

    text: str
    token_id: int
    is_trained: bool


def show_controls(text: str) -> str:
    """Return the text with the characters that a terminal or page would hide or obey written as escapes."""
    return _HIDDEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def render_page(
    file: str, model: str, rows: Sequence[tuple[int, EncodedRow | None, list[str]]], facts: dict[str, Any]
) -> str:
    """Return the page; rows are (line, row, problems in words)."""
    import jinja2

    source = files("pipeline.data").joinpath("templates/preview.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    shown = [
        {"line": line, "row": row, "problems": problems, "pieces": list(cut_pieces(row)) if row else []}
        for line, row, problems in rows
    ]
    return environment.from_string(source).render(file=file, model=model, rows=shown, facts=facts)


def cut_pieces(row: EncodedRow) -> Generator[Piece]:
    """Yield the whole text in pieces, one for each token that ends further on than the one before."""
    cursor = 0
    for token_id, label, (_, end) in zip(row.token_ids, row.labels, row.offsets, strict=True):
        if end > cursor:
            yield Piece(show_controls(row.text[cursor:end]), token_id, label != IGNORED)
            cursor = end
    if cursor < len(row.text):
        yield Piece(show_controls(row.text[cursor:]), -1, is_trained=False)
