"""How to fine-tune, from the behaviours that are needed, and how many examples that takes."""

from typing import Literal

from pipeline.core.operation import Part
from pipeline.decide.facts import DecideRecommendRequest

Objective = Literal["tool_calls", "persona", "sft", "dpo"]
# The published lessons of chapter 61 ask for 500 examples and those of chapter 65 for 200 of a persona. No lesson says
# how many pairs preference tuning takes; the floor for examples is used for them too.
_MIN_EXAMPLES: dict[Objective, int] = {"tool_calls": 500, "persona": 200, "sft": 500, "dpo": 500}


class TrainingStage(Part):
    """One training run of the plan."""

    objective: Objective
    """`tool_calls`, `persona` and `sft` are supervised; `dpo` is direct preference optimisation on pairs."""
    min_examples: int
    """Examples, or pairs, that it takes."""
    num_at_hand: int
    """Examples, or pairs, that there are."""
    reason: str
    """Why this objective."""

    @property
    def num_missing(self) -> int:
        """Examples, or pairs, still to be made."""
        return max(0, self.min_examples - self.num_at_hand)


def choose_stages(request: DecideRecommendRequest) -> list[TrainingStage]:
    """Return the training stages in order: supervised first, preference last."""
    behaviours = request.behaviours
    stages: list[TrainingStage] = []
    if "tool_calls" in behaviours:
        stages.append(
            _stage(request, "tool_calls", "conversations with executed calls teach tools, format and style")
        )
    elif "persona" in behaviours:
        stages.append(_stage(request, "persona", "conversations in the voice, with its system prompt"))
    elif behaviours != ["preference"]:
        stages.append(_stage(request, "sft", "pairs of request and right answer"))
    if "preference" in behaviours:
        stages.append(_stage(request, "dpo", "pairs of a better and a worse answer"))
    return stages


def _stage(request: DecideRecommendRequest, objective: Objective, reason: str) -> TrainingStage:
    return TrainingStage(
        objective=objective,
        min_examples=_MIN_EXAMPLES[objective],
        num_at_hand=request.num_preference_pairs if objective == "dpo" else request.num_examples,
        reason=reason,
    )
