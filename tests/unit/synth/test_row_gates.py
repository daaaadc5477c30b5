"""Each fault that can be in a row is reported by line and kind, and no clean row is."""

import copy
import json
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.core.files import read_jsonl, write_jsonl
from pipeline.core.messages import Example, Message, ToolCall
from pipeline.synth.check import SYNTH_CHECK, FileChecker, SynthCheckResult
from pipeline.synth.formulations import SLOT, load_bank
from pipeline.synth.generate import SynthGenerateRequest, generate_conversations
from pipeline.synth.grounding import Said, find_ungrounded
from pipeline.task_api.store import TaskStore
from pipeline.task_api.tools import system_prompt

TODAY = "2026-03-11"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's mix, 1,000 rows of training."""
    folder = tmp_path_factory.mktemp("made")
    generate_conversations(
        SynthGenerateRequest(out=str(folder), num_rows=1000, validation_rows=1, test_rows=1, seed=11)
    )
    return folder


def make_row(
    user: str, calls: list[tuple[str, dict[str, Any]]], reply: str, state: list[Row] | None = None
) -> Row:
    """A one-turn row whose results are the Task API's own."""
    tasks = state if state is not None else [
        {"id": 3, "title": "pay the rent", "due_date": "2026-03-20", "priority": "low", "status": "open"},
        {"id": 4, "title": "call Ann", "priority": "medium", "status": "open"},
    ]  # fmt: skip
    day = date.fromisoformat(TODAY)
    made = tuple(ToolCall(name=n, arguments=a, id=f"call_{i}") for i, (n, a) in enumerate(calls, start=1))
    with TaskStore.from_state(tasks, day) as store:
        answers = [
            Message(role="tool", content=json.dumps(store.call(c.name, c.arguments)), tool_call_id=c.id)
            for c in made
        ]
    messages = [Message(role="system", content=system_prompt(day)), Message(role="user", content=user)]
    if made:
        messages += [Message(role="assistant", tool_calls=made), *answers]
    messages.append(Message(role="assistant", content=reply))
    return Example(
        id="r1", messages=tuple(messages), group="g", tags={}, today=TODAY, initial_state=tuple(tasks)
    ).to_row()


def update_row(reply: str = 'Updated task 3: "pay the rent", due 2026-03-13, low priority.') -> Row:
    return make_row("Move task 3 to Friday.", [("update_task", {"task_id": 3, "due_date": "Friday"})], reply)


def kinds(*rows: Row) -> list[tuple[int, str]]:
    checker = FileChecker()
    return [
        (fault.line, fault.kind)
        for number, row in enumerate(rows, start=1)
        for fault in checker.check_line(number, json.dumps(row))
    ]


def test_a_right_row_has_no_fault() -> None:
    assert kinds(update_row()) == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ('Updated task 9: "pay the rent", due 2026-03-13, low priority.', "wrong_id_in_reply"),
        ('Updated task 4: "pay the rent", due 2026-03-13, low priority.', "wrong_id_in_reply"),
        ('Updated task 3: "pay the rent bill", due 2026-03-13, low priority.', "wrong_title_in_reply"),
        ('Updated task 3: "pay the rent", due 2026-03-14, low priority.', "wrong_date_in_reply"),
        ("Task 3 is due on March 14 now.", "wrong_date_in_reply"),
        ('Updated task 3: "pay the rent", due 2026-03-13, high priority.', "wrong_priority_in_reply"),
        ("Готово, задача перенесена на пятницу.", "language"),
        ("Done! \U0001f389\U0001f389\U0001f389 Task 3 is due 2026-03-13.", "emoji"),
        ("Done. " * 400, "length"),
        ("Task 3 is due 2026-03-13. Write to bob.miller@gmail.com for more.", "pii"),
    ],
)
def test_a_fault_in_the_reply_has_its_kind(reply: str, kind: str) -> None:
    assert kinds(update_row(), {**update_row(reply), "id": "r2"}) == [(2, kind)]


@pytest.mark.parametrize(
    "reply",
    [
        "Task 3 is now due on Friday, March 13.",
        'Moved "pay the rent" to 2026-03-13. Anything else?',
        "Done! \U0001f389 Two more to go and you're finished.",
    ],
)
def test_other_words_for_the_same_facts_are_no_fault(reply: str) -> None:
    assert kinds(update_row(reply)) == []


