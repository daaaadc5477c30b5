import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.core.files import read_json, read_jsonl
from pipeline.core.messages import Example
from pipeline.synth.cells import COMPOSITIONAL, MIX, SHAPES, choose_cells, possible_cells
from pipeline.synth.check import SYNTH_CHECK
from pipeline.synth.full_mix import full_sides
from pipeline.synth.generate import (
    SPLITS,
    SYNTH_GENERATE,
    SynthGenerateRequest,
    SynthGenerateResult,
    generate_conversations,
)
from pipeline.synth.replay import SYNTH_REPLAY

NUM_ROWS = {"train": 300, "validation": 30, "test": 100}


def make(folder: Path) -> SynthGenerateResult:
    return generate_conversations(
        SynthGenerateRequest(
            out=str(folder),
            num_rows=300,
            validation_rows=30,
            test_rows=100,
            seed=1,
            mix="full",
            made_ratio=1.1,
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full")
    make(path)
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, list[Example]]:
    return {side: [Example.from_row(row) for row in read_jsonl(folder / f"{side}.jsonl")] for side in SPLITS}


def results(row: Example) -> list[str]:
    return [message.content or "" for message in row.messages if message.role == "tool"]


def test_every_possible_pair_is_covered_and_no_cell_is_impossible() -> None:
    cells = possible_cells(lambda cell: True, ("neutral",))
    chosen = choose_cells(cells, 2000, random.Random(0))
    possible = {pair for cell in cells for pair in cell.pairs()}
    assert {pair for cell in chosen.cells for pair in cell.pairs()} == possible
    assert chosen.missing == []
    for cell in cells:
        assert (cell.date_form == "none") == ("date" not in cell.slots and cell.slots != "any")
        assert not (cell.intent in {"complete", "delete"} and cell.slots != "none")
        assert not (cell.intent == "create" and cell.reference in {"id", "pronoun", "exact_title"})


def test_the_shares_of_the_mix_are_those_of_the_plan() -> None:
    chosen = choose_cells(possible_cells(lambda cell: True), 1000, random.Random(0))
    counts = Counter(cell.category for cell in chosen.cells)
    assert counts == {
        "single": 400, "multi_turn": 200, "parallel": 100, "errors": 120, "ask": 80, "no_call": 100,
    }  # fmt: skip
    assert sum(MIX.values()) == pytest.approx(1)


def test_rows_are_as_many_as_asked_and_have_all_shapes_and_outcomes(rows: dict[str, list[Example]]) -> None:
    assert {side: len(found) for side, found in rows.items()} == NUM_ROWS
    assert {row.tags["shape"] for row in rows["train"]} == set(SHAPES)
    assert {row.tags["outcome"] for row in rows["train"]} == {
        "ok", "not_found", "already_completed", "invalid_priority", "empty_title", "past_due_date", "invalid_due_date",
        "conflict", "timeout", "none_found", "several_found", "asked", "no_call",
    }  # fmt: skip


def test_the_outcome_of_a_cell_is_what_the_task_api_answered(rows: dict[str, list[Example]]) -> None:
    for row in (row for found in rows.values() for row in found):
        outcome, shown = row.tags["outcome"], " ".join(results(row))
        if outcome in {
            "not_found",
            "already_completed",
            "past_due_date",
            "invalid_due_date",
            "conflict",
            "timeout",
        }:
            assert f'"error": "{outcome}"' in shown, row.id
        elif outcome == "none_found":
            assert '"total": 0' in shown
        elif outcome in {"no_call", "asked", "invalid_priority", "empty_title"} and row.tags["turns"] == "1":
            assert shown == ""
        assert bool(row.faults) == (outcome in {"conflict", "timeout"})


def test_after_trouble_the_call_is_made_again_and_after_a_conflict_the_list_is_read_first(
    rows: dict[str, list[Example]],
) -> None:
    for row in rows["train"]:
        names = [call.name for message in row.messages for call in message.tool_calls]
        if row.tags["shape"] == "timeout":
            assert len(names) == 2
            assert names[0] == names[1]
        elif row.tags["shape"] == "conflict":
            assert names == [names[0], "list_tasks", names[0]]


def test_all_files_replay_and_pass_every_gate(folder: Path) -> None:
    for side in SPLITS:
        replay = SYNTH_REPLAY.call({"file": str(folder / f"{side}.jsonl")})
        check = SYNTH_CHECK.call({"file": str(folder / f"{side}.jsonl")})
        assert (replay.rows, replay.different_rows) == (NUM_ROWS[side], 0)
        assert (check.num_rows, check.faults) == (NUM_ROWS[side], [])


@pytest.mark.usefixtures("workspace")
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    def digests(name: str, seed: int) -> dict[str, str]:
        values = {"num_rows": 30, "validation_rows": 8, "test_rows": 12, "mix": "full", "seed": seed}
        return SYNTH_GENERATE.call({"out": str(tmp_path / name), **values}).sha256

    first = digests("first", 1)
    assert digests("again", 1) == first == read_json(tmp_path / "first" / "data_report.json")["sha256"]
    other = digests("other", 2)
    assert all(other[name] != digest for name, digest in first.items())


def test_another_process_makes_the_same_bytes_whatever_its_hash_seed(workspace: Path) -> None:
    made: list[bytes] = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "pipeline", "synth", "generate", "--mix", "full", "--out", hash_seed]
        sizes = ["--num-rows", "120", "--validation-rows", "10", "--test-rows", "40"]
        environment = {**os.environ, "LLMOPS_WORKSPACE": str(workspace), "PYTHONHASHSEED": hash_seed}
        subprocess.run([*command, *sizes], check=True, capture_output=True, env=environment)
        made.append(b"".join((workspace / hash_seed / f"{side}.jsonl").read_bytes() for side in SPLITS))
    assert made[0] == made[1]


