"""Checks of chapter 61, Introduction to LLMOps: they judge computed reports, never the presence of words."""

from typing import cast

from pipeline.decide.recommend import DECIDE_RECOMMEND, DecideRecommendResult
from pipeline.lessons.work import Work

_DECIDE_AGAIN = (
    "llmops decide recommend --request learning/{number}/decision_request.json --out learning/{number}"
)


def check_61_3(work: Work) -> None:
    """The report is what the stated facts give, and the facts include how well prompting does."""
    step = _DECIDE_AGAIN.format(number=work.number)
    request = work.read_json("decision_request.json", next_step="Write the facts of your use case there.")
    work.require(
        "the success of prompting is stated",
        isinstance(request.get("prompt_success"), (int, float)),
        reason=f"prompt_success is {request.get('prompt_success')!r}",
        next_step="Measure or estimate how often the best prompt succeeds, and set prompt_success.",
    )
    fresh = cast(
        "DecideRecommendResult",
        work.call(DECIDE_RECOMMEND, {**request, "out": None}, next_step="Mend decision_request.json."),
    )
    report = work.read_json("decision_report.json", next_step=step)
    expected = fresh.model_dump(mode="json")
    for name in ("approach", "fine_tune_points", "rag_points", "flips"):
        work.require(
            f"{name} follows from the facts",
            report.get(name) == expected[name],
            reason=f"the report says {report.get(name)!r}"[:160],
            next_step=step,
        )