@pytest.mark.parametrize(
    ("user", "name", "arguments", "kind"),
    [
        ("Add milk run", "create_task", {"title": "milk run", "priority": "high"}, "ungrounded_priority"),
        ("Add milk run", "create_task", {"title": "bread run"}, "ungrounded_title"),
        ("Add milk run", "create_task", {"title": "milk run", "due_date": "Friday"}, "ungrounded_date"),
        (
            "Add milk run by Friday",
            "create_task",
            {"title": "milk run", "due_date": "2026-03-20"},
            "stale_date",
        ),
        (
            "Add milk run",
            "create_task",
            {"title": "milk run", "description": "oat"},
            "ungrounded_description",
        ),
        ("Finish the rent one", "complete_task", {"task_id": 3}, "ungrounded_task_id"),
        ("Show my tasks", "list_tasks", {"status": "completed"}, "ungrounded_status"),
        ("Show my tasks", "list_tasks", {"search": "rent"}, "ungrounded_search"),
    ],
)
def test_an_argument_that_nobody_said_has_its_kind(
    user: str, name: str, arguments: dict[str, Any], kind: str
) -> None:
    assert kind in [found for _, found in kinds(make_row(user, [(name, arguments)], "Done."))]


@pytest.mark.parametrize(
    ("user", "name", "arguments"),
    [
        ("urgent: add milk run", "create_task", {"title": "milk run", "priority": "high"}),
        ("add milk run, no rush", "create_task", {"title": "milk run", "priority": "low"}),
        ("add mlik run by friday", "create_task", {"title": "milk run", "due_date": "Friday"}),
        ("add milk run by Friday", "create_task", {"title": "milk run", "due_date": "2026-03-13"}),
        ("finish number three", "complete_task", {"task_id": 3}),
        ("what's left?", "list_tasks", {"status": "open"}),
        ("what did I get done?", "list_tasks", {"status": "completed"}),
    ],
)
def test_what_was_implied_or_mistyped_is_grounded(user: str, name: str, arguments: dict[str, Any]) -> None:
    assert kinds(make_row(user, [(name, arguments)], "Done.")) == []


@pytest.mark.parametrize(
    ("user", "name", "arguments"),
    [
        # right rows that generated files held and that were once reported
        ("what's unmiportant on my list", "list_tasks", {"priority": "low"}),
        ("hi, what's the most presing stuff i've got", "list_tasks", {"priority": "high"}),
        ("which tsaks are the last important?", "list_tasks", {"priority": "low"}),
        ("hey push 3 and take the priority right  down", "update_task", {"task_id": 3, "priority": "low"}),
        ("there's no ugrency about 3", "update_task", {"task_id": 3, "priority": "low"}),
        ("show what remmains.", "list_tasks", {"status": "open"}),
        ("Toodos before tomorrow", "list_tasks", {"status": "open", "due_before": "tomorrow"}),
        ("the ones I hvaen't ticked off", "list_tasks", {"status": "open"}),
    ],
)
def test_a_slip_in_an_expression_does_not_hide_what_it_implies(
    user: str, name: str, arguments: dict[str, Any]
) -> None:
    assert kinds(make_row(user, [(name, arguments)], "Done.")) == []


@pytest.mark.parametrize(
    ("user", "priority"),
    [
        ("which tsaks are important?", "low"),
        ("what's ugrent on my list", "low"),
        ("what's unmiportant on my list", "medium"),
        ("nromal ones please", "high"),
        ("what is due in 30 mins", "low"),
        ("what did I last move", "low"),
        ("list what rises early", "high"),
    ],
)
def test_a_slip_of_one_priority_and_a_word_like_a_slip_imply_no_other_priority(
    user: str, priority: str
) -> None:
    row = make_row(user, [("list_tasks", {"priority": priority})], "Done.")
    assert (1, "ungrounded_priority") in kinds(row)


def test_what_the_lines_of_the_phrase_banks_imply_is_seen() -> None:
    said: list[tuple[str, str, str]] = [
        (name, value, SLOT.sub("it", line.text))
        for side in ("train", "test")
        for lines in load_bank(side, more=True).formulations.values()
        for line in lines
        for name, value in line.constants.items()
        if name in {"priority", "status"}
    ]
    assert len(said) > 400
    day = date.fromisoformat(TODAY)
    unseen = [case for case in said if find_ungrounded({case[0]: case[1]}, Said(case[2], "", day))]
    # added to the list, this line would change the draws of the shipped sets, which are rebuilt byte by byte
    assert [case for case in unseen if case[2] != "the checked ones"] == []


