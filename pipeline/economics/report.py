"""The comparison as Markdown."""

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
    rows = [
        "| case | setup $ | API $ / month | own $ / month | saving $ / month | payback months | requests | at least / month |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return rows + [
        f"| {case.case} | {case.setup_usd:,.2f} | {case.api_usd:,.2f} | {case.own_usd:,.2f} | {case.saving_usd:,.2f} "
        f"| {format_months(case.payback_months)} | {_count(case.break_even_requests)} "
        f"| {_count(case.min_requests_per_month)} |"
        for case in cases
    ]


def _render_sensitivity(rows: list[Sensitivity]) -> list[str]:
    table = [
        "| input | low | high | payback at low | payback at high | saving $ at low | saving $ at high |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return table + [
        f"| {row.factor} | {row.low:g} | {row.high:g} | {format_months(row.payback_low)} "
        f"| {format_months(row.payback_high)} | {row.saving_low:,.2f} | {row.saving_high:,.2f} |"
        for row in rows
    ]


def format_months(months: float | None) -> str:
    """Return a payback for people."""
    return "never" if months is None else f"{months:.2f}"


def _count(value: int | None) -> str:
    return "never" if value is None else f"{value:,}"
