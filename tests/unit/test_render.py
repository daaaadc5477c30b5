"""Results on a terminal of 80 columns: nothing is cut off, names stay whole, numbers stay readable."""

import io

from rich.console import Console

from pipeline.core.operation import Result
from pipeline.economics.sensitivity import Sensitivity
from pipeline.render import render_result


class Table(Result):
    monthly_requests: float
    rows: list[Sensitivity]


def render(result: Result) -> str:
    console = Console(file=io.StringIO(), width=80)
    render_result(result, console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]


def test_seven_columns_fit_80_columns_with_names_and_numbers_whole() -> None:
    row = Sensitivity(
        factor="monthly_maintenance_hours",
        low=216,
        high=648,
        payback_low=None,
        payback_high=23.3333,
        saving_low=-1234.5,
        saving_high=1102.25,
    )
    text = render(Table(monthly_requests=300_000.0, rows=[row]))
    assert max(len(line) for line in text.splitlines()) <= 80
    line = next(line for line in text.splitlines() if "monthly_maintenance_hours" in line)
    assert line.split() == ["monthly_maintenance_hours", "216", "648", "-", "23.33", "-1,234", "1,102"]
    assert "300,000" in text
    assert "…" not in text
