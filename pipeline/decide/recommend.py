"""Operation ``decide.recommend``: prompt, retrieve, fine-tune or both, with money in the verdict.

Scores the facts, passes gates, prices the choice and finds the facts that would turn it. Deterministic: the same
request gives the same verdict. It believes the facts it is given; ``evals run`` measures the ones about success.
"""

from typing import Literal

from pipeline.core.files import write_atomic, write_json
from pipeline.core.operation import Operation, Part, Result
from pipeline.core.paths import resolve_path
from pipeline.decide.candidates import BaseModelChoice, Candidate, choose_base_models
from pipeline.decide.compute import write_compute_plan
from pipeline.decide.facts import DecideRecommendRequest
from pipeline.decide.flips import Flip, find_flips
from pipeline.decide.indicators import FINE_TUNE_POINTS, RAG_POINTS, Score
from pipeline.decide.method import TrainingStage
from pipeline.decide.verdict import Approach, Gate, Verdict, decide
from pipeline.economics.compare import EconomicsCompareResult, compare_economics
from pipeline.economics.compare import Verdict as MoneyVerdict
from pipeline.economics.cost import Case
from pipeline.vram.registry import find_gpu

_REPORT = "decision_report"


class Option(Part):
    """One approach and why it is, or is not, the verdict."""

    approach: Approach
    """Approach."""
    chosen: bool
    """It is the verdict."""
    reason: str
    """Why."""


class DecideRecommendResult(Result):
    """What to do, and why."""

    use_case: str
    """As asked."""
    approach: Approach
    """What to do."""
    location: Literal["api", "self-hosted"]
    """Where the model runs."""
    summary: str
    """The verdict in one sentence."""
    fine_tune_points: int
    """Sum of all scores for fine-tuning."""
    fine_tune_needed: int
    """Points from which fine-tuning is recommended."""
    rag_points: int
    """Sum of all scores for retrieval."""
    rag_needed: int
    """Points from which retrieval is recommended."""
    scores: list[Score]
    """Every fact with its points and reason."""
    gates: list[Gate]
    """What fine-tuning needs before it starts, whatever the points say."""
    options: list[Option]
    """All approaches."""
    flips: list[Flip]
    """The two nearest changes of facts that would turn the verdict."""
    economics_verdict: MoneyVerdict
    """Does a model of one's own pay?"""
    cases: list[Case]
    """Money, as `economics compare` gives it."""
    stages: list[TrainingStage]
    """Training runs in order; empty when nothing is trained."""
    base_models: list[BaseModelChoice]
    """Base models to start from; empty when the model is reached by API."""
    success_criterion: str
    """What must be measured before and after."""
    report: str
    """Readable report; empty without `out`."""
    compute_plan: str
    """compute_plan.json of the first base model; empty without `out` or without a model of one's own."""


def recommend_approach(request: DecideRecommendRequest) -> DecideRecommendResult:
    """Recommend prompting, retrieval, fine-tuning or both: scored reasons, money, and the facts that would turn it.

    Raises:
        InvalidInputError: If the API model has no known price.
    """
    find_gpu(request.gpu)
    verdict = decide(request)
    money = compare_economics(request.economics)
    trains = verdict.approach in {"fine-tune", "hybrid"}
    is_local = trains or request.privacy == "local_only"
    models = choose_base_models(request, trains=trains) if is_local else []
    result = DecideRecommendResult(
        use_case=request.use_case,
        approach=verdict.approach,
        location="self-hosted" if is_local else "api",
        summary=_summarise(verdict, money, request),
        fine_tune_points=verdict.fine_tune_points,
        fine_tune_needed=FINE_TUNE_POINTS,
        rag_points=verdict.rag_points,
        rag_needed=RAG_POINTS,
        scores=verdict.scores,
        gates=verdict.gates,
        options=_list_options(verdict),
        flips=find_flips(request, verdict.approach),
        economics_verdict=money.verdict,
        cases=money.cases,
        stages=verdict.stages if trains else [],
        base_models=[model.choice for model in models],
        success_criterion=f"{request.target_success:.0%} of test cases right, the same cases before and after",
        report="",
        compute_plan="",
        warnings=[*_find_warnings(request, verdict, models), *money.warnings],
        next_step=_name_next_step(verdict, request),
    )
    return result if request.out is None else _write_files(result, models, request.out)


