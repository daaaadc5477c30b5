"""The rule: points and gates to an approach. Pure and quick, because the tipping points run it hundreds of times."""

from typing import Literal

from pipeline.core.operation import Part
from pipeline.decide.facts import DecideRecommendRequest
from pipeline.decide.indicators import FINE_TUNE_POINTS, RAG_POINTS, Score, score_facts
from pipeline.decide.method import TrainingStage, choose_stages
from pipeline.economics.cost import add_hidden_costs, read_direct_costs

Approach = Literal["prompt", "rag", "fine-tune", "hybrid"]


class Gate(Part):
    """Something that must be there before fine-tuning, whatever the points say."""

    gate: str
    """What."""
    passed: bool
    """Is it there?"""
    reason: str
    """What there is, and what it takes."""


class Verdict(Part):
    """What the rule says."""

    approach: Approach
    """What to do."""
    fine_tune_points: int
    """Sum for fine-tuning."""
    rag_points: int
    """Sum for retrieval."""
    scores: list[Score]
    """Every fact with its points."""
    gates: list[Gate]
    """What fine-tuning needs before it starts."""
    stages: list[TrainingStage]
    """How it would be done."""

    @property
    def num_gates_passed(self) -> int:
        """Gates that are open."""
        return sum(gate.passed for gate in self.gates)

    @property
    def is_blocked(self) -> bool:
        """True when the points are for fine-tuning and a gate is not passed."""
        return self.fine_tune_points >= FINE_TUNE_POINTS and not all(gate.passed for gate in self.gates)


def decide(request: DecideRecommendRequest) -> Verdict:
    """Return the verdict on a use case.

    Raises:
        InvalidInputError: If the API model has no known price.
    """
    economics = request.economics
    expected = add_hidden_costs(read_direct_costs(economics), economics, "expected")
    scores = score_facts(request, expected.payback_months)
    fine_tune, rag = sum(score.fine_tune for score in scores), sum(score.rag for score in scores)
    stages = choose_stages(request)
    gates = [_check_data(request, stages[0]), _check_measurable(request)]
    trains = fine_tune >= FINE_TUNE_POINTS and all(gate.passed for gate in gates)
    looks_up = rag >= RAG_POINTS
    approach: Approach = "rag" if looks_up else "prompt"
    if trains:
        approach = "hybrid" if looks_up else "fine-tune"
    return Verdict(
        approach=approach,
        fine_tune_points=fine_tune,
        rag_points=rag,
        scores=scores,
        gates=gates,
        stages=stages,
    )


def _check_data(request: DecideRecommendRequest, stage: TrainingStage) -> Gate:
    have = f"{stage.num_at_hand} at hand, {stage.objective} takes {stage.min_examples}"
    if not stage.num_missing:
        return Gate(gate="examples", passed=True, reason=have)
    if request.can_generate_examples and stage.objective != "dpo":
        return Gate(gate="examples", passed=True, reason=f"{have}: generate and check {stage.num_missing}")
    return Gate(gate="examples", passed=False, reason=f"{have}: {stage.num_missing} are missing")


def _check_measurable(request: DecideRecommendRequest) -> Gate:
    if request.is_measurable:
        return Gate(
            gate="measurable", passed=True, reason=f"a test decides; target {request.target_success:.3g}"
        )
    return Gate(gate="measurable", passed=False, reason="no test can tell right from wrong: write one first")
