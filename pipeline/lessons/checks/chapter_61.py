"""Checks of chapter 61, Introduction to LLMOps: they judge computed reports, never the presence of words."""

import json
from typing import Any, cast

from pipeline.decide.recommend import DECIDE_RECOMMEND
from pipeline.economics.compare import ECONOMICS_COMPARE
from pipeline.lessons.checks.computed import (
    find_run,
    is_close,
    read_list,
    recompute,
    require_same,
    require_skill,
    rows_needed,
)
from pipeline.lessons.work import Work
from pipeline.operations import OPERATIONS

STAGES = ("data", "train", "evaluate", "deploy", "monitor")
_MIN_GAPS = 5
_MIN_METHODS = 3
_DECISION = ("approach", "fine_tune_points", "rag_points", "flips", "economics_verdict")


def check_61_1(work: Work) -> None:
    """The gaps of the generic model are cases that it really failed."""
    step = "llmops evals run --cases runs/data/test.jsonl --serve models/smollm2-135m --limit 30"
    gap = work.read_json("gap.json", next_step=f"Measure the untuned model first: {step}")
    run, result = find_run(work, gap.get("eval_run"), "evals.run", next_step=step)
    details = (run.artifacts / "details.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in details]
    failed = {(row["id"], row["turn"]) for row in rows if not row["correct"]}
    named = cast("list[dict[str, Any]]", gap.get("gaps") or [])
    places = {(item.get("id"), item.get("turn")) for item in named}
    work.require(
        f"{_MIN_GAPS} different turns are named",
        len(places) >= _MIN_GAPS,
        reason=f"{len(places)} named",
        next_step="List turns of details.jsonl as {id, turn, what_was_missing}.",
    )
    work.require(
        "the model failed every one of them",
        places <= failed,
        reason=f"not failed: {sorted(map(str, places - failed))[:3]}",
        next_step="Take turns whose `correct` is false.",
    )
    work.require(
        "the success rate stated is the measured one, with its interval",
        all(
            is_close(gap.get("rate", {}).get(key), result["whole_turn"][key])
            for key in ("rate", "low", "high")
        ),
        reason=f"measured {result['whole_turn']}",
        next_step="Copy `whole_turn` of the run's result into `rate`.",
    )


def check_61_2(work: Work) -> None:
    """Each stage feeds the next, the loop is closed, and success is defined so that the test can show it."""
    step = "Write the five stages as {stage, inputs, outputs, operation} and `success`."
    plan = work.read_json("lifecycle.json", next_step=step)
    stages = cast("list[dict[str, Any]]", plan.get("stages") or [])
    work.require(
        "the five stages are there in order",
        tuple(stage.get("stage") for stage in stages) == STAGES,
        reason=str([stage.get("stage") for stage in stages])[:120],
        next_step=f"Use {', '.join(STAGES)}.",
    )
    known = {entry.name for entry in OPERATIONS}
    for index, stage in enumerate(stages):
        following = stages[(index + 1) % len(stages)]
        work.require(
            f"{stage.get('stage')} runs an operation that exists and feeds {following.get('stage')}",
            stage.get("operation") in known
            and set(stage.get("outputs") or []) & set(following.get("inputs") or []),
            reason=f"operation {stage.get('operation')!r}",
            next_step="An output of each stage must be an input of the next; monitoring feeds data.",
        )
    success = cast("dict[str, Any]", plan.get("success") or {})
    target, rows = success.get("target"), success.get("num_test_rows")
    is_stated = isinstance(target, (int, float)) and 0 < target < 1 and isinstance(rows, int)
    needed = rows_needed(float(target)) if is_stated and target is not None else 0
    work.require(
        "the test is large enough to show the target",
        is_stated and rows is not None and rows >= needed,
        reason=f"target {target}, {rows} rows; all right would need {needed}",
        next_step="State target below 1 and num_test_rows; llmops evals run prints the interval.",
    )


def check_61_3(work: Work) -> None:
    """The report is what the stated facts give, and the facts include how well prompting does."""
    step = f"llmops decide recommend --request learning/{work.number}/decision_request.json --out learning/{work.number}"
    request, expected = recompute(
        work, DECIDE_RECOMMEND, "decision_request.json", next_step="Write the facts of your use case there."
    )
    work.require(
        "the success of prompting is stated",
        isinstance(request.get("prompt_success"), (int, float)),
        reason=f"prompt_success is {request.get('prompt_success')!r}",
        next_step="Measure or estimate how often the best prompt succeeds, and set prompt_success.",
    )
    require_same(
        work, work.read_json("decision_report.json", next_step=step), expected, _DECISION, next_step=step
    )


def check_61_4(work: Work) -> None:
    """Three needs, each with the training stages that its facts give; the three are not all the same."""
    step = "Write methods.json: a list of {request, stages}, stages as `llmops decide recommend` names their objectives."
    rows = read_list(work, work.path("methods.json", next_step=step), next_step=step)
    plans: set[tuple[str, ...]] = set()
    for index, row in enumerate(rows):
        answer = work.call(DECIDE_RECOMMEND, {**row.get("request", {}), "out": None}, next_step=step)
        stages = tuple(stage["objective"] for stage in answer.model_dump(mode="json")["stages"])
        plans.add(stages)
        work.require(
            f"need {index + 1} gets the stages its facts give",
            tuple(row.get("stages") or ()) == stages,
            reason=f"you have {row.get('stages')}, the facts give {list(stages)}",
            next_step="Run decide recommend on the request and read `stages`.",
        )
    work.require(
        f"{_MIN_METHODS} different plans, one of them with preference pairs and one that trains nothing",
        len(plans) >= _MIN_METHODS and () in plans and any("dpo" in plan for plan in plans),
        reason=f"{len(plans)} different plans",
        next_step="Change behaviours (persona, preference) and facts until the plans differ.",
    )


def check_61_5(work: Work) -> None:
    """Break-even and payback follow from token counts and a dated price; a case that never pays is known too."""
    step = "llmops economics compare --request learning/61.5/economics_request.json --out learning/61.5"
    request, expected = recompute(
        work, ECONOMICS_COMPARE, "economics_request.json", next_step="Write the costs there."
    )
    work.require(
        "the price of a request is computed from tokens, not guessed",
        request.get("api_usd_per_request") is None
        and request.get("input_tokens")
        and request.get("output_tokens"),
        reason=f"api_usd_per_request {request.get('api_usd_per_request')!r}",
        next_step="Give api_model, input_tokens and output_tokens instead.",
    )
    names = ("verdict", "payback_months", "break_even_requests", "cases", "sensitivity")
    require_same(work, work.read_json("economics.json", next_step=step), expected, names, next_step=step)
    _, never = recompute(
        work,
        ECONOMICS_COMPARE,
        "never_pays_request.json",
        next_step="Write a second request that never pays back.",
    )
    work.require(
        "the second case never pays back",
        never["payback_months"] is None,
        reason=f"payback {never['payback_months']}",
        next_step="Lower requests_per_day or the API price until serving costs more.",
    )


def check_61_6(work: Work) -> None:
    """The use case is decided from its facts, and the data it needs is computed."""
    step = "llmops decide recommend --request learning/61.6/use_case.json --out learning/61.6"
    request, expected = recompute(
        work, DECIDE_RECOMMEND, "use_case.json", next_step="Fill the facts of your use case."
    )
    work.require(
        "latency, privacy and hours are stated",
        request.get("max_latency_ms") and request.get("privacy") and request.get("hours_available"),
        reason=f"{ {key: request.get(key) for key in ('max_latency_ms', 'privacy', 'hours_available')} }",
        next_step="Ask for them: they decide where the model may run.",
    )
    require_same(
        work, work.read_json("decision_report.json", next_step=step), expected, _DECISION, next_step=step
    )
    estimate = work.read_json("data_estimate.json", next_step="Write {num_missing, num_test_rows} there.")
    missing = sum(max(0, stage["min_examples"] - stage["num_at_hand"]) for stage in expected["stages"])
    target = float(request.get("target_success", 0.9))
    require_same(
        work,
        estimate,
        {"num_missing": missing, "num_test_rows": rows_needed(target)},
        ("num_missing", "num_test_rows"),
        next_step="Examples still to make by `stages`; test rows, all right, whose lower bound reaches target_success.",
    )


def check_61_7(work: Work) -> None:
    """A valid decision skill that works with the operations of this chapter."""
    require_skill(work, "llmops-decision-framework", {"decide", "economics"})
