"""The facts that a decision rests on, as a request states them. Judges nothing."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.core.operation import Request
from pipeline.core.paths import WorkspacePath
from pipeline.economics.facts import CostFacts, EconomicsCompareRequest

Behaviour = Literal["fixed_format", "tool_calls", "domain_language", "persona", "preference"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)]


class DecideRecommendRequest(Request):
    """A use case, as facts."""

    use_case: str = Field(min_length=1, max_length=200)
    """What it is, in a few words; shown, never interpreted."""
    requests_per_day: float = Field(gt=0, le=1e9, allow_inf_nan=False)
    """Requests on a mean day."""
    behaviours: list[Behaviour] = []
    """What a prompt must spell out: a schema, tools, terms of a trade, a voice, which good answer is the better one."""
    needs_reasoning: bool = False
    """Requests are open-ended problems of many steps."""
    knowledge_change_days: float | None = Field(default=None, gt=0, le=36_500, allow_inf_nan=False)
    """Answers rest on outside facts that change about every so many days; none: on no such facts."""
    prompt_success: Share | None = None
    """Share of cases the best prompt gets right; none: not measured."""
    target_success: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.9
    """Share that must be right."""
    is_measurable: bool
    """A test can tell right answers from wrong ones."""
    num_examples: int = Field(ge=0, le=1_000_000_000)
    """Checked examples of request and right answer at hand."""
    can_generate_examples: bool = False
    """More can be made and checked, as by `synth generate`."""
    num_preference_pairs: int = Field(default=0, ge=0, le=1_000_000_000)
    """Pairs of a better and a worse answer to the same request."""
    stable_months: float = Field(ge=0, le=1200, allow_inf_nan=False)
    """How long the task will stay what it is."""
    hours_available: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False)
    """Hours of people for the project; none: not known."""
    max_latency_ms: Milliseconds | None = None
    """Longest acceptable answer time."""
    prompted_latency_ms: Milliseconds | None = None
    """Answer time of the prompted model today, measured."""
    privacy: Literal["api_allowed", "local_only"] = "api_allowed"
    """May requests leave the house?"""
    is_commercial: bool = True
    """The licence must allow commercial use."""
    gpu: str = Field(default="T4", min_length=1)
    """GPU to train on, an id of `vram estimate`; default: a free Colab's."""
    costs: CostFacts
    """Money: the API, serving and training."""
    out: WorkspacePath | None = None
    """Folder for decision_report.json and .md, compute_plan.json, and what `economics compare` writes."""

    @model_validator(mode="after")
    def _check_contradictions(self) -> Self:
        if len(set(self.behaviours)) != len(self.behaviours):
            raise ValueError("behaviours names one twice")
        if self.prompt_success is not None and not self.is_measurable:
            raise ValueError("prompt_success is a measurement, which contradicts is_measurable = false")
        return self

    @property
    def economics(self) -> EconomicsCompareRequest:
        """The request for `economics compare` that these facts make."""
        return EconomicsCompareRequest(
            **self.costs.model_dump(), requests_per_day=self.requests_per_day, out=self.out
        )
