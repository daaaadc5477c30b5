"""Asking otherwise, and what a case file cannot tell apart: expected values written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_jsonl
from pipeline.evals.cases import Case, read_case_file
from pipeline.evals.perturb import make_variants
from pipeline.evals.robustness import EVALS_ROBUSTNESS
from pipeline.evals.selftest import EVALS_SELFTEST
from pipeline.evals.slices import SLICES
from pipeline.evals.tool_calls import CaseScorer, read_calls
from pipeline.inference.scripted_server import ScriptedServer, completion

HOME = Path(__file__).resolve().parents[2] / "assets" / "home_cases.jsonl"
ROWS = {row["id"]: row for row in read_jsonl(HOME)}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def names(row: dict[str, Any]) -> list[str]:
    return [tool["name"] if "name" in tool else tool["function"]["name"] for tool in row["tools"]]


def test_renamed_tools_are_renamed_in_the_tools_the_answer_and_the_history() -> None:
    changed = SLICES["renamed_tools"](ROWS["cancel-after-list"], 0)
    assert changed is not None
    assert names(changed)[-2:] == ["events_list", "event_cancel"]
    assert changed["expected"]["calls"][0]["name"] == "event_cancel"
    assert changed["messages"][2]["tool_calls"][0]["function"]["name"] == "events_list"


def test_renamed_parameters_keep_required_answer_and_history_in_step() -> None:
    changed = SLICES["renamed_parameters"](ROWS["cancel-after-list"], 0)
    assert changed is not None
    tool = changed["tools"][4]
    assert tool["parameters"]["required"] == ["id_event"]
    assert list(changed["expected"]["calls"][0]["args"]) == ["id_event"]
    assert json.loads(changed["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {
        "date_field": "2026-03-14"
    }


def test_a_written_out_date_is_right_in_both_forms() -> None:
    changed = SLICES["other_dates"](ROWS["list-day"], 0)
    assert changed is not None
    assert changed["messages"][-1]["content"] == "What is on March 14, 2026?"
    assert changed["expected"]["calls"][0]["args"]["date"]["any_of"] == [
        "2026-03-14",
        {"value": "March 14, 2026"},
    ]
    assert SLICES["other_dates"](ROWS["cancel"], 0) is None


def test_another_system_prompt_keeps_the_day() -> None:
    changed = SLICES["other_system_prompt"](ROWS["list-today"], 0)
    assert changed is not None
    assert changed["messages"][0]["content"].endswith("Today is Wednesday, 2026-03-11.")
    assert "You run a home" not in changed["messages"][0]["content"]


def test_more_tools_come_beside_the_right_ones() -> None:
    for name, count in (("distractor_tools", 9), ("long_tool_list", 37)):
        changed = SLICES[name](ROWS["cancel"], 0)
        assert changed is not None
        assert len(names(changed)) == len(set(names(changed))) == count
        assert set(names(ROWS["cancel"])) <= set(names(changed))


@given(st.sampled_from(sorted(ROWS)), st.integers(0, 50))
def test_every_slice_leaves_a_sound_case_whose_reference_passes(case_id: str, seed: int) -> None:
    before = json.dumps(ROWS[case_id])
    for change in SLICES.values():
        row = change(ROWS[case_id], seed)
        if row is not None and row["expected"]["kind"] == "calls":
            case = Case.model_validate(row)
            reference = next(v for v in make_variants(case) if v.kind == "reference")
            assert CaseScorer(case).score(read_calls(reference.calls)).correct
    assert json.dumps(ROWS[case_id]) == before


def test_the_worst_slice_is_named_with_its_loss(workspace: Path, tmp_path: Path) -> None:
    right, wrong = (completion(None, ("cancel_event", f'{{"event_id": {n}}}')) for n in (12, 13))
    models = {"object": "list", "data": [{"id": "m"}]}
    cases = write_rows(tmp_path / "c.jsonl", [ROWS["cancel"]])
    with ScriptedServer((200, models), (200, right), (200, right), (200, wrong)) as server:
        result = EVALS_ROBUSTNESS.call(
            {
                "cases": cases,
                "base_url": server.base_url,
                "concurrency": 1,
                "slices": ["shuffled_tools", "paraphrase"],
            }
        )
    assert (result.worst_slice, result.max_drop) == ("paraphrase", 1.0)
    assert result.slices["shuffled_tools"].delta.value == 0
    assert result.slices["paraphrase"].p_value == 1.0  # one pair proves nothing
    assert (workspace / result.report).with_name("slices.png").exists()
    with pytest.raises(InvalidInputError, match="unknown slice 'upside_down'"):
        EVALS_ROBUSTNESS.call(
            {"cases": cases, "base_url": "http://127.0.0.1:9/v1", "slices": ["upside_down"]}
        )


def test_a_case_that_accepts_any_priority_is_shown_to_accept_a_wrong_one(tmp_path: Path) -> None:
    row = json.loads(json.dumps(ROWS["heat-bedroom"]))
    row["expected"]["calls"][0]["args"]["room"] = {"any_of": ["bedroom"], "match": "ignore"}
    result = EVALS_SELFTEST.call({"cases": write_rows(tmp_path / "c.jsonl", [row])})
    assert "enum_neighbour" not in {s.kind for s in EVALS_SELFTEST.call({"cases": str(HOME)}).survivors}
    assert "enum_neighbour" in {survivor.kind for survivor in result.survivors}
    assert result.is_negative()


def test_the_lint_names_broken_references_contradictions_and_values_nobody_said(tmp_path: Path) -> None:
    broken, other, unsaid = (
        json.loads(json.dumps(ROWS[name])) for name in ("read-kitchen", "cancel", "cancel")
    )
    broken["expected"]["calls"][0]["args"]["room"]["any_of"] = ["cellar"]
    other |= {"id": "other"}
    other["expected"] = {"kind": "none"}
    unsaid["expected"]["calls"][0]["args"]["event_id"]["any_of"] = [77]
    cases = write_rows(tmp_path / "c.jsonl", [broken, unsaid, other])
    found = {(lint.id, lint.rule) for lint in EVALS_SELFTEST.call({"cases": cases}).lints}
    assert found == {
        ("read-kitchen", "reference_enum_violation"),
        ("cancel", "ungrounded_reference"),
        ("other", "contradiction"),
    }


def test_the_home_cases_try_more_than_forty_kinds_and_keep_all_right_answers() -> None:
    result = EVALS_SELFTEST.call({"cases": str(HOME)})
    assert len(result.kinds) > 40
    assert result.right_accepted.rate == 1.0
    assert [s.kind for s in result.survivors] == ["list_item_twice"]  # guests are compared as a set
    assert len(read_case_file(HOME)) == result.num_cases
