from typing import Any

import pytest

from pipeline.core.messages import ToolCall
from pipeline.evals.predictions import Reply
from pipeline.evals.scorers import LAYERS, looks_like_call, score_turn
from pipeline.evals.turns import Turn

TurnsByKey = dict[tuple[str, int], Turn]
Calls = tuple[tuple[str, dict[str, Any]], ...]


def calling(*calls: tuple[str, dict[str, Any]], **fields: Any) -> Reply:
    made = tuple(ToolCall(name=name, arguments=arguments) for name, arguments in calls)
    return Reply(tool_calls=made, finish_reason="tool_calls").model_copy(update=fields)


def saying(text: str, **fields: Any) -> Reply:
    return Reply(content=text, finish_reason="stop").model_copy(update=fields)


ANN = {"title": "call Ann", "due_date": "Friday", "priority": "high"}
LIST_TEXT = '2 open tasks:\n- 2: "pay the rent" (due 2026-03-20, high)\n- 1: "water the plants" (low)'


def test_every_right_answer_passes(turns: TurnsByKey) -> None:
    for key, turn in turns.items():
        gold = Reply(content=turn.gold.content or "", tool_calls=turn.gold.tool_calls, finish_reason="stop")
        verdict = score_turn(turn, gold)
        assert verdict.errors == (), key
        assert all(verdict.checks.values()), key


@pytest.mark.parametrize(
    ("case", "reply"),
    [
        ("create", calling(("create_task", {**ANN, "title": "Call  ann", "due_date": "friday"}))),
        ("create", calling(("create_task", dict(reversed(ANN.items()))))),
        ("complete", calling(("complete_task", {"task_id": 2.0}))),
        ("ask-title", saying("Sure! What would you like to call it?")),
        ("ask-id", saying("Which one should I delete?")),
        ("ask-change", saying("What would you like to change?")),
        ("talk", saying("Any time.")),
    ],
)
def test_other_right_answers_pass_too(turns: TurnsByKey, case: str, reply: Reply) -> None:
    assert score_turn(turns[case, 0], reply).errors == ()