def facts_of(found: list[Example]) -> dict[str, set[str]]:
    titles = {task["title"].casefold() for row in found for task in row.initial_state}
    calls = [call for row in found for message in row.messages for call in message.tool_calls]
    titles |= {call.arguments["title"].casefold() for call in calls if "title" in call.arguments}
    days = {task["due_date"] for row in found for task in row.initial_state if "due_date" in task}
    days |= {row.today for row in found}
    days |= {
        day for row in found for text in results(row) for day in re.findall(r'"due_date": "([\d-]+)"', text)
    }
    ids = {str(task["id"]) for row in found for task in row.initial_state}
    ids |= {str(call.arguments["task_id"]) for call in calls if "task_id" in call.arguments}
    return {"titles": titles, "days": days, "ids": ids, "groups": {row.group for row in found}}


def test_the_sides_share_no_formulation_title_day_or_task_number(rows: dict[str, list[Example]]) -> None:
    facts = {side: facts_of(found) for side, found in rows.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for kind in ("titles", "days", "ids", "groups"):
            assert facts[one][kind] & facts[other][kind] == set(), (one, other, kind)


def test_people_and_firms_of_one_side_are_not_in_titles_of_another() -> None:
    name = re.compile(r"(?<=\s)(?:Priya|Tom|Dana|Marcus|Mei|Anders|Yuki|Joyce|Bea|Zenith|Globex|Northwind)\b")
    found = {
        side: {n for lines in made.bank.values.values() for line in lines for n in name.findall(f" {line}")}
        for side, made in full_sides(1).items()
    }
    assert found["train"]
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]


def test_some_combinations_of_slots_are_in_test_only(rows: dict[str, list[Example]]) -> None:
    def combined(side: str) -> int:
        return sum((row.tags["intent"], row.tags["slots"]) in COMPOSITIONAL for row in rows[side])

    assert combined("train") == combined("validation") == 0
    assert combined("test") > 0
    assert {row.tags["slice"] for row in rows["test"]} == {"ordinary", "compositional"}


def test_no_template_makes_more_than_three_percent(rows: dict[str, list[Example]]) -> None:
    for side in ("train", "test"):
        assert max(Counter(row.group for row in rows[side]).values()) <= 0.03 * NUM_ROWS[side]


def test_the_clock_in_the_system_prompt_is_the_day_of_the_row(rows: dict[str, list[Example]]) -> None:
    for row in rows["test"]:
        assert f"Today is {row.today}." in (row.messages[0].content or "")
        assert date.fromisoformat(row.today)


def test_more_rows_are_made_than_kept_and_the_report_names_the_missing_pairs(folder: Path) -> None:
    report = read_json(folder / "data_report.json")
    assert report["made"] == {"train": 330, "validation": 33, "test": 110}
    matrix = report["matrix"]["train"]
    assert matrix["covered_pairs"] + len(matrix["missing_pairs"]) == matrix["possible_pairs"]
    assert "possible pairs" in (folder / "data_report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("workspace")
def test_the_command_line_makes_the_fuller_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "d")
    args = [
        "synth",
        "generate",
        "--writer",
        "program",
        "--mix",
        "full",
        "--num-rows",
        "40",
        "--seed",
        "5",
        "--out",
        out,
    ]
    assert main([*args, "--validation-rows", "5", "--test-rows", "10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_rows"] == 40
