from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.evals.compare import EVALS_COMPARE, EvalCompareResult, decide
from pipeline.evals.intervals import Interval
from pipeline.evals.predictions import Reply
from pipeline.evals.records import TurnRecord
from pipeline.evals.report import choose_worst
from pipeline.evals.summary import summarise


def record(case: int, *, correct: bool, group: int | None = None, **fields: Any) -> TurnRecord:
    values: dict[str, Any] = {
        "id": f"case-{case}",
        "turn": 0,
        "kind": "call",
        "intent": "create",
        "group": str(case if group is None else group),
        "digest": f"{case:012d}",
        "user": "add milk",
        "gold": {"role": "assistant", "content": "x"},
        "predicted": Reply(content="y", latency_ms=float(case)),
        "correct": correct,
        "errors": () if correct else ("wrong_tool",),
        "checks": {"right_tools": correct},
        **fields,
    }
    return TurnRecord.model_validate(values)


def write(path: Path, records: list[TurnRecord]) -> str:
    path.write_text("".join(r.model_dump_json() + "\n" for r in records), encoding="utf-8")
    return str(path)


def compare(before: str, after: str) -> EvalCompareResult:
    return EVALS_COMPARE.call({"before": before, "after": after})


def test_a_small_gain_is_not_proven(tmp_path: Path) -> None:
    before = write(tmp_path / "a.jsonl", [record(i, correct=i >= 5) for i in range(40)])
    after = write(tmp_path / "b.jsonl", [record(i, correct=True) for i in range(40)])
    result = compare(before, after)
    assert (result.num_fixed, result.num_broken, result.p_value) == (5, 0, 0.0625)
    assert result.verdict == "not proven"


def test_a_gain_on_one_formulation_alone_is_not_proven(tmp_path: Path) -> None:
    # 30 rows fixed, p is tiny; but they all come from one of two formulations, so a resample may hold none of them.
    before = write(tmp_path / "a.jsonl", [record(i, correct=i >= 30, group=i // 30) for i in range(60)])
    after = write(tmp_path / "b.jsonl", [record(i, correct=True, group=i // 30) for i in range(60)])
    result = compare(before, after)
    assert result.p_value < 1e-6
    assert (result.difference.low, result.difference.num_clusters) == (0.0, 2)
    assert result.verdict == "not proven"


def test_equal_models_are_not_told_apart(tmp_path: Path) -> None:
    same = write(tmp_path / "a.jsonl", [record(i, correct=i % 2 == 0) for i in range(10)])
    result = compare(same, same)
    assert (result.verdict, result.p_value, result.difference.value) == ("not proven", 1.0, 0.0)
    assert result.regressions == []


@pytest.mark.parametrize(
    ("low", "high", "p_value", "verdict"),
    [
        (0.01, 0.2, 0.049, "better"),
        (0.01, 0.2, 0.05, "not proven"),
        (0.0, 0.2, 0.01, "not proven"),
        (-0.2, -0.01, 0.01, "worse"),
        (None, None, 0.01, "not proven"),
    ],
)
def test_a_verdict_needs_test_and_interval(
    low: float | None, high: float | None, p_value: float, verdict: str
) -> None:
    assert decide(Interval(value=0.1, low=low, high=high, num_clusters=9), p_value) == verdict


def test_turns_on_one_side_only_are_left_out_with_a_warning(tmp_path: Path) -> None:
    before = write(tmp_path / "a.jsonl", [record(i, correct=True) for i in range(3)])
    after = write(tmp_path / "b.jsonl", [record(2, correct=True), record(9, correct=True)])
    result = compare(before, after)
    assert result.num_turns == 1
    assert result.warnings == ["3 turns are on one side only, or differ, and were left out"]
    other = write(tmp_path / "c.jsonl", [record(0, correct=True, digest="changed")])
    with pytest.raises(InvalidInputError, match="share no turn"):
        compare(before, other)


def test_broken_missing_and_empty_files_are_refused(tmp_path: Path, workspace: Path) -> None:
    good = write(tmp_path / "a.jsonl", [record(0, correct=True)])
    (tmp_path / "half.jsonl").write_text('{"id": "x"', encoding="utf-8")
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("half.jsonl", "cannot read evaluation details"),
        ("empty.jsonl", "holds no evaluated turn"),
        ("folder", "holds no details.jsonl"),
        ("nowhere", "no run matches"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            compare(good, str(tmp_path / name))


def test_a_summary_counts_conversations_kinds_causes_and_times() -> None:
    records = [
        record(1, correct=True),
        record(2, correct=False, errors=("not_json", "missing_call"), checks={"well_formed": False}),
        record(3, correct=True, kind="talk", intent="thanks", checks={"no_call": True}),
        record(2, correct=True, turn=1, kind="reply", checks={"grounded": True}),
    ]
    summary = summarise(records, seed=0)
    counted = {name: (rate.right, rate.total) for name, rate in summary.rates.items()}
    assert counted == {
        "whole_turn": (3, 4),
        "conversation": (2, 3),
        "well_formed": (0, 1),
        "right_tools": (1, 1),
        "right_arguments": (0, 0),
        "right_state": (0, 0),
        "no_call": (1, 1),
        "right_question": (0, 0),
        "grounded": (1, 1),
    }
    assert {name: (rate.right, rate.total) for name, rate in summary.by_kind.items()} == {
        "call": (1, 2),
        "reply": (1, 1),
        "talk": (1, 1),
    }
    assert summary.by_intent["create"].total == 3
    assert summary.errors == {"not_json": 1}
    assert (summary.latency.p50_ms, summary.latency.p95_ms, summary.latency.call_p50_ms) == (2.0, 3.0, 1.0)


def test_resampling_what_is_all_right_claims_no_certainty() -> None:
    summary = summarise([record(i, correct=True) for i in range(50)], seed=0)
    assert summary.whole_turn_by_formulation is not None
    assert (summary.whole_turn_by_formulation.value, summary.whole_turn_by_formulation.low) == (1.0, None)
    assert summary.rates["whole_turn"].low == pytest.approx(0.929, abs=5e-4)


def test_a_summary_of_nothing_has_no_numbers() -> None:
    summary = summarise([], seed=0)
    assert summary.rates["whole_turn"].rate is None
    assert summary.whole_turn_by_formulation is None
    assert summary.latency.p95_ms is None


def test_the_turns_to_read_show_different_causes_first() -> None:
    records = [
        record(1, correct=False),
        record(2, correct=False),
        record(3, correct=False, errors=("not_json",)),
        record(4, correct=True),
    ]
    assert [r.id for r in choose_worst(records, limit=2)] == ["case-1", "case-3"]
    assert len(choose_worst(records)) == 3