DECIDE_RECOMMEND = Operation(
    name="decide.recommend",
    request=DecideRecommendRequest,
    result=DecideRecommendResult,
    run=recommend_approach,
)


def _summarise(verdict: Verdict, money: EconomicsCompareResult, request: DecideRecommendRequest) -> str:
    what = {
        "prompt": "Prompt an existing model",
        "rag": "Retrieve facts for an existing model",
        "fine-tune": "Fine-tune",
        "hybrid": "Fine-tune for behaviour and retrieve the facts",
    }[verdict.approach]
    where = " on your own machine" if request.privacy == "local_only" else ""
    expected = money.cases[2]
    months = expected.payback_months
    payback = "never pays back" if months is None else f"pays back in {months:.2f} months"
    saving = f"saving ${expected.saving_usd:,.0f} a month on ${expected.setup_usd:,.0f} of setup"
    if expected.saving_usd < 0:
        saving = f"costing ${-expected.saving_usd:,.0f} a month more than the API"
    return (
        f"{what}{where}: {verdict.fine_tune_points} points for fine-tuning ({FINE_TUNE_POINTS} needed), "
        f"{verdict.rag_points} for retrieval ({RAG_POINTS} needed); a model of your own {payback}, {saving}."
    )


def _list_options(verdict: Verdict) -> list[Option]:
    trains = f"{verdict.fine_tune_points} of {FINE_TUNE_POINTS} points for fine-tuning"
    missing = "; ".join(gate.reason for gate in verdict.gates if not gate.passed)
    if missing:
        trains += f", and a gate is closed: {missing}"
    looks_up = f"{verdict.rag_points} of {RAG_POINTS} points for retrieval"
    reasons: dict[Approach, str] = {
        "prompt": f"{trains}; {looks_up}",
        "rag": looks_up,
        "fine-tune": trains,
        "hybrid": f"{trains}; {looks_up}",
    }
    return [
        Option(approach=approach, chosen=approach == verdict.approach, reason=reason)
        for approach, reason in reasons.items()
    ]


def _find_warnings(request: DecideRecommendRequest, verdict: Verdict, models: list[Candidate]) -> list[str]:
    warnings: list[str] = []
    if verdict.is_blocked:
        closed = "; ".join(gate.reason for gate in verdict.gates if not gate.passed)
        warnings.append(f"the points are for fine-tuning, but {closed}")
    if request.prompt_success is None:
        warnings.append("prompt_success is not known: measure the best prompt before anything is trained")
    if request.num_preference_pairs and "preference" not in request.behaviours:
        warnings.append("num_preference_pairs is not used: behaviours does not name preference")
    if models and not models[0].plan.fits:
        warnings.append(
            f"no base model that is allowed fits a {request.gpu}: see the advice in compute_plan.json"
        )
    later = [stage for stage in verdict.stages[1:] if stage.num_missing]
    warnings += [
        f"for {stage.objective} {stage.num_missing} of {stage.min_examples} are missing" for stage in later
    ]
    return warnings


def _name_next_step(verdict: Verdict, request: DecideRecommendRequest) -> str:
    if verdict.is_blocked:
        return "Close the gates, then run this again."
    if verdict.approach in {"fine-tune", "hybrid"}:
        if verdict.stages[0].num_missing:
            return f"llmops synth generate --out datasets/NAME --num-rows {verdict.stages[0].min_examples}"
        return "llmops train run DATA"
    if request.prompt_success is None:
        return "llmops evals run --cases CASES.jsonl --base-url URL"
    return "Keep measuring; run this again when one of the facts under flips changes."


def _write_files(result: DecideRecommendResult, models: list[Candidate], out: str) -> DecideRecommendResult:
    from pipeline.decide.report import render_decision

    folder = resolve_path(out)
    plan = folder / "compute_plan.json"
    plan.unlink(missing_ok=True)  # one of an earlier decision would contradict this one
    if models:
        write_compute_plan(models[0].plan, out)
    paths = {"report": str(folder / f"{_REPORT}.md"), "compute_plan": str(plan) if models else ""}
    result = result.model_copy(update=paths)
    write_json(folder / f"{_REPORT}.json", result.model_dump(mode="json"))
    write_atomic(folder / f"{_REPORT}.md", render_decision(result))
    return result
