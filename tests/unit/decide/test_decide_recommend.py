"""decide.recommend: one scenario per verdict, the rule's edges, tipping points that really turn it, bad input."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.decide.candidates import read_candidates
from pipeline.decide.recommend import DECIDE_RECOMMEND, DecideRecommendResult
from pipeline.export.checkpoint import SUPPORTED_ARCHITECTURES
from pipeline.vram.estimate import VRAM_ESTIMATE

# 10,000 requests a day at $0.003 against $300 a month: pays back in 2.17 months (test_economics_compare.py).
CHEAP_TO_OWN: dict[str, Any] = {
    "api_usd_per_request": 0.003,
    "serving_usd_per_month": 300,
    "training_usd": 200,
}
# 500 + 500 tokens of gpt-4o-mini: $112.50 a month at 10,000 a day, so it never pays back.
CHEAP_API: dict[str, Any] = {
    "api_model": "gpt-4o-mini",
    "input_tokens": 500,
    "output_tokens": 500,
    "serving_usd_per_month": 300,
    "training_usd": 200,
}
FINE_TUNE: dict[str, Any] = {
    "use_case": "task creation assistant",
    "requests_per_day": 10_000,
    "behaviours": ["fixed_format", "tool_calls"],
    "prompt_success": 0.78,
    "target_success": 0.95,
    "is_measurable": True,
    "num_examples": 2000,
    "stable_months": 12,
    "hours_available": 120,
    "costs": CHEAP_TO_OWN,
}
PROMPT: dict[str, Any] = {
    **FINE_TUNE,
    "use_case": "strategy adviser",
    "behaviours": [],
    "needs_reasoning": True,
    "prompt_success": 0.97,
    "costs": CHEAP_API,
}
RAG: dict[str, Any] = {
    **FINE_TUNE,
    "use_case": "price desk",
    "behaviours": [],
    "knowledge_change_days": 1,
    "costs": CHEAP_API,
}
HYBRID: dict[str, Any] = {**FINE_TUNE, "use_case": "claims clerk", "knowledge_change_days": 7}
SCENARIOS = {"fine-tune": FINE_TUNE, "prompt": PROMPT, "rag": RAG, "hybrid": HYBRID}


def recommend(base: dict[str, Any], **changes: Any) -> DecideRecommendResult:
    return DECIDE_RECOMMEND.call({**base, **changes})


def points(result: DecideRecommendResult, fact: str) -> list[int]:
    return [score.fine_tune for score in result.scores if score.fact == fact]


@pytest.mark.parametrize("approach", SCENARIOS)
def test_each_clear_case_gets_its_verdict(approach: str) -> None:
    result = recommend(SCENARIOS[approach])
    assert result.approach == approach
    assert [option.approach for option in result.options if option.chosen] == [approach]
    assert result.location == ("self-hosted" if approach in {"fine-tune", "hybrid"} else "api")
    assert result.is_negative() is False


def test_the_points_are_the_sum_of_the_scores_and_every_score_has_a_reason() -> None:
    result = recommend(FINE_TUNE)
    # fixed_format 2 + tool_calls 2 + gap 3 + payback within 3 months 3
    assert result.fine_tune_points == sum(score.fine_tune for score in result.scores) == 10
    assert result.rag_points == sum(score.rag for score in result.scores) == 0
    assert all(score.reason and score.value for score in result.scores)


def test_money_is_part_of_the_verdict() -> None:
    result = recommend(FINE_TUNE)
    assert result.economics_verdict == "pays back fast"
    assert result.cases[0].break_even_requests == 100_000
    assert "pays back in 2.17 months, saving $600 a month" in result.summary
    never = recommend(FINE_TUNE, costs=CHEAP_API)
    assert never.economics_verdict == "never pays back"
    assert never.fine_tune_points == result.fine_tune_points - 6  # 3 for it become 3 against it


def test_too_little_data_closes_the_gate_and_says_how_many_are_missing() -> None:
    result = recommend(FINE_TUNE, num_examples=40)
    assert result.approach == "prompt"
    assert [gate.gate for gate in result.gates if not gate.passed] == ["examples"]
    assert "460 are missing" in result.warnings[0]
    assert result.stages == []
    assert recommend(FINE_TUNE, num_examples=40, can_generate_examples=True).approach == "fine-tune"
    assert recommend(FINE_TUNE, num_examples=500).approach == "fine-tune"
    assert recommend(FINE_TUNE, num_examples=499).approach == "prompt"


def test_below_100_requests_a_day_training_is_not_worth_it() -> None:
    base = {**FINE_TUNE, "behaviours": ["fixed_format"]}
    assert recommend(base).approach == "fine-tune"
    result = recommend(base, requests_per_day=99)
    # 2 + 3 - 3 for volume - 3 because 99 x 30 x 0.003 = 8.91 a month does not pay for 300
    assert (result.approach, result.fine_tune_points) == ("prompt", -1)
    assert points(result, "requests_per_day") == [-3]
    assert points(recommend(base, requests_per_day=100), "requests_per_day") == [0]


def test_privacy_keeps_everything_in_the_house_and_takes_the_api_price_out_of_the_verdict() -> None:
    tuned = recommend(FINE_TUNE, privacy="local_only", costs=CHEAP_API)
    assert (tuned.approach, tuned.location) == ("fine-tune", "self-hosted")
    assert points(tuned, "costs") == [0]
    prompted = recommend(PROMPT, privacy="local_only")
    assert (prompted.approach, prompted.location) == ("prompt", "self-hosted")
    assert "on your own machine" in prompted.summary
    assert prompted.base_models
    assert recommend(PROMPT).base_models == []


def test_a_task_that_cannot_be_measured_is_not_trained_for() -> None:
    result = recommend(FINE_TUNE, is_measurable=False, prompt_success=None)
    assert result.approach == "prompt"
    assert [gate.gate for gate in result.gates if not gate.passed] == ["measurable"]


def test_an_unmeasured_prompt_counts_against_training_and_the_next_step_is_to_measure_it() -> None:
    result = recommend(FINE_TUNE, behaviours=["fixed_format"], prompt_success=None)
    assert (result.approach, result.fine_tune_points) == ("prompt", 3)  # 2 - 2 + 3
    assert result.next_step.startswith("llmops evals run")


def test_a_gap_of_a_prompt_that_lacks_facts_is_not_a_reason_to_train() -> None:
    assert points(recommend(RAG), "prompt_success") == [0]
    assert points(recommend(RAG, behaviours=["fixed_format"]), "prompt_success") == [3]


def test_latency_counts_when_the_prompted_model_is_too_slow_or_nothing_far_away_is_fast_enough() -> None:
    assert points(recommend(FINE_TUNE), "max_latency_ms") == [0]
    assert points(recommend(FINE_TUNE, max_latency_ms=500, prompted_latency_ms=900), "max_latency_ms") == [2]
    assert points(recommend(FINE_TUNE, max_latency_ms=500, prompted_latency_ms=400), "max_latency_ms") == [0]
    assert points(recommend(FINE_TUNE, max_latency_ms=99), "max_latency_ms") == [2]
    assert points(recommend(FINE_TUNE, max_latency_ms=100), "max_latency_ms") == [0]


@pytest.mark.parametrize(
    ("behaviours", "objectives", "min_examples"),
    [
        (["fixed_format"], ["sft"], [500]),
        (["tool_calls", "persona"], ["tool_calls"], [500]),
        (["persona", "domain_language"], ["persona"], [200]),
        (["preference", "fixed_format"], ["sft", "dpo"], [500, 500]),
    ],
)
def test_the_method_follows_the_behaviours(
    behaviours: list[str], objectives: list[str], min_examples: list[int]
) -> None:
    stages = recommend(FINE_TUNE, behaviours=behaviours).stages
    assert [stage.objective for stage in stages] == objectives
    assert [stage.min_examples for stage in stages] == min_examples


def test_preference_alone_needs_pairs_that_no_program_makes() -> None:
    base = {**FINE_TUNE, "behaviours": ["preference"], "can_generate_examples": True}
    assert recommend(base).approach == "prompt"
    assert [stage.objective for stage in recommend(base, num_preference_pairs=500).stages] == ["dpo"]


def test_base_models_for_tools_are_qwen_and_none_that_prints_calls_as_text() -> None:
    models = recommend(FINE_TUNE).base_models
    assert models[0].model.startswith("Qwen/")
    assert all(model.tools != "none" for model in models)
    assert {model.architecture for model in read_candidates()} <= set(SUPPORTED_ARCHITECTURES)
    assert "Qwen/Qwen2.5-3B-Instruct" not in [model.model for model in models]  # research licence
    assert {model.commercial for model in read_candidates() if "Llama" in model.licence} == {"with terms"}


def test_fast_answers_put_smaller_models_first() -> None:
    def sizes(**changes: Any) -> list[float]:
        return [m.billion_params for m in recommend(FINE_TUNE, **changes).base_models]

    assert sizes() == sorted(sizes(), reverse=True)
    assert sizes(max_latency_ms=200) == sorted(sizes(max_latency_ms=200))


def test_base_models_fit_the_gpu_with_the_first_method_that_does() -> None:
    small = recommend(FINE_TUNE).base_models
    assert small[0].model == "Qwen/Qwen3-8B"
    assert (small[0].use, small[0].fits) == ("qlora", True)  # 16.4 GB of 16-bit weights do not fit 14.7 GiB
    large = recommend(FINE_TUNE, gpu="A100-80").base_models
    assert (large[0].model, large[0].use) == ("Qwen/Qwen3-8B", "lora")
    served = recommend(PROMPT, privacy="local_only").base_models
    assert {model.use for model in served} == {"serve q4_k_m"}


def test_the_compute_plan_is_a_request_that_gives_the_same_estimate_again(workspace: Path) -> None:
    result = recommend(FINE_TUNE, out="plan")
    plan = json.loads((workspace / "plan" / "compute_plan.json").read_text(encoding="utf-8"))
    assert result.compute_plan == str(workspace / "plan" / "compute_plan.json")
    again = VRAM_ESTIMATE.call({**plan["request"], "out": None})
    assert json.loads(again.model_dump_json()) == plan["estimate"]
    assert plan["estimate"]["process_bytes"]["expected"] == result.base_models[0].process_bytes
    recommend(PROMPT, out="plan")
    assert not (workspace / "plan" / "compute_plan.json").exists()


def apply(base: dict[str, Any], result: DecideRecommendResult, index: int) -> dict[str, Any]:
    values = json.loads(json.dumps(base))
    for change in result.flips[index].changes:
        place, keys = values, change.fact.split(".")
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = change.changed
    return values


FLIP_CASES: dict[str, dict[str, Any]] = {
    **SCENARIOS,
    "too little data": {**FINE_TUNE, "num_examples": 40},
    "too little volume": {**FINE_TUNE, "behaviours": ["fixed_format"], "requests_per_day": 50},
    "local": {**FINE_TUNE, "privacy": "local_only"},
    "far from everything": {**PROMPT, "num_examples": 0, "requests_per_day": 5, "stable_months": 0},
}


@pytest.mark.parametrize("name", FLIP_CASES)
def test_the_two_facts_that_would_turn_the_verdict_really_turn_it(name: str) -> None:
    base = FLIP_CASES[name]
    result = recommend(base)
    facts = {change.fact for flip in result.flips for change in flip.changes}
    assert len(facts) >= 2
    for index, flip in enumerate(result.flips):
        turned = recommend(apply(base, result, index))
        assert turned.approach == flip.approach != result.approach
    assert [flip.distance for flip in result.flips] == sorted(flip.distance for flip in result.flips)


def test_a_tipping_number_is_the_nearest_one_that_turns_the_verdict() -> None:
    result = recommend(FINE_TUNE)
    examples = next(flip for flip in result.flips if flip.changes[0].fact == "num_examples")
    assert (examples.changes[0].now, examples.changes[0].changed) == (2000, 499)
    assert examples.approach == "prompt"


def test_when_no_second_fact_turns_the_verdict_alone_the_fewest_that_do_together_are_named() -> None:
    result = recommend(PROMPT)
    # -3 for reasoning, -2 for a good prompt, -3 for a cheap API: only facts to look up turn it alone.
    assert [change.fact for change in result.flips[0].changes] == ["knowledge_change_days"]
    together = result.flips[1]
    assert together.approach == "fine-tune"
    assert len(together.changes) >= 2
    values = apply(PROMPT, result, 1)
    for change in together.changes:
        kept = json.loads(json.dumps(values))
        place, keys = kept, change.fact.split(".")
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = change.now
        assert recommend(kept).approach == "prompt"  # none of them is there for nothing


def test_the_same_request_gives_the_same_report(workspace: Path) -> None:
    first = recommend(HYBRID, out="one")
    stored = json.loads((workspace / "one" / "decision_report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(first.model_dump_json())
    again = recommend(HYBRID, out="one")
    assert again == first
    text = (workspace / "one" / "decision_report.md").read_text(encoding="utf-8")
    assert text.startswith("# claims clerk: hybrid, self-hosted\n")
    assert (workspace / "one" / "economics.json").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"requests_per_day": 0}, "requests_per_day: Input should be greater than 0"),
        ({"num_examples": -1}, "num_examples: Input should be greater than or equal to 0"),
        ({"prompt_success": 1.2}, "prompt_success: Input should be less than or equal to 1"),
        ({"target_success": float("nan")}, "target_success: Input should be a finite number"),
        ({"stable_months": -3}, "stable_months: Input should be greater than or equal to 0"),
        ({"max_latency_ms": 0}, "max_latency_ms: Input should be greater than 0"),
        ({"is_measurable": False}, "contradicts is_measurable"),
        ({"behaviours": ["persona", "persona"]}, "behaviours names one twice"),
        ({"behaviours": ["magic"]}, "behaviours.0: Input should be 'fixed_format'"),
        ({"gpu": "T5"}, "gpu: 'T5' is not known"),
        ({"privacy": "none"}, "privacy: Input should be 'api_allowed' or 'local_only'"),
        ({"costs": {**CHEAP_API, "output_tokens": -2}}, "costs.output_tokens: Input should be greater than"),
        ({"costs": {**CHEAP_API, "api_model": "gpt-9"}}, "no price is known for 'gpt-9'"),
    ],
)
def test_bad_facts_name_the_field_and_the_range(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        recommend(FINE_TUNE, **changes)
    assert problem in str(caught.value)
