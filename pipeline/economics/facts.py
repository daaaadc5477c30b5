"""The facts that a cost comparison needs, as a request states them. Computes nothing."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.core.operation import Part, Request
from pipeline.core.paths import WorkspacePath
from pipeline.core.prices import ModelPrice


def _check_order(value: list[float]) -> list[float]:
    if value != sorted(value):
        raise ValueError(
            f"must rise from low over expected to high, not {', '.join(f'{item:g}' for item in value)}"
        )
    return value


Usd = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Hours = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
Range = Annotated[list[Hours], Field(min_length=3, max_length=3), AfterValidator(_check_order)]
"""A number that is known only roughly: low, expected, high."""
NumTokens = Annotated[int, Field(ge=0, le=10_000_000)]


class RentedGpu(Part):
    """Serving on GPUs paid by the hour."""

    usd_per_hour: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    """One GPU for one hour."""
    num_gpus: int = Field(default=1, ge=1, le=10_000)
    """GPUs at least; more are added when the requests need them."""
    hours_per_day: float = Field(default=24, gt=0, le=24, allow_inf_nan=False)
    """Hours paid each day."""
    requests_per_second: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)
    """One GPU at full load, measured; none: `num_gpus` are taken to be enough."""
    utilisation: float = Field(default=0.5, gt=0, le=1, allow_inf_nan=False)
    """Mean load to plan for, as a share of full load."""


class OwnHardware(Part):
    """Serving on a machine that was bought."""

    purchase_usd: Usd
    """Price of the machine."""
    lifetime_months: float = Field(default=36, gt=0, le=240, allow_inf_nan=False)
    """Months over which the price is spread."""
    watts: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    """Mean power; it is on all day."""
    usd_per_kwh: float = Field(ge=0, le=100, allow_inf_nan=False)
    """Price of power."""


class CostFacts(Request):
    """What is known about money: the API, serving and training."""

    api_model: str | None = Field(default=None, min_length=1)
    """API model, priced by tokens; give this or `api_usd_per_request`."""
    input_tokens: NumTokens | None = None
    """Input tokens of a request, instructions and tools included."""
    cached_input_tokens: NumTokens = 0
    """Of those, read from the provider's prompt cache."""
    output_tokens: NumTokens | None = None
    """Output tokens of a request, hidden reasoning included."""
    api_usd_per_request: float | None = Field(default=None, gt=0, le=10_000, allow_inf_nan=False)
    """What a request costs, when its tokens are not known."""
    serving_usd_per_month: Usd | None = None
    """Serving one's own model; give this, `rented_gpu` or `own_hardware`."""
    rented_gpu: RentedGpu | None = None
    """Serving on rented GPUs."""
    own_hardware: OwnHardware | None = None
    """Serving on a bought machine."""
    training_usd: Usd
    """Compute for one training run."""
    hourly_usd: Usd | None = None
    """What an hour of the people costs; none: hours are reported and not priced."""

    @model_validator(mode="after")
    def _check_api(self) -> Self:
        if (self.api_model is None) == (self.api_usd_per_request is None):
            raise ValueError(
                "give either api_model with input_tokens and output_tokens, or api_usd_per_request"
            )
        if self.api_model is None:
            if self.input_tokens or self.cached_input_tokens or self.output_tokens:
                raise ValueError("api_usd_per_request contradicts token counts: give one or the other")
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


class EconomicsCompareRequest(CostFacts):
    """What the work costs, and how much of it there is; ranges are low, expected, high."""

    requests_per_day: float = Field(gt=0, le=1e9, allow_inf_nan=False)
    """Requests on a mean day."""
    prices: list[ModelPrice] = []
    """Price rows that come before those of this package."""
    # The default ranges are those of the published lessons of chapter 61; expected is the middle of each.
    data_hours: Range = [40, 70, 100]
    """Collecting, cleaning and checking data, once."""
    evaluation_hours: Range = [20, 30, 40]
    """Writing and reading evaluations, once."""
    infrastructure_hours: Range = [5, 12.5, 20]
    """Setting up training and serving, once."""
    monthly_maintenance_hours: Range = [5, 7.5, 10]
    """Watching, updating and retraining."""
    num_training_runs: Range = [3, 6.5, 10]
    """Training runs until one is good enough, 1 or more; each costs `training_usd`."""
    out: WorkspacePath | None = None
    """Folder that gets economics.json, economics.md and tornado.png."""

    @model_validator(mode="after")
    def _check_runs(self) -> Self:
        if self.num_training_runs[0] < 1:
            raise ValueError("num_training_runs must be 1 or more: a model needs one run")
        return self
