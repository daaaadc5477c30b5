"""Where a model answers, what it costs, and how fast it may be asked: shared by writing, judging and re-solving."""

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Part
from pipeline.core.prices import ModelPrice, find_price
from pipeline.inference.metered import MeteredClient, Spending


class Pace(Part):
    """How requests are sent."""

    rows_per_request: int = Field(default=10, ge=1, le=50)
    """Conversations in one request."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """Requests under way at once."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Requests started in a minute at most."""
    max_rounds: int = Field(default=3, ge=1, le=10)
    """How often a conversation is asked for until its wording is accepted."""
    batch: bool = False
    """Use the provider's batch interface: later and cheaper."""
    poll_seconds: float = Field(default=30, gt=0, le=3600)
    """Wait between two looks at a batch."""
    backoff_seconds: float = Field(default=0.5, gt=0, le=60)
    """Upper end of the first random wait after a failure; it doubles from attempt to attempt."""
    extra: dict[str, Any] = {}
    """More fields of the request body, such as `temperature` or `reasoning_effort`."""


class Money(Part):
    """What was spent, from the ledger."""

    num_requests: int
    """Paid answers, those of earlier runs included."""
    prompt_tokens: int
    """Input tokens."""
    completion_tokens: int
    """Output tokens."""
    usd: float | None
    """Their price; none: the price of the model is not known."""
    num_assumed: int
    """Answers without a believable usage: the most they can have cost was taken."""

    @classmethod
    def of(cls, spending: Spending) -> "Money":
        """Return the sums of a ledger."""
        return cls(
            num_requests=spending.num_requests,
            prompt_tokens=spending.prompt_tokens,
            completion_tokens=spending.completion_tokens,
            usd=spending.usd,
            num_assumed=spending.num_assumed,
        )

    def warnings(self, model: str) -> list[str]:
        """Return what the caller should know about the money."""
        found = (
            [] if self.usd is not None else [f"no price is known for {model!r}: what this cost is not known"]
        )
        if self.num_assumed:
            found.append(
                f"{self.num_assumed} answers had no believable usage: the most they can have cost was taken"
            )
        return found


class Endpoint(NamedTuple):
    """One endpoint with its limits."""

    base_url: str
    model: str
    price: ModelPrice | None
    max_cost_usd: float | None
    pace: Pace
    made_ratio: float = 1.2
    """Conversations planned for each one kept."""

    def open(self, ledger: Path) -> MeteredClient:
        """Return a client that keeps its ledger there."""
        return MeteredClient(
            ledger,
            self.base_url,
            self.model,
            price=self.price,
            max_cost_usd=self.max_cost_usd,
            requests_per_minute=self.pace.requests_per_minute,
            backoff_seconds=self.pace.backoff_seconds,
        )


def known_price(model: str, own_rows: list[ModelPrice]) -> ModelPrice | None:
    """Return the price of a model, or None when nobody knows it."""
    try:
        return find_price(model, own_rows)
    except InvalidInputError:
        return None
