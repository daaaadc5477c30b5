"""Base models to start from: licence and tool template, filtered by what the use case allows.

Sizes come from the registry of ``pipeline.vram``; ``candidates.json`` holds what it does not: licences from the model
cards, and what each chat template does with tools, found by rendering it (a template that prints a call as text
cannot be trained or served with tools).
Measures nothing; how good a model is on the task, ``evals`` says.
"""

from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import TypeAdapter

from pipeline.core.operation import Part
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
    """Id of the same shapes for the model registry."""
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
    exports_here: bool
    """`export run` converts it to GGUF."""
    reason: str
    """Why it is in this place."""


@cache
def read_candidates() -> tuple[KnownModel, ...]:
    """Return the base models that are known."""
    text = files("pipeline.decide").joinpath("candidates.json").read_text(encoding="utf-8")
    return TypeAdapter(tuple[KnownModel, ...]).validate_json(text)


def choose_base_models(request: DecideRecommendRequest) -> list[BaseModelChoice]:
    """Return the base models that licence and tools allow.

    Apache-2.0 and MIT come before licences with terms, native tool templates before others, then larger before
    smaller, or smaller before larger when answers must be fast.
    """
    needs_tools = "tool_calls" in request.behaviours
    is_fast = request.max_latency_ms is not None and request.max_latency_ms <= _FAST_ANSWER_MS
    allowed = [
        model
        for model in read_candidates()
        if not (request.is_commercial and model.commercial == "no")
        and not (needs_tools and model.tools == "none")
    ]

    def rank(model: KnownModel) -> tuple[bool, bool, int]:
        has_poor_tools = needs_tools and model.tools != "native"
        return has_poor_tools, model.commercial == "with terms", _size(model) * (1 if is_fast else -1)

    ranked = sorted(allowed, key=rank)
    shown = ranked[:_MAX_SHOWN]
    if not any(_exports_here(model) for model in shown):
        # One of the models must go the whole way in this repository.
        shown = [*shown[:-1], *[model for model in ranked if _exports_here(model)][:1]]
    reason = "the smaller the faster" if is_fast else "the larger the surer"
    return [
        BaseModelChoice(
            model=model.model,
            billion_params=round(_size(model) / 1e9, 3),
            licence=model.licence,
            tools=model.tools,
            exports_here=_exports_here(model),
            reason="goes the whole way here" if _exports_here(model) else reason,
        )
        for model in shown
    ]


def _size(model: KnownModel) -> int:
    return find_architecture(model.registry_id).num_parameters


def _exports_here(model: KnownModel) -> bool:
    return model.architecture in SUPPORTED_ARCHITECTURES
