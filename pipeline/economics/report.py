"""The comparison as Markdown."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.economics.cost import Case
from pipeline.economics.sensitivity import Sensitivity

if TYPE_CHECKING:
    from pipeline.economics.compare import EconomicsCompareResult


def render_report(result: "EconomicsCompareResult", *, has_picture: bool) -> str:
    """Return the whole report."""
    price = result.price
    source = f"{price.model}, {price.source}, {price.as_of}" if price else "given per request, not checked"
    lines = [
        f"# It {result.verdict}",
        "",
        f"- {result.requests_per_month:,.0f} requests a month",
        f"- API: ${result.api_usd_per_request:.6g} a request ({source})",
        f"- own model: ${result.own_usd_per_request:.6g} a request for serving at this volume",
        *(f"- note: {warning}" for warning in result.warnings),
        "",
        "## Money",
        "",
        "break-even requests = setup / (API cost per request - own cost per request); months of 30 days. `direct` counts",
        "one training run and serving, the others also people and all training runs, at each end of their ranges.",
        "",
        *render_cases(result.cases),
        "",
        "## Sensitivity",
        "",
        "Around the case `expected`, one input at a time, the strongest first.",
        "",
        *_render_sensitivity(result.sensitivity),
        "",
    ]
    return "\n".join([*lines, "![tornado](tornado.png)", ""] if has_picture else lines)


def render_cases(cases: list[Case]) -> list[str]:
    """Return the cases as a table."""
    header = (
        "case",
        "setup $",
        "API $ / month",
        "own $ / month",
        "saving $ / month",
        "payback months",
        "requests",
    )
    return render_table(
        (*header, "at least / month"),
        [
            (
                case.case,
                *(f"{usd:,.2f}" for usd in (case.setup_usd, case.api_usd, case.own_usd, case.saving_usd)),
                _months(case.payback_months),
                _count(case.break_even_requests),
                _count(case.min_requests_per_month),
            )
            for case in cases
        ],
    )


def render_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return a Markdown table, one line a row."""
    return [_row(header), _row(("---",) * len(header)), *(_row(row) for row in rows)]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _render_sensitivity(rows: list[Sensitivity]) -> list[str]:
    header = (
        "input",
        "low",
        "high",
        "payback at low",
        "payback at high",
        "saving $ at low",
        "saving $ at high",
    )
    return render_table(
        header,
        [
            (
                row.factor,
                f"{row.low:g}",
                f"{row.high:g}",
                _months(row.payback_low),
                _months(row.payback_high),
                f"{row.saving_low:,.2f}",
                f"{row.saving_high:,.2f}",
            )
            for row in rows
        ],
    )


def _months(months: float | None) -> str:
    return "never" if months is None else f"{months:.2f}"


def _count(value: int | None) -> str:
    return "never" if value is None else f"{value:,}"