@pytest.mark.parametrize(
    ("case", "reply", "errors"),
    [
        # syntax
        ("create", saying("  "), ("no_output", "silent_when_call", "state_mismatch")),
        (
            "create",
            calling(("create_task", {"title": "call Ann"}), finish_reason="length"),
            ("truncated", "lost_constraint", "state_mismatch"),
        ),
        (
            "create",
            saying('<tool_call>{"name": "create_task", "argu', broken="not_json"),
            ("not_json", "missing_call", "state_mismatch"),
        ),
        (
            "create",
            saying('["call Ann"]', broken="arguments_not_object"),
            ("arguments_not_object", "missing_call", "state_mismatch"),
        ),
        (
            "create",
            saying('{"name": "create_task", "arguments": {"title": "call Ann"}}'),
            ("wrong_wrapper", "missing_call", "state_mismatch"),
        ),
        ("create", calling(("create_task", ANN), retried=True), ("retried",)),
        (
            "create",
            saying('<tool_response>{"task": {"id": 5}}</tool_response>'),
            ("leaked_markup", "silent_when_call", "state_mismatch"),
        ),
        # schema
        (
            "complete",
            calling(("finish_task", {"task_id": 2})),
            ("unknown_tool", "wrong_tool", "call_error", "state_mismatch"),
        ),
        (
            "complete",
            calling(("complete_task", {"task_id": 2, "note": "x"})),
            ("undeclared_argument", "ungrounded_value", "call_error", "state_mismatch"),
        ),
        (
            "complete",
            calling(("complete_task", {})),
            ("missing_required", "lost_constraint", "call_error", "state_mismatch"),
        ),
        (
            "complete",
            calling(("complete_task", {"task_id": "2"})),
            ("type_error", "wrong_value", "call_error", "state_mismatch"),
        ),
        (
            "complete",
            calling(("complete_task", {"task_id": True})),
            ("type_error", "ungrounded_value", "call_error", "state_mismatch"),
        ),
        (
            "create",
            calling(("create_task", {**ANN, "priority": "High"})),
            ("enum_violation", "call_error", "state_mismatch"),
        ),
        (
            "complete",
            calling(("complete_task", {"task_id": 0})),
            ("range_violation", "ungrounded_value", "call_error", "state_mismatch"),
        ),
        # decision
        ("complete", saying("Great job!"), ("silent_when_call", "state_mismatch")),
        ("complete", saying("Which task do you mean?"), ("asked_when_answerable", "state_mismatch")),
        ("list", saying("You have no tasks."), ("silent_when_call", "state_mismatch")),
        ("talk", calling(("list_tasks", {})), ("called_when_none",)),
        ("talk", saying('{"name": "list_tasks"}'), ("wrong_wrapper", "called_when_none")),
        ("ask-title", calling(("create_task", {"title": "New task"})), ("guessed_missing_argument",)),
        # selection
        (
            "complete",
            calling(("delete_task", {"task_id": 2})),
            ("wrong_tool", "state_mismatch"),
        ),
        ("multi", calling(("complete_task", {"task_id": 1})), ("missing_call", "state_mismatch")),
        (
            "complete",
            calling(("complete_task", {"task_id": 2}), ("list_tasks", {})),
            ("extra_call",),
        ),
        (
            "complete",
            calling(("complete_task", {"task_id": 2}), ("complete_task", {"task_id": 2})),
            ("duplicate_call", "call_error"),
        ),
        (
            "multi",
            calling(("delete_task", {"task_id": 2}), ("complete_task", {"task_id": 1})),
            ("wrong_order",),
        ),
        # arguments
        (
            "create",
            calling(("create_task", {"title": "call Ann", "due_date": "Friday"})),
            ("lost_constraint", "state_mismatch"),
        ),
        (
            "create-plain",
            calling(("create_task", {"title": "buy 12 eggs", "priority": "medium"})),
            ("ungrounded_value",),
        ),
        (
            "create-plain",
            calling(("create_task", {"title": "buy 12 eggs", "description": "please"})),
            ("extra_argument", "state_mismatch"),
        ),
        (
            "create-plain",
            calling(("create_task", {"title": "buy 12 legs"})),
            ("ungrounded_value", "state_mismatch"),
        ),
        ("create-plain", calling(("create_task", {"title": "eggs"})), ("wrong_value", "state_mismatch")),
        (
            "create",
            calling(("create_task", {**ANN, "due_date": "next Friday"})),
            ("date_resolution", "state_mismatch"),
        ),
        ("create", calling(("create_task", {**ANN, "due_date": "2026-03-13"})), ("date_wording",)),
        (
            "create",
            calling(("create_task", {**ANN, "due_date": "when the cows come home"})),
            ("date_resolution", "call_error", "state_mismatch"),
        ),
        # state
        (
            "complete",
            calling(("complete_task", {"task_id": 1})),
            ("ungrounded_value", "state_mismatch", "side_effect"),
        ),
        (
            "update",
            calling(
                ("update_task", {"task_id": 1, "due_date": "next week"}),
                ("update_task", {"task_id": 2, "priority": "low"}),
                ("update_task", {"task_id": 2, "priority": "high"}),
            ),
            ("extra_call", "side_effect"),
        ),
        ("list", calling(("list_tasks", {})), ("lost_constraint", "state_mismatch")),
    ],
)
def test_a_plausible_wrong_answer_is_named(
    turns: TurnsByKey, case: str, reply: Reply, errors: tuple[str, ...]
) -> None:
    verdict = score_turn(turns[case, 0], reply)
    assert verdict.errors == errors
    assert not verdict.correct


@pytest.mark.parametrize(
    ("case", "number", "text", "errors"),
    [
        ("ask-title", 0, "OK.", ("no_question",)),
        ("ask-title", 0, "Which task do you mean?", ("wrong_question",)),
        ("ask-title", 0, "I've added it. What should I change?", ("claims_undone_action", "wrong_question")),
        ("ask-id", 0, "What should the task be called?", ("wrong_question",)),
        ("ask-change", 0, "Which task should I change?", ("wrong_question",)),
        ("ask-change", 0, "What should I change about task 2?", ("wrong_fact",)),
        ("talk", 0, "Done! Anything else?", ("claims_undone_action",)),
        ("complete", 1, "All set.", ("missing_fact",)),
        ("complete", 1, 'Task 2 "pay the rent deposit" is completed.', ("wrong_fact",)),
        ("complete", 1, 'Task 12 "pay the rent" is completed.', ("missing_fact", "wrong_fact")),
        ("complete", 1, 'Deleted task 2: "pay the rent".', ("claims_undone_action",)),
        ("complete", 1, 'Task 2 "pay the rent" is completed, due March 21.', ("wrong_fact",)),
        (
            "create",
            1,
            'Created task 5: "call Ann", due 2026-03-14, high priority.',
            ("missing_fact", "wrong_fact"),
        ),
        ("create", 1, 'Created task 5: "call Ann", due March 13, 2027, high priority.', ("wrong_fact",)),
        (
            "create",
            1,
            'Created task 5: "call Ann", due 2026-03-13, low priority.',
            ("missing_fact", "wrong_fact"),
        ),
        (
            "create-plain",
            1,
            'Created task 5: "buy 10 eggs", medium priority.',
            ("missing_fact", "wrong_fact"),
        ),
        ("delete-missing", 1, "Task 9 has been deleted.", ("claims_undone_action", "missing_fact")),
        (
            "delete-missing",
            1,
            'Deleted task 2: "pay the rent".',
            ("claims_undone_action", "missing_fact", "wrong_fact"),
        ),
        ("list", 1, LIST_TEXT.replace("- 2:", "- 1:", 1).replace('- 1: "w', '- 2: "w'), ("wrong_fact",)),
        ("delete-missing", 1, "What about task 9?", ("missing_fact",)),
        (
            "multi",
            1,
            'Deleted task 1 "water the plants". Deleted task 2: "pay the rent".',
            ("claims_undone_action",),
        ),
        ("list", 1, LIST_TEXT.replace("2 open", "3 open"), ("wrong_fact",)),
        ("list", 1, LIST_TEXT.replace("(low)", "(low, completed)"), ("claims_undone_action",)),
        ("list", 1, LIST_TEXT.splitlines()[0] + "\n" + LIST_TEXT.splitlines()[1], ("missing_fact",)),
        ("several", 1, LIST_TEXT, ("no_question", "missing_fact", "wrong_fact")),
        ("complete", 1, "", ("no_output",)),
        ("complete", 1, "<tool_response>{}</tool_response>", ("leaked_markup", "missing_fact")),
    ],
)
def test_a_wrong_text_is_named(
    turns: TurnsByKey, case: str, number: int, text: str, errors: tuple[str, ...]
) -> None:
    assert score_turn(turns[case, number], saying(text)).errors == errors


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("complete", 'I have marked task 2, "Pay the rent", as done.'),
        ("create", 'Added "call Ann" (#5) with high priority for the 13th of March.'),
        ("create", "Created “call Ann” as number 5: high priority, due 3/13/2026."),
        ("delete-missing", "I could not find a task with number 9, so nothing was deleted."),
        (
            "list",
            "You have two open tasks: pay the rent (#2, high, March 20) and water the plants (#1, low).",
        ),
    ],
)
def test_a_reply_may_be_worded_otherwise(turns: TurnsByKey, case: str, text: str) -> None:
    assert score_turn(turns[case, 1], saying(text)).errors == ()