def test_a_priority_that_nobody_said_is_found_in_97_of_100_rows(made: Path) -> None:
    rng = random.Random(3)
    num_planted = num_found = 0
    for row in map(Example.from_row, read_jsonl(made / "train.jsonl")):
        call = next((call for message in row.messages for call in message.tool_calls), None)
        first = next(message.content or "" for message in row.messages if message.role == "user")
        calls = [call for message in row.messages for call in message.tool_calls]
        if call is None or call.name not in {"create_task", "list_tasks"}:
            continue
        if any("priority" in call.arguments for call in calls):
            continue
        planted = {**call.arguments, "priority": rng.choice(["low", "medium", "high"])}
        found = find_ungrounded(planted, Said(first, "", date.fromisoformat(row.today)))
        num_planted += 1
        num_found += any(kind == "ungrounded_priority" for kind, _ in found)
    assert num_planted > 200
    assert num_found >= 0.97 * num_planted


def test_a_claim_after_a_failed_call_is_a_fault_and_the_truth_is_not() -> None:
    call = [("complete_task", {"task_id": 8})]
    assert kinds(make_row("8 is done", call, "Task 8 is completed.")) == [(1, "claims_undone_action")]
    assert kinds(make_row("8 is done", call, "There is no task 8.")) == []


def broken(change: Callable[[Row], object]) -> Row:
    row = copy.deepcopy(update_row())
    change(row)
    return row


def set_result(row: Row) -> None:
    row["messages"][3]["content"] = row["messages"][3]["content"].replace("2026-03-13", "2026-03-16")


BREAKS: list[tuple[Callable[[Row], object], str]] = [
    (set_result, "result_mismatch"),
    (lambda row: row.update(today="2026-03-12"), "stale_date"),
    (lambda row: row["messages"].pop(3), "turn_order"),
    (lambda row: row["messages"].pop(), "turn_order"),
    (lambda row: row["messages"].insert(2, {"role": "user", "content": "hello?"}), "turn_order"),
    (lambda row: row["messages"][2]["tool_calls"][0]["function"].update(name="move_task"), "schema"),
    (lambda row: row["messages"][2]["tool_calls"][0]["function"].update(arguments='{"task_id": "3"}'), "schema"),
    (lambda row: row.update(today="today"), "not_a_conversation"),
    (lambda row: row.pop("messages"), "not_a_conversation"),
    (lambda row: row["messages"][1].update(content="Move task 3 to Friday, card 4111 1111 1111 1111"), "pii"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind"), BREAKS)
def test_a_broken_row_has_its_kind(change: Callable[[Row], object], kind: str) -> None:
    assert kind in [found for _, found in kinds(broken(change))]


def test_a_duplicate_with_another_label_and_a_repeated_id_are_faults_of_the_later_line() -> None:
    other = make_row("Move task 3 to Friday.", [("complete_task", {"task_id": 3})], "Task 3 is completed.")
    assert kinds(update_row(), {**other, "id": "r2"}) == [(2, "contradiction")]
    assert kinds(update_row(), update_row()) == [(2, "repeated_id")]


@given(st.text(max_size=40))
def test_any_line_gets_an_answer_and_no_exception(line: str) -> None:
    assert all(fault.line == 1 for fault in FileChecker().check_line(1, line))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "messages", "role", "content", "tool_calls", "today", "initial_state", "x"]), inner, max_size=5), max_leaves=12))  # fmt: skip
def test_any_json_gets_an_answer_and_no_exception(value: Any) -> None:
    assert FileChecker().check_line(1, json.dumps(value))


def test_no_clean_row_of_the_quickstart_is_reported(made: Path) -> None:
    result = SYNTH_CHECK.call({"file": str(made / "train.jsonl")})
    assert result.num_rows == 1000
    assert result.faults == []


def test_the_command_answers_with_status_1_and_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [update_row(), {**update_row("Updated task 9."), "id": "r2"}])
    assert main(["synth", "check", str(path), "--json"]) == 1
    result = SynthCheckResult.model_validate_json(capsys.readouterr().out)
    assert [(fault.line, fault.id, fault.kind) for fault in result.faults] == [(2, "r2", "wrong_id_in_reply")]
    assert main(["synth", "check", str(tmp_path / "none.jsonl")]) == 2
