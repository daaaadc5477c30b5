"""Operation ``economics.compare``: API against a model of one's own, in money. "Never pays back" is an answer too.

Compares cost at equal usefulness: whether the own model is as good is for ``evals`` to say, and whether to train at
all for ``decide.recommend``.
"""

from datetime import UTC, datetime
from typing import Literal

from pipeline.core.extras import installed_version
from pipeline.core.files import write_atomic, write_json
from pipeline.core.operation import Operation, Result
from pipeline.core.paths import resolve_path
from pipeline.core.prices import ModelPrice, find_price, find_price_warnings
from pipeline.economics.cost import DAYS_PER_MONTH, ENDS, Case, add_hidden_costs, read_direct_costs
from pipeline.economics.facts import EconomicsCompareRequest
from pipeline.economics.sensitivity import Sensitivity, analyse_sensitivity

Verdict = Literal["pays back fast", "pays back", "pays back late", "never pays back"]
# Thresholds of the published lessons of chapter 61: below 3 months strong, to 12 good, beyond reconsider.
FAST_MONTHS, LATE_MONTHS = 3, 12


class EconomicsCompareResult(Result):
    """Does it pay?"""

    verdict: Verdict
    """Of the expected case: payback within 3 months, within 12, later, or never."""
    payback_months: float | None
    """Direct costs only, as the lesson's formula counts: months until training is earned back; none: never."""
    break_even_requests: int | None
    """Direct costs only: requests until then."""
    break_even_days: float | None
    """Direct costs only: days until then."""
    requests_per_month: float
    """Requests in 30 days."""
    api_usd_per_request: float
    """API, one request."""
    own_usd_per_request: float
    """Own model, one request: serving only, at this volume."""
    num_gpus: int | None
    """Rented GPUs that serve this volume; none when serving is not by rented GPU."""
    price: ModelPrice | None
    """Token price that was used."""
    cases: list[Case]
    """`direct` costs only, then with hidden costs at the `low`, `expected` and `high` end of their ranges."""
    sensitivity: list[Sensitivity]
    """Around the expected case, one input at a time, the strongest first."""
    report: str
    """Readable report; empty without `out`."""


def compare_economics(request: EconomicsCompareRequest) -> EconomicsCompareResult:
    """Compare the cost of an API with a model of one's own: break-even, payback, sensitivity.

    Raises:
        InvalidInputError: If the API model has no known price.
    """
    direct = read_direct_costs(request)
    low, expected, high = (add_hidden_costs(direct, request, end) for end in ENDS)
    cases = [direct.describe("direct")]
    cases += [costs.describe(end) for costs, end in zip((low, expected, high), ENDS, strict=True)]
    price = find_price(request.api_model, request.prices) if request.api_model else None
    result = EconomicsCompareResult(
        verdict=judge_payback(expected.payback_months),
        payback_months=cases[0].payback_months,
        break_even_requests=cases[0].break_even_requests,
        break_even_days=None
        if (months := direct.payback_months) is None
        else round(months * DAYS_PER_MONTH, 2),
        requests_per_month=direct.requests_per_month,
        api_usd_per_request=round(direct.api_usd_per_request, 10),
        own_usd_per_request=round(direct.serving_usd / direct.requests_per_month, 10),
        num_gpus=direct.num_units_needed if request.rented_gpu else None,
        price=price,
        cases=cases,
        sensitivity=analyse_sensitivity(low, expected, high),
        report="",
        warnings=_find_warnings(request, price),
        next_step="llmops decide recommend --request USE_CASE.json",
    )
    return result if request.out is None else _write_files(result, request.out)


def judge_payback(months: float | None) -> Verdict:
    """Return the verdict on a payback time."""
    if months is None:
        return "never pays back"
    if months <= FAST_MONTHS:
        return "pays back fast"
    return "pays back" if months <= LATE_MONTHS else "pays back late"


def _find_warnings(request: EconomicsCompareRequest, price: ModelPrice | None) -> list[str]:
    warnings = find_price_warnings(price, datetime.now(UTC).date()) if price else []
    if price is None:
        warnings.append(
            "api_usd_per_request is taken as given: token counts and a dated price are surer than a guessed price"
        )
    elif request.cached_input_tokens and price.cached_input_usd is None:
        warnings.append(f"{price.model} has no cached price on file: cached tokens are charged as input")
    if request.rented_gpu is not None and request.rented_gpu.requests_per_second is None:
        warnings.append(
            f"that {request.rented_gpu.num_gpus} GPU serve this volume is assumed: measure requests_per_second"
        )
    if request.hourly_usd is None:
        expected = add_hidden_costs(read_direct_costs(request), request, "expected")
        warnings.append(
            f"people are not priced: {expected.setup_hours:g} hours before the start and "
            f"{expected.monthly_maintenance_hours:g} a month; set hourly_usd"
        )
    return warnings


def _write_files(result: EconomicsCompareResult, out: str) -> EconomicsCompareResult:
    from pipeline.economics.report import render_report

    folder = resolve_path(out)
    picture = installed_version("matplotlib") is not None
    warnings = (
        result.warnings if picture else [*result.warnings, "tornado.png not drawn: matplotlib is missing"]
    )
    result = result.model_copy(update={"report": str(folder / "economics.md"), "warnings": warnings})
    if picture and result.sensitivity:
        from pipeline.economics.backends.plots import draw_tornado

        folder.mkdir(parents=True, exist_ok=True)
        draw_tornado(result.sensitivity, result.cases[2], folder / "tornado.png")
    write_json(folder / "economics.json", result.model_dump(mode="json"))
    write_atomic(folder / "economics.md", render_report(result, has_picture=picture))
    return result


ECONOMICS_COMPARE = Operation(
    name="economics.compare",
    request=EconomicsCompareRequest,
    result=EconomicsCompareResult,
    run=compare_economics,
)