def test_dates_given_to_the_wrong_task_of_a_list_are_seen(turns: TurnsByKey) -> None:
    gold = turns["several", 1].gold.content or ""
    swapped = gold.replace("2026-04-01", "X").replace("2026-03-20", "2026-04-01").replace("X", "2026-03-20")
    assert swapped != gold
    assert score_turn(turns["several", 1], saying(swapped)).errors == ("wrong_fact",)


def test_checks_tell_which_part_of_a_turn_is_right(turns: TurnsByKey) -> None:
    late = score_turn(turns["create", 0], calling(("create_task", {**ANN, "due_date": "next Friday"})))
    assert late.checks == {
        "well_formed": True,
        "right_tools": True,
        "right_arguments": False,
        "right_state": False,
    }
    reworded = score_turn(turns["create", 0], calling(("create_task", {**ANN, "due_date": "2026-03-13"})))
    assert reworded.checks == {
        "well_formed": True,
        "right_tools": True,
        "right_arguments": False,
        "right_state": True,
    }
    silent = score_turn(turns["create", 0], saying("OK."))
    assert silent.checks == {"right_tools": False, "right_arguments": False, "right_state": False}
    guessed = score_turn(turns["ask-title", 0], calling(("create_task", {"title": "New task"})))
    assert guessed.checks == {"well_formed": True, "right_question": False, "no_call": False}
    asked = score_turn(turns["ask-title", 0], saying("Which task?"))
    assert asked.checks == {"right_question": False, "no_call": True}
    broken = score_turn(turns["talk", 0], saying("<tool_call>"))
    assert broken.checks == {"well_formed": False, "no_call": False}
    wrong = score_turn(turns["complete", 1], saying("All set."))
    assert wrong.checks == {"grounded": False}


def test_a_call_error_that_the_right_answer_has_too_is_none(turns: TurnsByKey) -> None:
    assert score_turn(turns["delete-missing", 0], calling(("delete_task", {"task_id": 9}))).errors == ()


def test_text_that_should_have_been_a_call_is_recognised() -> None:
    for text in (
        "<tool_call>",
        'Sure: {"name": "x"}',
        '{ "function" : "list_tasks" }',
        "create_task(title='x')",
        '[{"create_task": {}}]',
    ):
        assert looks_like_call(text), text
    for text in (
        "I can create a task (or two).",
        "The create_task tool?",
        'Task 2 "pay: rent" is completed.',
    ):
        assert not looks_like_call(text), text


def test_every_error_code_has_a_test_above() -> None:
    parametrised = [
        mark.args[1]
        for function in (test_a_plausible_wrong_answer_is_named, test_a_wrong_text_is_named)
        for mark in getattr(function, "pytestmark")  # noqa: B009 - functions have no such attribute for the type checker
    ]
    tested = {code for rows in parametrised for row in rows for code in row[-1]}
    assert tested == {code for codes in LAYERS.values() for code in codes}
