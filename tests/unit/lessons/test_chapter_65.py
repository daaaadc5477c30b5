"""Chapter 65: a voice is judged by its items, and the tasks stay what they were."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.files import sha256_file
from pipeline.core.runs import Run
from pipeline.evals.intervals import wilson
from pipeline.lessons.check import LessonCheckResult
from pipeline.lessons.checks.chapter_65 import trait_counts
from pipeline.personas.items import passes
from pipeline.personas.spec import load_persona

Write = Callable[[str, Any], Path]
Verdict = Callable[[str], LessonCheckResult]
Row = dict[str, Any]
DATASETS = Path(__file__).resolve().parents[3] / "datasets" / "personas"
TASKMASTER = load_persona("taskmaster")
COSTS = {
    "api_model": "gpt-4o-mini",
    "input_tokens": 500,
    "output_tokens": 200,
    "training_usd": 20,
    "serving_usd_per_month": 30,
}
FACTS: Row = {
    "use_case": "assistant",
    "requests_per_day": 20_000,
    "is_measurable": True,
    "prompt_success": 0.4,
    "num_examples": 900,
    "stable_months": 24,
    "costs": COSTS,
}


def unmet(result: LessonCheckResult) -> list[str]:
    return [criterion.name for criterion in result.criteria if not criterion.is_met]


def shipped(name: str) -> list[Row]:
    return [json.loads(line) for line in (DATASETS / name).read_text(encoding="utf-8").splitlines()]


def replies(name: str) -> list[str]:
    return [
        message["content"]
        for row in shipped(name)
        for message in row["messages"]
        if message["role"] == "assistant" and message.get("content")
    ]


@pytest.fixture(autouse=True)
def spec(workspace: Path) -> None:
    folder = workspace / "learning" / "65.2"
    folder.mkdir(parents=True)
    shutil.copyfile(DATASETS / "taskmaster.yaml", folder / "persona.yaml")


def test_65_1_cases_are_what_their_facts_say(write: Write, check: Verdict) -> None:
    voice = {**FACTS, "behaviours": ["persona"]}
    news = {**FACTS, "knowledge_change_days": 1, "prompt_success": 0.5}
    rows = [
        {"request": voice, "answer": "style", "min_examples": 200},
        {"request": {**FACTS, "behaviours": ["fixed_format"]}, "answer": "style", "min_examples": 500},
        {"request": {**FACTS, "behaviours": ["tool_calls"]}, "answer": "style", "min_examples": 500},
        {"request": news, "answer": "knowledge", "min_examples": 0},
    ]
    write("65.1/cases.json", rows)
    result = check("65.1")
    assert result.passed, [criterion for criterion in result.criteria if not criterion.is_met]
    write("65.1/cases.json", [*rows[:3], {**rows[3], "answer": "style"}])
    assert len(unmet(check("65.1"))) == 2
    write("65.1/cases.json", rows[:3])
    assert unmet(check("65.1")) == ["4 cases, both kinds"]


def examples() -> Row:
    in_voice = [text for text in replies("taskmaster_train.jsonl") if passes(TASKMASTER, text)][:3]
    plain = ["Task 4 was created.", "Deleted.", "There are no open tasks."]
    return {"in_voice": in_voice, "plain": plain, "forbidden": [f"{text} Obviously!!!" for text in in_voice]}


def test_65_2_items_tell_voices_apart(write: Write, check: Verdict) -> None:
    good = examples()
    write("65.2/examples.json", good)
    assert check("65.2").passed, unmet(check("65.2"))
    write("65.2/examples.json", {**good, "plain": good["in_voice"]})
    assert len(unmet(check("65.2"))) == 1
    write("65.2/examples.json", {**good, "forbidden": good["plain"]})
    assert "forbidden replies break a hard rule" in unmet(check("65.2"))
    write("65.2/persona.yaml", "name: Nobody\ntraits: friendly\n")
    assert unmet(check("65.2")) == ["persona.yaml has the form of a persona"]


def test_65_3_rows_speak_in_the_voice(write: Write, check: Verdict) -> None:
    rows = shipped("taskmaster_train.jsonl")[:120]
    write("65.3/persona_rows.jsonl", rows)
    assert check("65.3").passed, [c for c in check("65.3").criteria if not c.is_met]
    plain = json.loads(json.dumps(rows))
    for row in plain:
        for message in row["messages"]:
            if message["role"] == "assistant" and message.get("content"):
                message["content"] = f"Done with row {row['id']}."
    write("65.3/persona_rows.jsonl", plain)
    assert "90% of the replies pass the persona's items" in unmet(check("65.3"))
    other = json.loads(json.dumps(rows))
    for row in other:
        row["messages"][0]["content"] = "You are a task assistant. Today is 2026-03-11."
    write("65.3/persona_rows.jsonl", other)
    assert unmet(check("65.3")) == ["every row has the persona's system prompt"]


def trained(workspace: Path, data: Path, *, epochs: float = 2, rate: float = 1e-4) -> Run:
    run = Run.create("train.run", {"model": "m", "data": str(data), "preset": "persona"})
    for step in range(1, 31):
        run.log_metrics(step=step, train_seconds=step * 1.0, loss=2.0 * 0.9**step)
    training = {
        "recipe": {"num_epochs": epochs, "learning_rate": rate},
        "data": {"train_sha256": sha256_file(data)},
        "injected_system_prompt": None,
        "outcome": {},
    }
    (run.artifacts / "training.json").write_text(json.dumps(training), encoding="utf-8")
    run.finish({"eval_loss": 0.2, "train_seconds": 10.0, "num_steps": 30, "trained_share": 0.2})
    return run


def test_65_4_the_prompt_was_trained(write: Write, check: Verdict, workspace: Path) -> None:
    data = write("data.jsonl", shipped("taskmaster_train.jsonl")[:20])
    write("65.4/training.json", {"run": trained(workspace, data).id})
    assert check("65.4").passed, unmet(check("65.4"))
    write("65.4/training.json", {"run": trained(workspace, data, epochs=10, rate=2e-3).id})
    assert unmet(check("65.4")) == ["two passes at a low rate, or a reason why not"]
    without = [{**row, "messages": row["messages"][1:]} for row in shipped("taskmaster_train.jsonl")[:20]]
    run = trained(workspace, write("other.jsonl", without))
    write("65.4/training.json", {"run": run.id})
    assert unmet(check("65.4")) == ["the persona's prompt was in the training text"]


def evaluation(texts: list[str], model: str = "models/mine", tools_right: int = 60) -> Run:
    run = Run.create("evals.run", {"cases": "x", "serve": model})
    rows: list[Row] = [
        {
            "id": f"r{i}",
            "turn": 1,
            "kind": "reply",
            "gold": {},
            "correct": True,
            "checks": {},
            "predicted": {"content": text},
        }
        for i, text in enumerate(texts)
    ]
    rows += [
        {
            "id": f"c{i}",
            "turn": 0,
            "kind": "call",
            "gold": {},
            "correct": True,
            "checks": {"right_tools": i < tools_right},
            "predicted": {},
        }
        for i in range(60)
    ]
    (run.artifacts / "details.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    run.finish({"num_cases": len(rows), "model": model, "latency": {"p95_ms": 400.0}})
    return run


def count(run: Run) -> Row:
    lines = (run.artifacts / "details.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [row["predicted"]["content"] for row in map(json.loads, lines) if row["kind"] == "reply"]
    passed = sum(passes(TASKMASTER, text) for text in texts)
    return {"passed": passed, "total": len(texts), "low": wilson(passed, len(texts))[0]}


def test_65_5_adherence_is_counted_from_the_replies(write: Write, check: Verdict, workspace: Path) -> None:
    base = evaluation(["Task 1 was created."] * 20)
    tuned = evaluation(replies("taskmaster_test.jsonl")[:40])
    report = {
        "base_run": base.id,
        "tuned_run": tuned.id,
        "base": count(base),
        "tuned": count(tuned),
        "traits": trait_counts(TASKMASTER, tuned),
    }
    write("65.5/persona_eval.json", report)
    assert check("65.5").passed, unmet(check("65.5"))
    write("65.5/persona_eval.json", {**report, "tuned": {**count(tuned), "low": 0.99}})
    assert unmet(check("65.5")) == ["tuned: adherence counted, with its lower bound"]
    write("65.5/persona_eval.json", {**report, "base_run": tuned.id, "base": count(tuned)})
    assert unmet(check("65.5")) == [
        "the tuned model keeps the voice more often than the base with the prompt"
    ]


def test_65_6_each_voice_is_its_own(write: Write, check: Verdict, workspace: Path) -> None:
    runs = {
        name: evaluation(replies(f"{name}_test.jsonl")[:40]).id
        for name in ("taskmaster", "analyst", "planner")
    }
    write("65.6/switch.json", runs)
    assert check("65.6").passed, [c for c in check("65.6").criteria if not c.is_met]
    write("65.6/switch.json", {**runs, "analyst": runs["taskmaster"]})
    assert unmet(check("65.6")) == ["analyst sounds like itself"]
    other = evaluation(replies("planner_test.jsonl")[:40], model="models/other")
    write("65.6/switch.json", {**runs, "planner": other.id})
    assert unmet(check("65.6")) == ["one model speaks for all three"]


def test_65_7_voice_and_tools_are_held_by_lower_bounds(write: Write, check: Verdict, workspace: Path) -> None:
    gates = {"min_adherence": 0.9, "min_tool_accuracy": 0.9}
    path = write(
        "65.7/spec.json",
        {
            "intent": "TaskMaster on our own machine, tools intact.",
            "constraints": ["2 cores"],
            "gates": gates,
        },
    )
    os.utime(path, (time.time() - 60, time.time() - 60))
    train = trained(workspace, write("data.jsonl", shipped("taskmaster_train.jsonl")[:20]))
    folder = workspace / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "export.json").write_text(json.dumps({"run": train.id}), encoding="utf-8")
    export = Run.create("export.run", {})
    export.finish({"path": "models/mine", "gate_passed": True})
    voice = [text for text in replies("taskmaster_test.jsonl") if passes(TASKMASTER, text)]

    def hand_in(run: Run) -> None:
        write("65.7/runs.json", {"train": train.id, "export": export.id, "evaluate": run.id})

    hand_in(evaluation(voice[:80]))
    assert check("65.7").passed, unmet(check("65.7"))
    hand_in(evaluation(voice[:20]))  # 20 of 20 only show 0.839
    assert unmet(check("65.7")) == ["trait adherence: the lower bound of the interval reaches 0.9"]
    hand_in(evaluation(voice[:80], tools_right=50))
    assert unmet(check("65.7")) == ["right tools: the lower bound of the interval reaches 0.9"]
