"""A Markdown report as one self-contained HTML page: pictures inside, nothing that a model or a user said as markup.

Does not write files: the caller does, through :mod:`pipeline.core.files`.
"""

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1c2733}
table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #d5dce3;padding:.3rem .8rem;text-align:left}
code{background:#f0f3f6;padding:.1rem .3rem;border-radius:3px;font-size:.88em;overflow-wrap:anywhere}img{max-width:100%}
@media(prefers-color-scheme:dark){body{background:#12181f;color:#dce3ea}code{background:#212b36}
td,th{border-color:#3a4653}img{background:#fff}}"""


def render_html(markdown: str, folder: Path, *, reload_seconds: int | None = None) -> str:
    """Return a page of CommonMark with tables; PNG files of ``folder`` that it shows are put inside.

    With ``reload_seconds`` the browser asks for the page again after that time: for pages that are still being written.

    Raises:
        FileNotFoundError: If the text shows a picture that is not in the folder.
    """
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(markdown)
    _embed_pictures(tokens, folder)
    body = reader.renderer.render(tokens, reader.options, {})
    title = next((line.lstrip("# ") for line in markdown.splitlines() if line.startswith("#")), "Report")
    refresh = "" if reload_seconds is None else f'<meta http-equiv="refresh" content="{reload_seconds}">'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _embed_pictures(tokens: "Sequence[Token]", folder: Path) -> None:
    for token in tokens:
        source = str(token.attrGet("src") or "")
        if token.type == "image" and source.endswith(".png") and "/" not in source:
            encoded = base64.b64encode((folder / source).read_bytes()).decode()
            token.attrSet("src", f"data:image/png;base64,{encoded}")
        _embed_pictures(token.children or (), folder)
