"""`synth check` judges rows of a known persona by the persona's items too."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.personas.spec import PERSONAS
from pipeline.synth.check import FileChecker

SHIPPED = Path("datasets/personas")


def first_row(name: str) -> dict[str, Any]:
    with (SHIPPED / f"{name}_test.jsonl").open(encoding="utf-8") as lines:
        return json.loads(next(lines))


def with_reply(row: dict[str, Any], text: str) -> dict[str, Any]:
    changed = copy.deepcopy(row)
    changed["messages"][-1]["content"] = text
    return changed


def kinds(row: dict[str, Any]) -> set[str]:
    return {fault.kind for fault in FileChecker().check_line(1, json.dumps(row))}


@pytest.mark.parametrize("name", PERSONAS)
def test_a_plain_reply_under_a_persona_s_prompt_is_a_fault_and_the_shipped_one_is_not(name: str) -> None:
    row = first_row(name)
    assert kinds(row) == set()
    found = kinds(with_reply(row, "Okay."))
    assert {"persona_opening", "persona_closing"} <= found
    assert all(kind.startswith("persona_") for kind in found)


def test_a_forbidden_word_is_named_with_its_line_message_and_rule() -> None:
    row = first_row("analyst")
    reply = row["messages"][-1]["content"]
    position = len(row["messages"]) - 1
    faults = FileChecker().check_line(7, json.dumps(with_reply(row, f"{reply[:-1]}!")))
    assert [(fault.line, fault.kind) for fault in faults] == [(7, "persona_no_exclamation")]
    assert faults[0].problem.startswith(f"messages[{position}]: TaskAnalyst: ")


def test_the_same_reply_under_another_prompt_is_not_judged_by_the_items() -> None:
    row = with_reply(first_row("analyst"), "Okay.")
    day = row["today"]
    row["messages"][0]["content"] = f"You manage tasks. Today is {day}."
    assert kinds(row) == set()
