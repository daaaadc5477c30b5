"""The facts that a cost comparison needs, as a request states them. Computes nothing."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.core.operation import Part, Request
from pipeline.economics.prices import ModelPrice

Usd = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Hours = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
HoursPerDay = Annotated[float, Field(gt=0, le=24, allow_inf_nan=False)]
NumTokens = Annotated[int, Field(ge=0, le=10_000_000)]


class Range(Part):
    """A number that is known only roughly."""

    low: Hours
    """Lowest that is plausible."""
    expected: Hours
    """Most likely."""
    high: Hours
    """Highest that is plausible."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.low <= self.expected <= self.high:
            raise ValueError(f"must rise: low {self.low:g}, expected {self.expected:g}, high {self.high:g}")
        return self


def _around(low: float, high: float) -> Range:
    return Range(low=low, expected=(low + high) / 2, high=high)


class HiddenCosts(Part):
    """What a budget of GPU hours leaves out.

    The default ranges are those of the published lessons of chapter 61; expected is the middle of each.
    """

    hourly_usd: Usd | None = None
    """What an hour of the people costs; none: hours are reported and not priced."""
    data_hours: Range = _around(40, 100)
    """Collecting, cleaning and checking data, once."""
    evaluation_hours: Range = _around(20, 40)
    """Writing and reading evaluations, once."""
    infrastructure_hours: Range = _around(5, 20)
    """Setting up training and serving, once."""
    monthly_maintenance_hours: Range = _around(5, 10)
    """Watching, updating and retraining, every month."""
    num_training_runs: Range = _around(3, 10)
    """Training runs until one is good enough, at least 1; each costs `training_usd`."""

    @model_validator(mode="after")
    def _check_runs(self) -> Self:
        if self.num_training_runs.low < 1:
            raise ValueError("num_training_runs must be 1 or more: a model needs one run")
        return self


class RentedGpu(Part):
    """Serving on GPUs paid by the hour."""

    usd_per_hour: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    """One GPU for one hour."""
    num_gpus: int = Field(default=1, ge=1, le=10_000)
    """GPUs that are always there; more are added when the requests need them."""
    hours_per_day: HoursPerDay = 24
    """Hours that are paid each day; below 24 the model is off at other times."""
    requests_per_second: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)
    """What one GPU answers at full load, measured; none: assume that `num_gpus` are enough."""
    utilisation: float = Field(default=0.5, gt=0, le=1, allow_inf_nan=False)
    """Mean load to plan for, as a share of full load; traffic has peaks."""


class OwnHardware(Part):
    """Serving on a machine that was bought."""

    purchase_usd: Usd
    """Price of the machine."""
    lifetime_months: float = Field(default=36, gt=0, le=240, allow_inf_nan=False)
    """Months over which the price is spread."""
    watts: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    """Mean power while it is on."""
    usd_per_kwh: float = Field(ge=0, le=100, allow_inf_nan=False)
    """Price of power."""
    hours_per_day: HoursPerDay = 24
    """Hours it is on."""


class CostFacts(Request):
    """What is known about money."""

    api_model: str | None = Field(default=None, min_length=1)
    """API model that would do the work, priced by tokens; give this or `api_usd_per_request`."""
    input_tokens: NumTokens | None = None
    """Input tokens of a request: instructions, tools, history and message."""
    cached_input_tokens: NumTokens = 0
    """Of those, how many the provider reads from its prompt cache."""
    output_tokens: NumTokens | None = None
    """Output tokens of a request, hidden reasoning included."""
    batch: bool = False
    """Requests can wait for the provider's batch price."""
    api_usd_per_request: float | None = Field(default=None, gt=0, le=10_000, allow_inf_nan=False)
    """What a request costs, when tokens are not known; a guess, so the result warns."""
    prices: list[ModelPrice] = []
    """Price rows that replace or extend the dated rows of this package."""
    serving_usd_per_month: Usd | None = None
    """What serving one's own model costs a month; give this, `rented_gpu` or `own_hardware`."""
    rented_gpu: RentedGpu | None = None
    """Serving on rented GPUs."""
    own_hardware: OwnHardware | None = None
    """Serving on a bought machine."""
    training_usd: Usd
    """Compute for one training run."""
    hidden: HiddenCosts = HiddenCosts()
    """Hours of people, number of training runs, maintenance."""

    @model_validator(mode="after")
    def _check_api(self) -> Self:
        if (self.api_model is None) == (self.api_usd_per_request is None):
            raise ValueError(
                "give either api_model with input_tokens and output_tokens, or api_usd_per_request"
            )
        if self.api_model is None:
            if self.input_tokens or self.cached_input_tokens or self.output_tokens or self.batch:
                raise ValueError(
                    "api_usd_per_request contradicts token counts and batch: give one or the other"
                )
            return self
        if self.input_tokens is None or self.output_tokens is None:
            raise ValueError("api_model needs input_tokens and output_tokens")
        if self.input_tokens + self.output_tokens == 0:
            raise ValueError("input_tokens and output_tokens are both 0; together they must be at least 1")
        if self.cached_input_tokens > self.input_tokens:
            raise ValueError(
                f"cached_input_tokens ({self.cached_input_tokens}) must be from 0 to input_tokens ({self.input_tokens})"
            )
        return self

    @model_validator(mode="after")
    def _check_serving(self) -> Self:
        given = [self.serving_usd_per_month, self.rented_gpu, self.own_hardware]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of serving_usd_per_month, rented_gpu and own_hardware")
        return self
