"""Persona evaluation: agreement numbers by hand, voices, the operation on replayed replies, and the human protocol."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json
from pipeline.evals.agreement import cohen_kappa, gwet_ac1, measure_agreement
from pipeline.evals.human import EVALS_AGREE, EVALS_SHEET
from pipeline.evals.persona import EVALS_PERSONA, EvalPersonaResult
from pipeline.evals.persona_cases import PersonaCase, Reply, make_switches
from pipeline.evals.preference import prefer_by_judge, summarise_preference
from pipeline.evals.style import StyleClassifier, area_under_curve
from pipeline.inference.scripted_server import ReceivedRequest, ScriptedServer, completion
from pipeline.personas.spec import load_persona
from pipeline.task_api.tools import load_tools

PERSONAS = Path(__file__).resolve().parents[3] / "datasets" / "personas"
SPECS = [str(PERSONAS / f"{name}.yaml") for name in ("taskmaster", "analyst")]
COACH = "Great momentum! I've added task 5, \"call Ann\". Let's block 10 minutes for your next step."
RUDE = "Obviously you should have done that earlier. Task 5 is added."
DRY = "Task 5 created. Status: open. One task due on 2026-03-12; 0 of 1 tasks are overdue."


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def prompt(case_id: str, persona: str, reference: str = "") -> dict[str, Any]:
    messages = [{"role": "user", "content": f"remind me ({case_id})"}]
    messages += [{"role": "assistant", "content": reference}] if reference else []
    return {"id": case_id, "persona": persona, "messages": messages}


def pairs(yes_yes: int, yes_no: int, no_yes: int, no_no: int) -> list[tuple[str, str]]:
    table = {("y", "y"): yes_yes, ("y", "n"): yes_no, ("n", "y"): no_yes, ("n", "n"): no_no}
    return [pair for pair, count in table.items() for _ in range(count)]


def test_kappa_and_ac1_are_what_a_hand_calculation_gives() -> None:
    # 20/5/10/15 of 50: p_o = 0.7; shares 0.5 and 0.6, so p_e = 0.5*0.6 + 0.5*0.4 = 0.5 and kappa = 0.4.
    # AC1: q = 55/100, p_e = 2 * 0.55 * 0.45 = 0.495, (0.7 - 0.495) / 0.505 = 0.40594.
    table = pairs(20, 5, 10, 15)
    assert cohen_kappa(table) == pytest.approx(0.4)
    assert gwet_ac1(table) == pytest.approx(0.205 / 0.505)


def test_with_one_frequent_label_kappa_collapses_and_ac1_does_not() -> None:
    # 90/5/5/0: p_o = 0.9; p_e = 0.95^2 + 0.05^2 = 0.905, kappa = -0.0526; AC1: 2*0.95*0.05 = 0.095, 0.805/0.905.
    table = pairs(90, 5, 5, 0)
    assert cohen_kappa(table) == pytest.approx(-0.005 / 0.095)
    assert gwet_ac1(table) == pytest.approx(0.805 / 0.905)


def test_agreement_over_nothing_or_one_label_divides_by_nothing() -> None:
    assert measure_agreement([]).kappa is None
    only_one = measure_agreement([("y", "y")] * 4)
    assert (only_one.raw, only_one.kappa, only_one.ac1) == (1.0, None, 1.0)


def test_a_win_rate_comes_with_a_sign_test_that_leaves_ties_out() -> None:
    # 5 wins, no loss, 3 ties: two-sided sign test 2 * (1/2)^5 = 0.0625; win rate (5 + 1.5) / 8.
    outcomes = [(str(i), 1.0) for i in range(5)] + [(f"t{i}", 0.5) for i in range(3)]
    found = summarise_preference(outcomes, [10, 20], 0)
    assert (found.wins, found.losses, found.ties, found.p_value) == (5, 0, 3, 0.0625)
    assert found.win_rate is not None
    assert found.win_rate.value == pytest.approx(0.8125)
    assert found.mean_length_difference == 15


def test_a_judge_that_always_takes_the_first_reply_decides_nothing() -> None:
    persona = load_persona("taskmaster")
    assert prefer_by_judge(lambda _: "A", persona, "hi", COACH, DRY) == 0.5

    def likes_coach(text: str) -> str:
        return "A" if text.index(COACH) < text.index(DRY) else "B"

    assert prefer_by_judge(likes_coach, persona, "hi", COACH, DRY) == 1.0
    assert prefer_by_judge(likes_coach, persona, "hi", DRY, COACH) == 0.0


def test_the_style_classifier_hears_a_voice_on_another_topic() -> None:
    coach = ["Great job! Let's keep going!", "Nice work! Let's do this!", "Wow, great! Let's go on!"]
    plain = ["Status: open. Count: 3.", "Status: done. Count: 1.", "Status: late. Count: 7."]
    classifier = StyleClassifier([("coach", text) for text in coach] + [("plain", text) for text in plain])
    assert classifier.classify("Great tomatoes! Let's water them!") == "coach"
    assert classifier.classify("Status: ripe. Tomatoes: 12.") == "plain"
    with pytest.raises(InvalidInputError, match="told apart"):
        StyleClassifier([("coach", "hi")])


def test_the_area_under_the_curve_counts_pairs_and_half_of_ties() -> None:
    assert area_under_curve([3, 2], [1, 2]) == 3.5 / 4
    assert area_under_curve([], [1]) is None


def evaluate(tmp_path: Path, replies: list[dict[str, Any]], **more: Any) -> EvalPersonaResult:
    rows = [prompt("a", "taskmaster", COACH), prompt("b", "taskmaster", COACH), prompt("c", "analyst", DRY)]
    cases = write_rows(tmp_path / "prompts.jsonl", rows)
    replay = write_rows(tmp_path / "replies.jsonl", replies)
    return EVALS_PERSONA.call({"personas": SPECS, "cases": cases, "replay": replay, **more})


def test_a_forbidden_word_fails_a_reply_whatever_else_it_does(workspace: Path, tmp_path: Path) -> None:
    replies = [
        {"id": "a", "text": COACH},
        {"id": "b", "text": COACH + " Obviously."},
        {"id": "c", "text": DRY},
    ]
    result = evaluate(tmp_path, replies, min_adherence=0.9)
    coach = result.personas["taskmaster"]
    assert (coach.hard_rules.right, coach.hard_rules.total) == (1, 2)
    assert (coach.items["no_condescension"].right, coach.adherence.right) == (1, 1)
    assert result.confusion["taskmaster"] == {"taskmaster": 2}
    assert result.verdict == "not proven"  # two replies cannot show 0.9
    assert result.is_negative()
    folder = workspace / "runs" / result.run_id / "artifacts"
    assert "no_condescension (Obviously)" in (folder / "persona_report.md").read_text(encoding="utf-8")
    assert (folder / "voices.png").stat().st_size > 1000


def test_a_phrase_in_every_reply_is_parroting(workspace: Path, tmp_path: Path) -> None:
    phrase = COACH + " Let's get this done!"
    result = evaluate(
        tmp_path, [{"id": "a", "text": phrase}, {"id": "b", "text": phrase}, {"id": "c", "text": DRY}]
    )
    coach = result.personas["taskmaster"]
    assert (coach.vocabulary.right, coach.vocabulary_in_band, coach.distinct_ratio) == (2, False, 0.5)


def test_a_prompt_to_a_persona_without_a_spec_is_refused(workspace: Path, tmp_path: Path) -> None:
    cases = write_rows(tmp_path / "p.jsonl", [prompt("a", "pirate")])
    with pytest.raises(InvalidInputError, match="no spec of persona 'pirate'"):
        EVALS_PERSONA.call({"personas": SPECS, "cases": cases, "replay": cases})


def test_a_persona_is_asked_with_the_tools_its_row_declares(workspace: Path, tmp_path: Path) -> None:
    water: dict[str, Any] = {"name": "water", "description": "Water it.", "parameters": {"type": "object"}}
    rows = [prompt("a", "taskmaster"), prompt("b", "taskmaster") | {"tool_set": "task_api"}]
    cases = write_rows(tmp_path / "p.jsonl", [*rows, prompt("c", "taskmaster") | {"tools": [water]}])
    asked: list[list[str]] = []

    def answer(received: ReceivedRequest) -> tuple[int, Any]:
        if received.method == "GET":
            return 200, {"data": [{"id": "m"}]}
        tools: list[dict[str, Any]] = received.body.get("tools") or []
        asked.append([tool["function"]["name"] for tool in tools])
        return 200, completion(COACH)

    with ScriptedServer(respond=answer) as server:
        request = {"personas": SPECS, "cases": cases, "base_url": server.base_url, "concurrency": 1}
        assert EVALS_PERSONA.call(request).personas["taskmaster"].adherence.right == 3
    assert asked == [[], [tool["function"]["name"] for tool in load_tools()], ["water"]]


def test_a_prompt_with_an_unknown_tool_set_is_refused(workspace: Path, tmp_path: Path) -> None:
    cases = write_rows(tmp_path / "p.jsonl", [prompt("a", "taskmaster") | {"tool_set": "garden"}])
    with pytest.raises(InvalidInputError, match="unknown tool_set 'garden'"):
        EVALS_PERSONA.call({"personas": SPECS, "cases": cases, "replay": cases})


def test_after_a_switch_the_other_voice_stands_in_the_history_and_not_in_the_system_prompt() -> None:
    cases = [PersonaCase.model_validate(prompt("a", "one")), PersonaCase.model_validate(prompt("b", "two"))]
    switched = make_switches(
        [Reply(cases[0], "ONE", ""), Reply(cases[1], "TWO", "")], {"one": "P1", "two": "P2"}
    )
    assert [m["content"] for m in switched[0].messages] == ["P1", "remind me (b)", "TWO", "remind me (a)"]
    assert make_switches([Reply(cases[0], "ONE", "")], {"one": "P1"}) == []


def test_people_judge_blind_and_their_sheets_are_merged(workspace: Path, tmp_path: Path) -> None:
    before = evaluate(
        tmp_path, [{"id": n, "text": text} for n, text in zip("abc", [RUDE, RUDE, "=1+1"], strict=True)]
    )
    after = evaluate(
        tmp_path,
        [{"id": n, "text": t} for n, t in zip("abc", [COACH, COACH, DRY], strict=True)],
        against=before.run_id,
    )
    assert after.preference is not None
    assert (after.preference.wins, after.preference.losses) == (3, 0)
    out = tmp_path / "people"
    request = {"before": before.run_id, "after": after.run_id, "cases": str(tmp_path / "prompts.jsonl")}
    made = EVALS_SHEET.call({**request, "personas": SPECS, "out": str(out)})
    assert made.num_rows == 3
    text = (out / "sheet.csv").read_text(encoding="utf-8")
    assert "before" not in text and "after" not in text  # noqa: PT018 - one claim: the sheet is blind
    assert "'=1+1" in text
    key = read_json(out / "key.json")
    with (out / "sheet.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for rater, doubts in (("A", "none"), ("B", "a")):
        for row in rows:
            good = next(side for side in "12" if key[row["row"]][side] == "after")
            row |= {
                "in_character_1": "yes",
                "in_character_2": "no",
                "rule_broken_1": "no",
                "rule_broken_2": "No",
            }
            row["more_like_persona"] = "tie" if key[row["row"]]["id"] == doubts else good
        with (out / f"{rater}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    paths = {"first": str(out / "A.csv"), "second": str(out / "B.csv"), "key": str(out / "key.json")}
    merged = EVALS_AGREE.call({**paths, "out": str(out)})
    assert (merged.num_rows, merged.num_to_adjudicate) == (3, 1)
    assert (merged.preference.wins, merged.preference.losses, merged.preference.ties) == (2, 0, 1)
    assert merged.agreement["more_like_persona"].raw == pytest.approx(2 / 3, abs=1e-4)
    assert merged.agreement["rule_broken_2"].ac1 == 1.0


def test_a_model_judge_counts_only_when_it_agrees_with_people(workspace: Path, tmp_path: Path) -> None:
    before = evaluate(tmp_path, [{"id": n, "text": DRY} for n in "abc"])
    labels = write_rows(tmp_path / "human.jsonl", [{"id": n, "label": "first"} for n in "ab"])
    coach = [{"id": n, "text": COACH} for n in "abc"]
    with ScriptedServer((200, completion("A"))) as server:  # always the first shown: a tie after the swap
        judge = {"judge_url": server.base_url, "judge_model": "m", "judge_labels": labels}
        result = evaluate(tmp_path, coach, against=before.run_id, **judge)
        assert len(server.requests) == 6
    assert result.judge is not None
    assert (result.judge.preference.ties, result.judge.usable) == (3, False)
    assert result.judge.calibration.raw == 0.0
