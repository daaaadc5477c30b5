"""Chapter 61: honest work passes; work that only looks right does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.decide.recommend import DECIDE_RECOMMEND
from pipeline.economics.compare import ECONOMICS_COMPARE
from pipeline.lessons.check import LessonCheckResult
from pipeline.lessons.checks.computed import rows_needed

Write = Callable[[str, Any], Path]
Verdict = Callable[[str], LessonCheckResult]
COSTS = {
    "api_model": "gpt-4o-mini",
    "input_tokens": 500,
    "output_tokens": 200,
    "serving_usd_per_month": 30,
    "training_usd": 20,
}
FACTS: dict[str, Any] = {
    "use_case": "Task API assistant",
    "requests_per_day": 10_000,
    "behaviours": ["tool_calls", "fixed_format"],
    "is_measurable": True,
    "prompt_success": 0.6,
    "num_examples": 600,
    "stable_months": 12,
    "costs": COSTS,
}
SKILL = """---
name: {name}
description: {text}
---
# How to decide
Ask first. Run `llmops {commands}`.
"""


def unmet(result: LessonCheckResult) -> list[str]:
    return [criterion.name for criterion in result.criteria if not criterion.is_met]


def decided(request: dict[str, Any]) -> dict[str, Any]:
    return DECIDE_RECOMMEND.call(request).model_dump(mode="json")


def test_61_1_gaps_are_measured_failures(write: Write, check: Verdict, finished_run: Any) -> None:
    details = [{"id": f"t{i}", "turn": 0, "correct": i >= 6} for i in range(10)]
    rate = {"rate": 0.4, "low": 0.168, "high": 0.687, "right": 4, "total": 10}
    run = finished_run("evals.run", {"whole_turn": rate, "num_cases": 10}, details__jsonl=details)
    gaps = [{"id": f"t{i}", "turn": 0, "what_was_missing": "a call"} for i in range(5)]
    honest = {"eval_run": run.id, "rate": rate, "gaps": gaps}
    write("61.1/gap.json", honest)
    assert check("61.1").passed
    write("61.1/gap.json", {**honest, "gaps": [*gaps[:4], {"id": "t9", "turn": 0}]})
    assert unmet(check("61.1")) == ["the model failed every one of them"]
    write("61.1/gap.json", {**honest, "rate": {"rate": 0.4, "low": 0.3, "high": 0.5}})
    assert unmet(check("61.1")) == ["the success rate stated is the measured one, with its interval"]
    write("61.1/gap.json", {**honest, "eval_run": "20260101T000000Z-evals-run-000000"})
    assert not check("61.1").passed


def lifecycle(**success: Any) -> dict[str, Any]:
    chain = [
        ("data", "failed requests", "rows", "synth.generate"),
        ("train", "rows", "run", "train.run"),
        ("evaluate", "run", "report", "evals.run"),
        ("deploy", "report", "served model", "deploy.serve"),
        ("monitor", "served model", "failed requests", "deploy.status"),
    ]
    stages = [
        {"stage": stage, "inputs": [takes], "outputs": [gives], "operation": operation}
        for stage, takes, gives, operation in chain
    ]
    return {
        "stages": stages,
        "success": {"metric": "whole_turn", "target": 0.9, "num_test_rows": 60, **success},
    }


def test_61_2_a_plan_closes_its_loop_and_can_show_success(write: Write, check: Verdict) -> None:
    write("61.2/lifecycle.json", lifecycle())
    assert check("61.2").passed
    open_loop = lifecycle()
    open_loop["stages"][4]["outputs"] = ["a dashboard"]
    write("61.2/lifecycle.json", open_loop)
    assert len(unmet(check("61.2"))) == 1
    write("61.2/lifecycle.json", lifecycle(target=0.95, num_test_rows=50))  # 50 of 50 show 0.929, no more
    assert unmet(check("61.2")) == ["the test is large enough to show the target"]


def test_rows_needed_are_those_of_the_notes() -> None:
    assert rows_needed(0.95) == 73  # Wilson at 95 %: data_and_eval, section 0
    assert rows_needed(0.9) == 35


def test_61_3_a_report_must_follow_from_its_facts(write: Write, check: Verdict) -> None:
    write("61.3/decision_request.json", FACTS)
    report = decided(FACTS)
    write("61.3/decision_report.json", report)
    assert check("61.3").passed
    write("61.3/decision_report.json", {**report, "fine_tune_points": report["fine_tune_points"] + 1})
    assert unmet(check("61.3")) == ["fine_tune_points is what the facts give"]
    write("61.3/decision_report.json", decided({**FACTS, "requests_per_day": 50}))
    assert not check("61.3").passed


def test_61_4_three_needs_get_their_methods(write: Write, check: Verdict) -> None:
    pairs = {**FACTS, "behaviours": ["tool_calls", "preference"], "num_preference_pairs": 600}
    nothing = {**FACTS, "is_measurable": False, "prompt_success": None}
    rows: list[dict[str, Any]] = [
        {"request": FACTS, "stages": ["tool_calls"]},
        {"request": pairs, "stages": ["tool_calls", "dpo"]},
        {"request": nothing, "stages": []},
    ]
    write("61.4/methods.json", rows)
    assert check("61.4").passed
    write("61.4/methods.json", [rows[0], {**rows[1], "stages": ["dpo"]}, rows[2]])
    assert unmet(check("61.4")) == ["need 2 gets the stages its facts give"]
    write("61.4/methods.json", rows[:2])
    assert len(unmet(check("61.4"))) == 1


def test_61_5_money_is_computed_from_tokens(write: Write, check: Verdict) -> None:
    request = {**COSTS, "requests_per_day": 10_000}
    never = {**request, "requests_per_day": 10}
    write("61.5/economics_request.json", request)
    write("61.5/never_pays_request.json", never)
    answer = ECONOMICS_COMPARE.call(request).model_dump(mode="json")
    write("61.5/economics.json", answer)
    assert check("61.5").passed
    write("61.5/economics.json", {**answer, "payback_months": 3})
    assert unmet(check("61.5")) == ["payback_months is what the facts give"]
    write("61.5/economics.json", answer)
    write("61.5/never_pays_request.json", request)
    assert unmet(check("61.5")) == ["the second case never pays back"]


def test_61_5_a_guessed_price_is_not_enough(write: Write, check: Verdict) -> None:
    guessed = {
        "api_usd_per_request": 0.003,
        "requests_per_day": 10_000,
        "serving_usd_per_month": 300,
        "training_usd": 200,
    }
    write("61.5/economics_request.json", guessed)
    write("61.5/never_pays_request.json", {**guessed, "requests_per_day": 10})
    write("61.5/economics.json", ECONOMICS_COMPARE.call(guessed).model_dump(mode="json"))
    assert unmet(check("61.5")) == ["the price of a request is computed from tokens, not guessed"]


def test_61_6_a_use_case_comes_with_the_data_it_takes(write: Write, check: Verdict) -> None:
    case = {
        **FACTS,
        "num_examples": 200,
        "can_generate_examples": True,
        "max_latency_ms": 2000,
        "privacy": "local_only",
        "hours_available": 80,
    }
    write("61.6/use_case.json", case)
    report = decided(case)
    write("61.6/decision_report.json", report)
    missing = sum(max(0, s["min_examples"] - s["num_at_hand"]) for s in report["stages"])
    assert missing == 300  # tool calls take 500, 200 are at hand
    write("61.6/data_estimate.json", {"num_missing": 300, "num_test_rows": 35})
    assert check("61.6").passed
    write("61.6/data_estimate.json", {"num_missing": 300, "num_test_rows": 20})
    assert unmet(check("61.6")) == ["num_test_rows is what the facts give"]


def evals_of(num: int) -> dict[str, Any]:
    return {"triggers": [{"prompt": f"prompt {i}", "should_trigger": i % 2 == 0} for i in range(num)]}


@pytest.mark.parametrize(
    ("number", "name", "commands"),
    [
        ("61.7", "llmops-decision-framework", "decide recommend` and `llmops economics compare"),
        ("62.8", "llmops-compute-planner", "vram estimate"),
    ],
)
def test_a_skill_is_valid_and_names_what_exists(
    number: str, name: str, commands: str, write: Write, check: Verdict
) -> None:
    good = SKILL.format(
        name=name, text="Decides. Use it when somebody asks whether to train.", commands=commands
    )
    write(f"{number}/{name}/SKILL.md", good)
    write(f"{number}/{name}/evals/evals.json", evals_of(10))
    assert check(number).passed
    write(f"{number}/{name}/SKILL.md", good.replace("llmops ", "llmops decide explode and llmops ", 1))
    assert "every command it names exists" in unmet(check(number))
    write(f"{number}/{name}/SKILL.md", good.replace(f"name: {name}", "name: other"))
    assert len(unmet(check(number))) == 1
    write(f"{number}/{name}/SKILL.md", "# Skill: no frontmatter\nThink like an engineer.\n")
    assert len(unmet(check(number))) >= 2
    write(f"{number}/{name}/SKILL.md", good)
    write(
        f"{number}/{name}/evals/evals.json", {"triggers": [{"prompt": "same", "should_trigger": True}] * 10}
    )
    assert len(unmet(check(number))) == 1
