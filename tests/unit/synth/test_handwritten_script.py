"""Scripts: executed as written, refused with the line when they are wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import sha256_file
from pipeline.synth.handwritten import SYNTH_PLAY

HEAD = "STATE home 2026-05-04\n41 | descale the kettle | low | 2026-05-16\n"
SHIPPED = Path("datasets/tool_calls")


def play(tmp_path: Path, text: str) -> list[dict[str, Any]]:
    script, out = tmp_path / "script.txt", tmp_path / "rows.jsonl"
    script.write_text(HEAD + text, encoding="utf-8")
    SYNTH_PLAY.call({"script": str(script), "out": str(out)})
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_calls_are_executed_and_slots_take_the_result(tmp_path: Path) -> None:
    text = 'ROW home terse\nU: bins. Friday.\nC: create title="bins" due_date="Friday"\nA: Task {id} is due {due}.\n'
    [row] = play(tmp_path, text)
    messages = row["messages"]
    assert json.loads(messages[3]["content"])["task"] == {
        "id": 42, "title": "bins", "due_date": "2026-05-08", "priority": "medium", "status": "open",
    }  # fmt: skip
    assert messages[4]["content"] == "Task 42 is due 2026-05-08."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ROW away terse\nU: hi\nA: Hello!\n", "no state 'away'"),
        ("ROW home terse\nX: hi\n", "a line starts with"),
        ("ROW home terse\nU: hi\nC!flood: list\nA: Hello!\n", "no planned failure"),
        ("ROW home terse funny\nU: hi\nA: Hello!\n", "neither ask nor no_call"),
        ("ROW home terse\nU: 41 done\nC: complete task_id=40\nA: Done.\n", "ungrounded_task_id"),
        ('ROW home terse\nU: 41 done\nC: complete task_id=41\nA: Task 99 is completed.\n', "wrong_id_in_reply"),
        ("ROW home terse\nU: 41 done\nC: complete task_id=x\nA: Done.\n", "task_id=x"),
    ],
)  # fmt: skip
def test_a_wrong_script_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        play(tmp_path, text)


def test_the_shipped_rows_are_what_the_script_gives(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    result = SYNTH_PLAY.call({"script": str((SHIPPED / "handwritten.txt").resolve()), "out": str(out)})
    assert result.num_rows >= 150
    assert result.sha256 == sha256_file(SHIPPED / "handwritten.jsonl")
