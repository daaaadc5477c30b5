"""The host agent's path: brief, submit, status, as JSON on the command line and over a damaged or repeated way."""

import contextlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_jsonl
from pipeline.synth.acceptance import Corpus
from pipeline.synth.brief import BriefItem
from pipeline.synth.check import SYNTH_CHECK
from pipeline.synth.full_mix import full_sides
from pipeline.synth.handout import SYNTH_BRIEF, SYNTH_STATUS, SYNTH_SUBMIT, SynthSubmitResult
from pipeline.synth.program_writer import ProgramWriter
from pipeline.synth.replay import SYNTH_REPLAY
from pipeline.synth.scenario import Need, Scenario
from pipeline.synth.scene import RejectedError, Supply

pytestmark = pytest.mark.usefixtures("workspace")
PLAN = {"work": "w", "target_rows": 24, "seed": 0}


@pytest.fixture
def writer() -> ProgramWriter:
    """Stands for an agent that words every brief well."""
    return ProgramWriter(Supply(full_sides(0)["train"].bank, random.Random(7), ()), 1)


def brief(num_rows: int = 10) -> list[BriefItem]:
    return SYNTH_BRIEF.call({**PLAN, "num_rows": num_rows}).items


def write_all(workspace: Path, items: list[BriefItem], writer: ProgramWriter) -> list[dict[str, Any]]:
    """Return good words for the conversations that the bank has words for."""
    rows: list[dict[str, Any]] = []
    known = scenarios(workspace)
    for item in items:
        with contextlib.suppress(RejectedError):
            rows.append({"id": item.id, "texts": writer.write(known[item.id])[0]})
    return rows


def submit(rows: list[dict[str, Any]]) -> SynthSubmitResult:
    return SYNTH_SUBMIT.call({"work": "w", "rows": rows})


def scenarios(workspace: Path) -> dict[str, Scenario]:
    rows = read_jsonl(workspace / "w" / "scenarios.jsonl")
    return {scenario.id: scenario for scenario in map(Scenario.model_validate, rows)}


def test_a_brief_decides_everything_but_the_words_and_shows_no_example() -> None:
    result = SYNTH_BRIEF.call({**PLAN, "num_rows": 24})
    assert len(result.items) == 24 == result.num_open
    assert all(item.turns and item.today for item in result.items)
    assert any("calls " in turn.then for item in result.items for turn in item.turns)
    text = result.model_dump_json()
    assert "example" not in text.lower()
    bank = full_sides(0)["train"].bank
    lines = [line.text for lines in bank.formulations.values() for line in lines if len(line.text) > 25]
    assert not [line for line in lines if line in text]


def test_well_worded_rows_become_a_data_file_that_replays_and_passes_the_gates(
    workspace: Path, writer: ProgramWriter
) -> None:
    answers = submit(write_all(workspace, brief(24), writer)).answers
    accepted = [answer for answer in answers if answer.status == "accepted"]
    # the bank's own words may repeat a pattern: that is a repair of its own kind
    assert {r.kind for answer in answers for r in answer.repairs} <= {"not_novel", "unused_fact"}
    assert len(accepted) >= 18
    file = str(workspace / "w" / "accepted.jsonl")
    assert not SYNTH_REPLAY.call({"file": file}).is_negative()
    assert not SYNTH_CHECK.call({"file": file}).is_negative()


@pytest.fixture
def item() -> tuple[str, str]:
    """Return id and title of a conversation whose one turn asks for a new task and says nothing else."""
    for _ in range(8):
        for item in SYNTH_BRIEF.call({"work": "w", "target_rows": 150, "num_rows": 50, "seed": 0}).items:
            turn = item.turns[0]
            says_only_the_title = [*turn.details.values()] == turn.word_for_word and len(turn.details) == 1
            if len(item.turns) == 1 and turn.asks == "asks for a new task" and says_only_the_title:
                return item.id, turn.word_for_word[0]
    raise AssertionError("no such conversation")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Please jot something down.", "missing_mention"),
        ("Jot down {title} with high priority", "unused_fact"),
        ("Jot down {title}, due on Friday", "unused_fact"),
        ("Jot down {title}, mail bob.real@gmail.com", "pii"),
        ("Запиши пожалуйста следующую задачу для меня: {title}", "language"),
        ("Jot down {title} " + "and so on " * 220, "length"),
    ],
)
def test_each_gate_says_what_to_repair(item: tuple[str, str], text: str, kind: str) -> None:
    answer = submit([{"id": item[0], "texts": [text.format(title=item[1])]}]).answers[0]
    assert answer.status == "repair"
    assert kind in [repair.kind for repair in answer.repairs]
    assert all(repair.problem for repair in answer.repairs)


