"""The arithmetic: one case of money, as plain numbers that a sensitivity analysis can vary one at a time.

    break-even requests = setup / (API cost per request - own cost per request)        (chapter 61, lesson 5)
    payback months      = setup / (API cost per month - own cost per month)

Both are the same statement: break-even requests = payback months x requests per month. A month has 30 days.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from pipeline.core.operation import Part
from pipeline.core.prices import RequestTokens, find_price, usd_per_request
from pipeline.economics.facts import EconomicsCompareRequest, OwnHardware

End = Literal["low", "expected", "high"]
ENDS: tuple[End, ...] = get_args(End)
DAYS_PER_MONTH = 30
_HOURS_PER_DAY, _SECONDS_PER_HOUR = 24, 3600


class Case(Part):
    """Money under one set of assumptions; none means that it never pays back."""

    case: str
    """`direct`: one training run and serving; `low`, `expected`, `high`: with people and all training runs too."""
    setup_usd: float
    """Spent before the first request."""
    api_usd: float
    """API, a month."""
    own_usd: float
    """Own model, a month: serving and maintenance."""
    saving_usd: float
    """API minus own, a month."""
    payback_months: float | None
    """Months until the setup is earned back."""
    break_even_requests: int | None
    """Requests until then."""
    min_requests_per_month: int | None
    """Volume from which a month of the own model is not dearer than the API; none at any volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Numbers of one case."""

    requests_per_day: float
    api_usd_per_request: float
    serving_usd_per_month: float
    """Of one unit: one GPU, or the whole service."""
    num_units: int = 1
    """Units that are there at any volume."""
    requests_per_unit_day: float | None = None
    """What one unit serves; None: any number."""
    training_usd: float
    num_training_runs: float = 1
    hourly_usd: float = 0
    data_hours: float = 0
    evaluation_hours: float = 0
    infrastructure_hours: float = 0
    monthly_maintenance_hours: float = 0

    @property
    def requests_per_month(self) -> float:
        """Requests in 30 days."""
        return self.requests_per_day * DAYS_PER_MONTH

    @property
    def api_usd(self) -> float:
        """API, a month."""
        return self.requests_per_month * self.api_usd_per_request

    @property
    def num_units_needed(self) -> int:
        """Units that serve the requests."""
        if self.requests_per_unit_day is None:
            return self.num_units
        return max(self.num_units, math.ceil(self.requests_per_day / self.requests_per_unit_day))

    @property
    def serving_usd(self) -> float:
        """Serving, a month."""
        return self.num_units_needed * self.serving_usd_per_month

    @property
    def maintenance_usd(self) -> float:
        """People who keep it running, a month."""
        return self.monthly_maintenance_hours * self.hourly_usd

    @property
    def saving_usd(self) -> float:
        """API minus own model, a month."""
        return self.api_usd - self.serving_usd - self.maintenance_usd

    @property
    def setup_hours(self) -> float:
        """Hours of people before the first request."""
        return self.data_hours + self.evaluation_hours + self.infrastructure_hours

    @property
    def setup_usd(self) -> float:
        """Everything before the first request."""
        return self.training_usd * self.num_training_runs + self.setup_hours * self.hourly_usd

    @property
    def payback_months(self) -> float | None:
        """Months until the setup is earned back; None when a month saves nothing."""
        return self.setup_usd / self.saving_usd if self.saving_usd > 0 else None

    @property
    def min_requests_per_month(self) -> int | None:
        """Smallest volume at which a month of the own model is not dearer than the API."""
        num_units = self.num_units
        if self.requests_per_unit_day is not None:
            # Another unit only pays when the requests it serves cost more at the API than the unit itself.
            earned = self.requests_per_unit_day * DAYS_PER_MONTH * self.api_usd_per_request
            margin = earned - self.serving_usd_per_month
            if margin <= 0 and num_units * margin < self.maintenance_usd:
                return None
            if margin > 0:
                num_units = max(num_units, math.ceil(round(self.maintenance_usd / margin, 9)))
        usd = num_units * self.serving_usd_per_month + self.maintenance_usd
        return math.ceil(round(usd / self.api_usd_per_request, 6))

    def describe(self, case: str) -> Case:
        """Return the case as a result row, money in cents."""
        payback = self.payback_months
        return Case(
            case=case,
            setup_usd=round(self.setup_usd, 2),
            api_usd=round(self.api_usd, 2),
            own_usd=round(self.serving_usd + self.maintenance_usd, 2),
            saving_usd=round(self.saving_usd, 2),
            payback_months=None if payback is None else round(payback, 4),
            break_even_requests=None
            if payback is None
            else math.ceil(round(payback * self.requests_per_month, 6)),
            min_requests_per_month=self.min_requests_per_month,
        )


def read_direct_costs(facts: EconomicsCompareRequest) -> Costs:
    """Return what the lesson's formula counts: one training run and serving.

    Raises:
        InvalidInputError: If the API model has no known price.
    """
    costs = Costs(
        requests_per_day=facts.requests_per_day,
        api_usd_per_request=_read_api_usd(facts),
        serving_usd_per_month=facts.serving_usd_per_month or 0,
        training_usd=facts.training_usd,
    )
    if facts.own_hardware is not None:
        return replace(costs, serving_usd_per_month=_own_hardware_usd(facts.own_hardware))
    if (gpu := facts.rented_gpu) is None:
        return costs
    capacity = None
    if gpu.requests_per_second is not None:
        capacity = gpu.requests_per_second * gpu.utilisation * gpu.hours_per_day * _SECONDS_PER_HOUR
    return replace(
        costs,
        serving_usd_per_month=gpu.usd_per_hour * gpu.hours_per_day * DAYS_PER_MONTH,
        num_units=gpu.num_gpus,
        requests_per_unit_day=capacity,
    )


def add_hidden_costs(direct: Costs, facts: EconomicsCompareRequest, end: End) -> Costs:
    """Return the costs with people and repeated training at one end of their ranges."""
    index = ENDS.index(end)

    return replace(
        direct,
        num_training_runs=facts.num_training_runs[index],
        hourly_usd=facts.hourly_usd or 0,
        data_hours=facts.data_hours[index],
        evaluation_hours=facts.evaluation_hours[index],
        infrastructure_hours=facts.infrastructure_hours[index],
        monthly_maintenance_hours=facts.monthly_maintenance_hours[index],
    )


def _read_api_usd(facts: EconomicsCompareRequest) -> float:
    if facts.api_model is None:
        assert facts.api_usd_per_request is not None  # CostFacts checks it
        return facts.api_usd_per_request
    tokens = RequestTokens(
        num_input=facts.input_tokens or 0,
        num_cached_input=facts.cached_input_tokens,
        num_output=facts.output_tokens or 0,
    )
    return usd_per_request(find_price(facts.api_model, facts.prices), tokens)


def _own_hardware_usd(hardware: OwnHardware) -> float:
    kwh = hardware.watts / 1000 * _HOURS_PER_DAY * DAYS_PER_MONTH
    return hardware.purchase_usd / hardware.lifetime_months + kwh * hardware.usd_per_kwh
