"""Base models to start from: licence and tool template, filtered by what the use case allows.

Sizes come from the registry of ``pipeline.vram``; ``candidates.json`` holds what it does not: licences from the model
cards, and what each chat template does with tools, found by rendering it (a template that prints a call as text
cannot be trained or served with tools).
Measures nothing; how good a model is on the task, ``evals`` says.
"""

from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from pipeline.core.operation import Part
from pipeline.decide.compute import ComputePlan, Use, plan_compute
from pipeline.decide.facts import DecideRecommendRequest
from pipeline.export.checkpoint import SUPPORTED_ARCHITECTURES
from pipeline.vram.registry import find_architecture

_MAX_SHOWN = 4
_FAST_ANSWER_MS = 500  # the gate of chapters 64 and 66; below it a smaller model comes first


class KnownModel(Part):
    """One row of candidates.json."""

    model: str
    """Hub id."""
    registry_id: str
    """Id of the same shapes for `vram estimate`."""
    architecture: str
    """Class in its config.json."""
    licence: str
    """SPDX id, or the name of its own licence."""
    commercial: Literal["yes", "with terms", "no"]
    """May it be used commercially?"""
    tools: Literal["native", "single call", "ours", "none"]
    """What its chat template does with tools: `native` takes them and parallel calls, `single call` refuses parallel
    calls, `none` prints calls as text; `ours`: this repository's template is used instead."""


class BaseModelChoice(Part):
    """One base model to try, the first one first."""

    model: str
    """Hub id."""
    billion_params: float
    """Parameters, in billions."""
    licence: str
    """SPDX id, or the name of its own licence."""
    tools: str
    """Tools in its chat template: `native`, `single call` (no parallel calls), `ours` (this repository's), `none`."""
    use: Use
    """`lora` on 16-bit or `qlora` on 4-bit weights, or serving a GGUF file when nothing is trained."""
    process_bytes: int
    """Memory that takes on the GPU, as `vram estimate` expects it."""
    fits: bool
    """The upper end of that estimate fits."""
    reason: str
    """Why it is in this place."""


@cache
def read_candidates() -> tuple[KnownModel, ...]:
    """Return the base models that are known."""
    text = files("pipeline.decide").joinpath("candidates.json").read_text(encoding="utf-8")
    return TypeAdapter(tuple[KnownModel, ...]).validate_json(text)


class Candidate(NamedTuple):
    """One base model with its place, and what it takes."""

    choice: BaseModelChoice
    plan: ComputePlan


def choose_base_models(request: DecideRecommendRequest, *, trains: bool) -> list[Candidate]:
    """Return base models that licence and tools allow and that fit the GPU; the smallest one when none fits.

    Native tool templates come before others, Apache-2.0 and MIT before licences with terms, then larger before
    smaller, or smaller before larger when answers must be fast. What the export does not convert is left out.
    """
    is_fast = request.max_latency_ms is not None and request.max_latency_ms <= _FAST_ANSWER_MS
    reason = "the smaller the faster" if is_fast else "the larger the surer"
    ranked = _rank(request, is_fast=is_fast)
    shown: list[Candidate] = []
    for model in ranked:
        plan = plan_compute(model.registry_id, request.gpu, trains=trains)
        if plan.fits:
            shown.append(Candidate(_describe(model, plan, reason), plan))
        if len(shown) == _MAX_SHOWN:
            break
    if shown:
        return shown
    smallest = min(ranked, key=_size)
    plan = plan_compute(smallest.registry_id, request.gpu, trains=trains)
    return [Candidate(_describe(smallest, plan, "the smallest, and it does not fit"), plan)]


def _rank(request: DecideRecommendRequest, *, is_fast: bool) -> list[KnownModel]:
    needs_tools = "tool_calls" in request.behaviours
    allowed = [
        model
        for model in read_candidates()
        if model.architecture in SUPPORTED_ARCHITECTURES
        and not (request.is_commercial and model.commercial == "no")
        and not (needs_tools and model.tools == "none")
    ]

    def rank(model: KnownModel) -> tuple[bool, bool, int]:
        has_poor_tools = needs_tools and model.tools != "native"
        return has_poor_tools, model.commercial == "with terms", _size(model) * (1 if is_fast else -1)

    return sorted(allowed, key=rank)


def _describe(model: KnownModel, plan: ComputePlan, reason: str) -> BaseModelChoice:
    return BaseModelChoice(
        model=model.model,
        billion_params=round(_size(model) / 1e9, 3),
        licence=model.licence,
        tools=model.tools,
        use=plan.use,
        process_bytes=plan.estimate.process_bytes.expected,
        fits=plan.fits,
        reason=reason,
    )


def _size(model: KnownModel) -> int:
    return find_architecture(model.registry_id).num_parameters
