import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import ToolCall
from pipeline.evals.turns import Turn, read_cases


def test_every_assistant_turn_is_cut_with_its_kind(turns: dict[tuple[str, int], Turn]) -> None:
    kinds = {key: turn.kind for key, turn in turns.items() if key[0] in {"ask-id", "by-title", "talk"}}
    assert kinds == {
        ("by-title", 0): "call",
        ("by-title", 1): "call",
        ("by-title", 2): "reply",
        ("ask-id", 0): "ask",
        ("ask-id", 1): "call",
        ("ask-id", 2): "reply",
        ("talk", 0): "talk",
    }


def test_a_turn_sees_what_came_before_it_and_nothing_else(turns: dict[tuple[str, int], Turn]) -> None:
    turn = turns["ask-id", 1]
    assert [message.role for message in turn.history] == ["system", "user", "assistant", "user"]
    assert turn.user_text == "number 2"
    assert turn.gold.tool_calls[0].arguments == {"task_id": 2}


def test_calls_run_on_the_state_that_the_history_left(turns: dict[tuple[str, int], Turn]) -> None:
    # In the reply turn of "ask-id" task 2 is gone already.
    done = turns["ask-id", 2].execute([ToolCall(name="complete_task", arguments={"task_id": 2})])
    assert done.results[0]["error"] == "not_found"
    assert [task["id"] for task in done.tasks] == [1, 4]
    assert done.written_ids == set()


def test_a_digest_changes_with_the_right_answer_only(turns: dict[tuple[str, int], Turn]) -> None:
    assert turns["create", 0].digest == turns["create", 0].digest
    assert len({turn.digest for turn in turns.values()}) == len(turns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": []}, "at least 2 items"),
        ({"messages": [{"role": "robot", "content": "x"}] * 2}, "role: Input should be"),
        ({"messages": "x"}, "is not a case"),
        ({"today": "tomorrow"}, "Invalid isoformat"),
        ({"tool_set": "calendar"}, "unknown tool set 'calendar'"),
    ],
)
def test_a_broken_row_is_refused_with_its_line(
    cases_path: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    good = cases_path.read_text(encoding="utf-8").splitlines()[0]
    path = tmp_path / "cases.jsonl"
    broken = json.dumps({**json.loads(good), "id": "b", **change})
    path.write_text(f"{good}\n\n{broken}\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_cases(path)
    assert "cases.jsonl:3" in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match="holds no case"):
        read_cases(path)


def test_a_missing_file_half_a_line_and_a_repeated_id_are_refused(cases_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read cases"):
        read_cases(tmp_path / "nothing.jsonl")
    good = cases_path.read_text(encoding="utf-8").splitlines()[0]
    path = tmp_path / "cases.jsonl"
    path.write_text(good + "\n" + good[:80], encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"cases.jsonl:2 is not a case"):
        read_cases(path)
    path.write_text(good + "\n" + good, encoding="utf-8")
    with pytest.raises(InvalidInputError, match="occurs twice"):
        read_cases(path)
