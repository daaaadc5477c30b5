"""A result as a person reads it on a terminal: scalars as lines, rows as tables, next step last."""

from typing import Any, TypeGuard

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core.operation import Result
from pipeline.core.units import format_bytes, format_seconds

_NAME_WIDTH = 28  # of 80 columns, for what a row is about


def render_result(result: Result, console: Console | None = None) -> None:
    """Print a result readably."""
    console = console or Console()
    if pieces := result.styled_text():
        console.print(Text.assemble(*pieces))
    else:
        _print_fields(console, result)
    for warning in result.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    if result.next_step:
        console.print(Text(f"next: {result.next_step}", style="green"))


def _print_fields(console: Console, result: Result) -> None:
    values = result.model_dump(mode="json", exclude={"warnings", "next_step"})
    plain = Table(show_header=False, box=None, pad_edge=False)
    for key, value in values.items():
        if isinstance(value, str) and "\n" in value:
            console.print(Text(value))
        elif not _is_rows(value):
            plain.add_row(Text(key, style="dim"), Text(_format(key, value, unit=_find_unit(result, key))))
    if plain.row_count:
        console.print(plain)
    for key, value in values.items():
        if _is_rows(value):
            _print_rows(console, key, value)


def _is_rows(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _print_rows(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title.replace("_", " "), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    longest = max(len(_format(columns[0], row.get(columns[0]))) for row in rows)
    for index, column in enumerate(columns):
        # Headers wrap between words and cells fold: a number that is cut short would be another number. The first
        # column says what a row is about, so the others fold before it.
        stays = index == 0 and longest <= _NAME_WIDTH
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=stays)
    for row in rows:
        table.add_row(*(Text(_format(column, row.get(column))) for column in columns))
    console.print(table)


def _find_unit(result: Result, key: str) -> str:
    """Return the unit of the numbers in a mapping: its name says it, or else its description."""
    description = type(result).model_fields[key].description or ""
    return "bytes" if key.endswith("bytes") or "bytes" in description.lower() else ""


def _format(key: str, value: Any, unit: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and key.endswith("bytes"):
        return format_bytes(value)
    if isinstance(value, int | float) and key.endswith("seconds"):
        return format_seconds(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_format("", item) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return ", ".join(f"{k}={_format(unit or str(k), v)}" for k, v in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)