def test_the_wrong_number_of_turns_and_an_unknown_id_are_repairs(item: tuple[str, str]) -> None:
    result = submit([{"id": item[0], "texts": ["a", "b", "c"]}, {"id": "nobody", "texts": ["a"]}])
    assert result.answers[0].repairs[0].kind == "turns"
    assert result.answers[1].status == "unknown"
    assert result.is_negative()


def test_submitting_twice_changes_nothing_and_other_words_come_too_late(
    workspace: Path, item: tuple[str, str]
) -> None:
    name, title = item
    row = {"id": name, "texts": [f"kindly take {title} onto the pile"]}
    assert submit([row]).answers[0].status == "accepted"
    content = (workspace / "w" / "accepted.jsonl").read_bytes()
    again = submit([row])
    assert again.answers[0].status == "known"
    assert again.num_accepted == 1
    assert submit([{"id": name, "texts": [f"{title}, on it goes"]}]).answers[0].status == "taken"
    assert (workspace / "w" / "accepted.jsonl").read_bytes() == content


def test_the_words_of_another_row_are_not_new() -> None:
    corpus = Corpus()
    need = Need(bank="create", mentions={"title": "buy milk"})
    corpus.add([need], ["could you put buy milk on my list of things"], "r1")
    other = Need(bank="create", mentions={"title": "call Ann"})
    assert corpus.find_twin(other, "could you put call Ann on my list of things!") == "r1"
    assert corpus.find_twin(other, "call Ann has to go down somewhere") is None


def test_phrases_that_many_rows_share_are_to_be_avoided() -> None:
    corpus = Corpus()
    need = Need(bank="create", mentions={"title": "buy milk"})
    for i, end in enumerate(("today", "at once", "now then", "yes", "here we go")):
        corpus.add([need], [f"be so kind as to note buy milk {end}"], f"r{i}")
    assert "be so kind" in corpus.overused()
    assert not any("buy milk" in phrase for phrase in corpus.overused())


def test_status_shows_the_matrix(workspace: Path, writer: ProgramWriter) -> None:
    accepted = submit(write_all(workspace, brief(5), writer)).num_accepted
    status = SYNTH_STATUS.call({"work": "w"})
    assert (status.num_planned, status.num_handed_out, status.num_accepted) == (24, 5, accepted)
    assert sum(done for done, _ in status.matrix["register"].values()) == accepted
    assert sum(planned for _, planned in status.matrix["intent"].values()) == 24
    assert 0 < status.num_pairs_covered < status.num_pairs


def test_submissions_at_the_same_time_all_arrive(workspace: Path, writer: ProgramWriter) -> None:
    rows = write_all(workspace, brief(12), writer)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(submit, [[row] for row in rows]))
    accepted = [answer.id for result in results for answer in result.answers if answer.status == "accepted"]
    assert sorted(row["id"] for row in read_jsonl(workspace / "w" / "accepted.jsonl")) == sorted(accepted)


def test_a_folder_without_a_plan_or_with_a_damaged_one_is_bad_input(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no plan"):
        SYNTH_STATUS.call({"work": "none"})
    brief(1)
    (workspace / "w" / "scenarios.jsonl").write_text('{"id": 3}\n', encoding="utf-8")
    with pytest.raises(InvalidInputError, match="damaged"):
        SYNTH_STATUS.call({"work": "w"})


def test_the_command_line_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", "brief", "w", "--num-rows", "3", "--target-rows", "20", "--json"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    rows = json.dumps([{"id": items[0]["id"], "texts": ["x"] * (len(items[0]["turns"]) + 1)}])
    assert main(["synth", "submit", "w", "--rows", rows, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["answers"][0]["status"] == "repair"
    assert main(["synth", "status", "w", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_planned"] == 20
