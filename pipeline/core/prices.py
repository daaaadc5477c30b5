"""Token prices: dated rows from ``prices.json``, replaced or extended by the rows of a request.

An unknown model is an error, never free. Does not ask any provider: when a row is old, the result says so.
"""

from collections.abc import Sequence
from datetime import date
from functools import cache
from importlib.resources import files

from pydantic import Field, TypeAdapter

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Part

OLD_AFTER_DAYS = 90
_TOKENS_PER_PRICE = 1_000_000


class ModelPrice(Part):
    """What one model costs on one date, in USD per million tokens."""

    model: str = Field(min_length=1)
    """Name in the API."""
    input_usd: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    """Million input tokens."""
    cached_input_usd: float | None = Field(default=None, gt=0, le=10_000, allow_inf_nan=False)
    """Million cached input tokens; none: charged like any input."""
    output_usd: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    """Million output tokens."""
    batch_ratio: float | None = Field(default=None, gt=0, le=1)
    """What the provider's batch interface charges of it; none: it has no such interface, or nobody looked."""
    as_of: date
    """Day the price was read."""
    available_until: date | None = None
    """Last day, when announced."""
    source: str = Field(min_length=1)
    """Where it was read."""


class RequestTokens(Part):
    """Tokens of one request."""

    num_input: int
    """All input tokens."""
    num_cached_input: int
    """Of those, read from the provider's prompt cache."""
    num_output: int
    """Output tokens."""


@cache
def read_prices() -> tuple[ModelPrice, ...]:
    """Return the price rows that ship with the package."""
    text = files("pipeline.core").joinpath("prices.json").read_text(encoding="utf-8")
    return TypeAdapter(tuple[ModelPrice, ...]).validate_json(text)


def find_price(model: str, own_rows: Sequence[ModelPrice]) -> ModelPrice:
    """Return the price of a model; the caller's rows come first.

    Raises:
        InvalidInputError: If nobody knows it.
    """
    rows = [*own_rows, *read_prices()]
    found = next((row for row in rows if row.model == model), None)
    if found is None:
        known = list(dict.fromkeys(row.model for row in rows))
        raise InvalidInputError(
            f"no price is known for {model!r}",
            hint=f"Known are {', '.join(known)}. Add a row to `prices`; `economics compare` also takes api_usd_per_request.",
            known=known,
        )
    return found


def usd_per_request(price: ModelPrice, tokens: RequestTokens) -> float:
    """Return what one request costs."""
    cached_usd = price.input_usd if price.cached_input_usd is None else price.cached_input_usd
    usd = (
        (tokens.num_input - tokens.num_cached_input) * price.input_usd
        + tokens.num_cached_input * cached_usd
        + tokens.num_output * price.output_usd
    )
    return usd / _TOKENS_PER_PRICE


def find_price_warnings(price: ModelPrice, today: date) -> list[str]:
    """Return what makes a price row doubtful on a day: its age, or that the model goes away."""
    warnings: list[str] = []
    age_days = (today - price.as_of).days
    if age_days > OLD_AFTER_DAYS:
        warnings.append(
            f"the price of {price.model} was read {age_days} days ago ({price.as_of}): check it and pass `prices`"
        )
    if price.available_until is not None:
        verb = "stops" if price.available_until >= today else "stopped"
        warnings.append(
            f"{price.model} {verb} being served on {price.available_until}: price its successor too"
        )
    return warnings
