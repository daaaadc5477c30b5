"""Indicators for and against fine-tuning and retrieval: each fact becomes points with a reason.

The signals are those of chapter 61, lesson 3 (format, domain language, latency, cost; against: changing knowledge,
general reasoning, low volume) and of its published version (stable for 6 months, 40 hours, payback of 3 and 12
months). Plain signals weigh 2, what was measured in money or success weighs 3; docs/decisions/0026 says why.
"""

from typing import NamedTuple

from pipeline.core.operation import Part
from pipeline.decide.facts import Behaviour, DecideRecommendRequest
from pipeline.economics.compare import FAST_MONTHS, LATE_MONTHS

FINE_TUNE_POINTS = 4  # two plain signals, or one measured and one plain, with nothing against them
RAG_POINTS = 3
LOW_VOLUME_PER_DAY = 100
_FAST_ANSWER_MS = 100
_STABLE_MONTHS, _HOURS = 6, 40
_VOLATILE_DAYS = 30
_BEHAVIOUR_REASONS: dict[Behaviour, str] = {
    "fixed_format": "training holds an output format more firmly than instructions do",
    "tool_calls": "training teaches when and how to call these tools",
    "domain_language": "terms of a trade fill prompts that training makes short",
    "persona": "a voice is style, which training carries into every answer",
    "preference": "which good answer is better is hard to write down and easy to show in pairs",
}


class Score(Part):
    """What one fact says."""

    fact: str
    """Field of the request."""
    value: str
    """Its value."""
    fine_tune: int
    """Points for fine-tuning; below zero: against."""
    rag: int
    """Points for retrieval."""
    reason: str
    """Why."""


class _Points(NamedTuple):
    value: str
    fine_tune: int
    rag: int
    reason: str


def score_facts(request: DecideRecommendRequest, payback_months: float | None) -> list[Score]:
    """Return one score per fact, those that say nothing included."""
    points: list[tuple[str, _Points]] = [
        *(("behaviours", _Points(name, 2, 0, _BEHAVIOUR_REASONS[name])) for name in request.behaviours),
        ("prompt_success", _score_prompting(request)),
        ("costs", _score_payback(request, payback_months)),
        ("requests_per_day", _score_volume(request)),
        ("knowledge_change_days", _score_knowledge(request)),
        ("needs_reasoning", _score_reasoning(request)),
        ("max_latency_ms", _score_latency(request)),
        ("privacy", _score_privacy(request)),
        ("stable_months", _score_stability(request)),
        ("hours_available", _score_hours(request)),
    ]
    return [Score(fact=fact, **found._asdict()) for fact, found in points]


def _score_prompting(request: DecideRecommendRequest) -> _Points:
    measured, target = request.prompt_success, request.target_success
    if measured is None:
        return _Points(
            "not measured", -2, 0, "measure the best prompt first: fine-tune only when it falls short"
        )
    if measured < target and request.knowledge_change_days is not None and not request.behaviours:
        return _Points(
            f"{measured:.3g}", 0, 0, "what is missing is facts, not behaviour: look them up, measure again"
        )
    if measured < target:
        return _Points(f"{measured:.3g}", 3, 0, f"the best prompt is below the target of {target:.3g}")
    return _Points(f"{measured:.3g}", -2, 0, f"prompting alone reaches the target of {target:.3g}")


def _score_payback(request: DecideRecommendRequest, months: float | None) -> _Points:
    shown = "never pays back" if months is None else f"pays back in {months:.3g} months"
    if request.privacy == "local_only":
        return _Points(shown, 0, 0, "no API is allowed, so its price decides nothing")
    if months is None:
        return _Points(shown, -3, 0, "the API stays cheaper than serving and keeping one's own model")
    if months <= FAST_MONTHS:
        return _Points(shown, 3, 0, f"within {FAST_MONTHS} months")
    if months <= LATE_MONTHS:
        return _Points(shown, 1, 0, f"within {LATE_MONTHS} months")
    return _Points(shown, -1, 0, f"later than {LATE_MONTHS} months")


def _score_volume(request: DecideRecommendRequest) -> _Points:
    shown = f"{request.requests_per_day:g}"
    if request.requests_per_day < LOW_VOLUME_PER_DAY:
        return _Points(shown, -3, 0, f"below {LOW_VOLUME_PER_DAY} a day training is not worth its cost")
    return _Points(shown, 0, 0, "enough; what it saves is counted under costs")


def _score_knowledge(request: DecideRecommendRequest) -> _Points:
    days = request.knowledge_change_days
    if days is None:
        return _Points("none", 0, 0, "answers rest on no outside facts")
    # Retrieval beats fine-tuning at putting facts into answers also when they are stable (arXiv:2312.05934).
    if days > _VOLATILE_DAYS:
        return _Points(
            f"every {days:g} days", 0, 3, "facts are looked up more surely than they are trained in"
        )
    return _Points(f"every {days:g} days", -2, 4, "trained-in facts would be stale soon")


def _score_reasoning(request: DecideRecommendRequest) -> _Points:
    if request.needs_reasoning:
        return _Points("yes", -3, 0, "large general models are better at open problems of many steps")
    return _Points("no", 0, 0, "the task is narrow enough for a small model")


def _score_latency(request: DecideRecommendRequest) -> _Points:
    limit, today = request.max_latency_ms, request.prompted_latency_ms
    if limit is None:
        return _Points("no limit", 0, 0, "answer time does not matter")
    shown = f"{limit:g} ms"
    if today is not None and today > limit:
        return _Points(
            shown, 2, 0, f"the prompted model takes {today:g} ms; a small model of one's own is faster"
        )
    if today is None and limit < _FAST_ANSWER_MS:
        return _Points(shown, 2, 0, f"below {_FAST_ANSWER_MS} ms only a small model close by is fast enough")
    return _Points(shown, 0, 0, "the prompted model is fast enough" if today else "an API can be fast enough")


def _score_privacy(request: DecideRecommendRequest) -> _Points:
    if request.privacy == "local_only":
        return _Points(
            "local_only", 2, 0, "a model that fits in the house is small, and prompting does less for it"
        )
    return _Points("api_allowed", 0, 0, "an API may be used")


def _score_stability(request: DecideRecommendRequest) -> _Points:
    shown = f"{request.stable_months:g}"
    if request.stable_months < _STABLE_MONTHS:
        return _Points(
            shown, -2, 0, f"a task that changes within {_STABLE_MONTHS} months is trained for twice"
        )
    return _Points(shown, 0, 0, f"stable for {_STABLE_MONTHS} months or more")


def _score_hours(request: DecideRecommendRequest) -> _Points:
    hours = request.hours_available
    if hours is None:
        return _Points("not known", 0, 0, f"plan for {_HOURS} hours or more")
    if hours < _HOURS:
        return _Points(f"{hours:g}", -2, 0, f"data and evaluation alone take {_HOURS} hours or more")
    return _Points(f"{hours:g}", 0, 0, f"{_HOURS} hours or more")
