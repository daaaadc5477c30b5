"""Reports as pages: the part of Markdown that our reports use, as one self-contained HTML file."""

import base64
import html
import re
from pathlib import Path

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1c2733}
table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #d5dce3;padding:.3rem .8rem;text-align:left}
code{background:#f0f3f6;padding:.1rem .3rem;border-radius:3px;font-size:.88em;overflow-wrap:anywhere}img{max-width:100%}"""


def render_html(markdown: str, folder: Path) -> str:
    """Return our Markdown (headings, tables, lists, images, code, bold, italic) as one self-contained HTML page."""
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", markdown.strip()):
        blocks.append(_render_block(block.strip("\n"), folder))
    title = markdown.splitlines()[0].lstrip("# ")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(blocks)}</body></html>\n"
    )


def _render_block(block: str, folder: Path) -> str:
    lines = block.splitlines()
    if heading := re.match(r"(#+) (.*)", lines[0]):
        level = len(heading[1])
        rest = _render_block("\n".join(lines[1:]), folder) if lines[1:] else ""
        return f"<h{level}>{_inline(heading[2])}</h{level}>{rest}"
    if image := re.fullmatch(r"!\[(.*)\]\((.*)\)", block):
        encoded = base64.b64encode((folder / image[2]).read_bytes()).decode()
        return f'<p><img alt="{html.escape(image[1])}" src="data:image/png;base64,{encoded}"></p>'
    if lines[0].startswith("| "):
        return _render_table([line for line in lines if line.startswith("|")])
    if lines[0].startswith("- "):
        items = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
        return "<ul>" + "".join(f"<li>{_inline(item.strip())}</li>" for item in items) + "</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _render_table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows[2:]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _inline(text: str) -> str:
    # Code first, so that stars and underscores inside it stay as they are.
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        f"<code>{html.escape(part[1:-1])}</code>"
        if part.startswith("`")
        else re.sub(
            r"(?<!\w)\*([^*]+)\*", r"<em>\1</em>", re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(part))
        ).replace("\n", "<br>")
        for part in parts
    )
