"""The data report as Markdown: the template and how its numbers are printed."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

_LINE_ENDS = re.compile("[\r\n\x0b\x0c\x85\u2028\u2029]+")


def render_markdown(facts: dict[str, Any]) -> str:
    """Return the report; facts are those of the result, and the lengths of the rows by split."""
    import jinja2

    template = files("pipeline.data").joinpath("templates/data_report.md.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, finalize=_in_cell
    )
    return environment.from_string(template).render(
        **facts, share=format_share, number=format_number, percentile=find_percentile
    )


def format_share(part: float | None, whole: float | None = 1) -> str:
    """Return a share in per cent; a dash when there is nothing to count."""
    return "-" if part is None or not whole else f"{100 * part / whole:.1f} %"


def format_number(value: float | None) -> str:
    """Return a number as a person reads it."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def find_percentile(ordered: Sequence[int], percent: int) -> str:
    """Return the nearest-rank percentile of ordered numbers."""
    return f"{ordered[max(0, -(-len(ordered) * percent // 100) - 1)]:,}" if ordered else "-"


def _in_cell(value: Any) -> Any:
    # Names of tags, groups and files are the user's: they must not end a table cell or a line.
    return _LINE_ENDS.sub(" ", value).replace("|", "/").replace("`", "'") if isinstance(value, str) else value
