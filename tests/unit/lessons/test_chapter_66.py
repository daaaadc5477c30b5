"""Chapter 66: outputs parsed again, calls executed again, rates counted again."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.runs import Run
from pipeline.evals.intervals import wilson
from pipeline.lessons.check import LessonCheckResult
from pipeline.synth.generate import SYNTH_GENERATE

Write = Callable[[str, Any], Path]
Verdict = Callable[[str], LessonCheckResult]
Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
TOOLS: list[Row] = json.loads((ROOT / "pipeline" / "task_api" / "tools.json").read_text(encoding="utf-8"))


def unmet(result: LessonCheckResult) -> list[str]:
    return [criterion.name for criterion in result.criteria if not criterion.is_met]


def test_66_1_verdicts_are_the_validators(write: Write, check: Verdict) -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "priority": {"enum": ["low", "high"]}},
        "required": ["title"],
        "additionalProperties": False,
    }
    good = [{"text": json.dumps({"title": f"t{i}"}), "valid": True} for i in range(6)]
    bad = [
        {"text": 'Sure! {"title": "x"}', "valid": False},
        {"text": '{"priority": "low"}', "valid": False},
        {"text": '{"title": "x", "priority": "urgent"}', "valid": False},
        {"text": '{"title": "x", "when": "Friday"}', "valid": False},
    ]
    write("66.1/schema.json", schema)
    write("66.1/outputs.jsonl", good + bad)
    assert check("66.1").passed, unmet(check("66.1"))
    write("66.1/outputs.jsonl", [*good, {**bad[0], "valid": True}, *bad[1:]])
    assert "every verdict is the validator's" in unmet(check("66.1"))
    write("66.1/outputs.jsonl", good + bad)
    write("66.1/schema.json", {key: value for key, value in schema.items() if key != "additionalProperties"})
    assert "the schema forbids what it does not name and demands something" in unmet(check("66.1"))


def tool_row(text: str, arguments: Row, reply: str = "Done.") -> Row:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "create_task", "arguments": json.dumps(arguments)},
    }
    return {
        "tools": TOOLS,
        "messages": [
            {"role": "user", "content": text},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": '{"task": {"id": 1}}'},
            {"role": "assistant", "content": reply},
            {"role": "user", "content": "thanks"},
            {"role": "assistant", "content": "You are welcome."},
        ],
    }


def test_66_2_calls_are_grounded(write: Write, check: Verdict) -> None:
    rows = [tool_row(f"add number {i}", {"title": f"number {i}"}) for i in range(4)]
    rows.append(tool_row("add milk, high priority", {"title": "milk", "priority": "high"}))
    write("66.2/rows.jsonl", rows)
    assert check("66.2").passed, unmet(check("66.2"))
    invented = [*rows[:4], tool_row("review the budget by Friday", {"title": "review", "priority": "high"})]
    write("66.2/rows.jsonl", invented)  # the course plan's own example
    assert unmet(check("66.2")) == ["no call has a priority that nobody asked for"]
    write("66.2/rows.jsonl", [*rows[:4], tool_row("x", {"title": "x", "priority": "urgent"})])
    assert "rows.jsonl: 5 rows or more, all valid" in unmet(check("66.2"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_WORKSPACE", str(folder))
        SYNTH_GENERATE.call(
            {"out": "d", "num_rows": 400, "validation_rows": 20, "test_rows": 20, "seed": 3, "mix": "full"}
        )
    lines = (folder / "d" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["messages"][-1].get("content")]


def has_call(row: Row) -> bool:
    return any(message.get("tool_calls") for message in row["messages"])


def test_66_3_tool_rows_are_executed_and_mixed(write: Write, check: Verdict, generated: list[Row]) -> None:
    write("66.3/tool_rows.jsonl", generated)
    assert check("66.3").passed, unmet(check("66.3"))
    write("66.3/tool_rows.jsonl", [row for row in generated if has_call(row)])
    assert unmet(check("66.3")) == ["rows that need no call: three at least"]
    write("66.3/tool_rows.jsonl", [generated[0]] * 120)
    assert len(unmet(check("66.3"))) >= 3


def turns(right: int, total: int, *, silent: int = 10) -> list[Row]:
    rows: list[Row] = [
        {
            "id": f"t{i}",
            "turn": i % 2,
            "kind": "call",
            "intent": "create",
            "gold": {"tool_calls": [1]},
            "correct": i < right,
            "checks": {
                "well_formed": True,
                "right_tools": i < right,
                "right_arguments": i < right,
                "right_state": i < right,
            },
        }
        for i in range(total)
    ]
    rows += [
        {
            "id": f"s{i}",
            "turn": 0,
            "kind": "reply",
            "intent": "",
            "gold": {},
            "correct": True,
            "checks": {"no_call": True},
        }
        for i in range(silent)
    ]
    return rows


def evaluation(rows: list[Row], model: str = "models/mine") -> Run:
    run = Run.create("evals.run", {"cases": "test.jsonl", "serve": model})
    (run.artifacts / "details.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    run.finish({"num_cases": len(rows), "latency": {"p95_ms": 400.0}})
    return run


def rate(right: int, total: int) -> Row:
    return {"right": right, "total": total, "low": wilson(right, total)[0]}


def test_66_5_four_rates_are_counted_again(write: Write, check: Verdict, workspace: Path) -> None:
    run = evaluation(turns(95, 100))
    report = {"run": run.id, "well_formed": rate(100, 100)}
    report |= {name: rate(95, 100) for name in ("right_tools", "right_arguments", "right_state")}
    write("66.5/tool_eval.json", report)
    assert check("66.5").passed, unmet(check("66.5"))
    write("66.5/tool_eval.json", {**report, "right_tools": {"right": 95, "total": 100, "low": 0.95}})
    assert unmet(check("66.5")) == ["right_tools: counted and with its lower bound"]
    only_calls = evaluation(turns(95, 100, silent=0))
    write("66.5/tool_eval.json", {**report, "run": only_calls.id})
    assert unmet(check("66.5")) == ["requests that need no call are in the test"]


def item(tool: str, arguments: Row, result: Row) -> Row:
    return {"role": "tool", "text": "", "tool": tool, "arguments": arguments, "result": result}


def agent(output: str, *items: Row, base_url: str = "http://127.0.0.1:8080/v1") -> Run:
    run = Run.create("agent.run", {"text": "x"})
    run.finish({"items": list(items), "output": output, "base_url": base_url})
    return run


CREATED = item("create_task", {"title": "call"}, {"task": {"id": 7, "title": "call"}})


def test_66_6_a_tool_worked_and_the_reply_rests_on_it(write: Write, check: Verdict, workspace: Path) -> None:
    write("66.6/agent.json", {"run": agent("Created task 7.", CREATED).id})
    assert check("66.6").passed, unmet(check("66.6"))
    write("66.6/agent.json", {"run": agent("Created task 12.", CREATED).id})
    assert unmet(check("66.6")) == ["the reply rests on what the tool returned"]
    write("66.6/agent.json", {"run": agent("I have created your task.").id})
    assert unmet(check("66.6")) == ["a tool was called and worked"]
    paid = agent("Created task 7.", CREATED, base_url="https://api.openai.com/v1")
    write("66.6/agent.json", {"run": paid.id})
    assert unmet(check("66.6")) == ["the model ran on this machine or your network"]


def test_66_7_four_situations_are_met(write: Write, check: Verdict, workspace: Path) -> None:
    unknown = item("complete_task", {"task_id": 99999}, {"error": "not_found"})
    runs = {
        "missing_title": agent("What should I call it?"),
        "unknown_id": agent("There is no task 99999. Shall I list them?", unknown),
        "invalid_priority": agent(
            "Which priority?", item("create_task", {"priority": "max"}, {"error": "invalid"})
        ),
        "two_requests": agent("Both done.", CREATED, CREATED),
    }
    write("66.7/scenarios.json", {name: run.id for name, run in runs.items()})
    assert check("66.7").passed, unmet(check("66.7"))
    wrong = {
        "missing_title": agent("Created.", item("create_task", {"title": "a task"}, {"task": {"id": 1}})),
        "unknown_id": agent("Task 99999 is completed."),
        "invalid_priority": agent("Done.", item("create_task", {"priority": "max"}, {"task": {"id": 2}})),
        "two_requests": agent("Done.", CREATED),
    }
    for name, run in wrong.items():
        write("66.7/scenarios.json", {**{key: good.id for key, good in runs.items()}, name: run.id})
        assert len(unmet(check("66.7"))) == 1, name


def finished_training() -> Run:
    run = Run.create("train.run", {"model": "m", "data": "d"})
    run.finish({"trained_share": 0.2, "eval_loss": 0.1, "train_seconds": 60.0, "num_steps": 40})
    return run


def test_66_8_a_backend_is_proven_by_lower_bounds(write: Write, check: Verdict, workspace: Path) -> None:
    gates = {"min_tool_accuracy": 0.95, "min_valid_json": 0.99, "max_latency_ms": 500}
    spec = {
        "intent": "A drop-in backend for task agents on our own box.",
        "constraints": ["2 cores"],
        "gates": gates,
    }
    path = write("66.8/spec.json", spec)
    os.utime(path, (time.time() - 60, time.time() - 60))
    train = finished_training()
    folder = workspace / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "export.json").write_text(json.dumps({"run": train.id}), encoding="utf-8")
    export = Run.create("export.run", {})
    export.finish({"path": "models/mine", "gate_passed": True})
    works = agent("Created task 7.", CREATED)

    def runs(rows: list[Row]) -> None:
        ids = {"train": train.id, "export": export.id, "evaluate": evaluation(rows).id, "agent": works.id}
        write("66.8/runs.json", ids)

    runs(turns(490, 500))  # 98 % of 500: lower bound 0.9636; 500 of 500 well formed: 0.9924
    assert check("66.8").passed, unmet(check("66.8"))
    runs(turns(50, 50))
    assert set(unmet(check("66.8"))) == {
        "right tools: the lower bound of the interval reaches 0.95",
        "valid JSON: the lower bound of the interval reaches 0.99",
    }
    runs(turns(490, 500, silent=0))
    assert unmet(check("66.8")) == ["restraint was measured"]


@pytest.mark.slow
def test_66_4_a_run_on_tool_rows(
    write: Write, check: Verdict, workspace: Path, starter_model: Path, generated: list[Row]
) -> None:
    data = write("data/train.jsonl", generated[:12])

    def trained(losses: list[float]) -> Run:
        run = Run.create(
            "train.run", {"model": str(starter_model), "data": str(data.parent), "preset": "cpu-smoke"}
        )
        for step, loss in enumerate(losses, start=1):
            run.log_metrics(step=step, train_seconds=step * 1.0, loss=loss)
        run.finish({"trained_share": 0.2, "num_steps": len(losses), "eval_loss": None, "train_seconds": 1.0})
        return run

    run = trained([2.0 * 0.9**step for step in range(40)])
    write("66.4/training.json", {"run": run.id, "num_call_rows": 12})
    assert check("66.4").passed, unmet(check("66.4"))
    write("66.4/training.json", {"run": run.id, "num_call_rows": 400})
    assert unmet(check("66.4")) == ["the number of rows with tools is the file's"]
    write("66.4/training.json", {"run": trained([1.5] * 40).id, "num_call_rows": 12})
    assert unmet(check("66.4")) == ["the training loss fell"]
