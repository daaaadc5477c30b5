"""Hand-written right and wrong replies to results of the Task API and of tools that are none of ours."""

import json
from typing import Any

import pytest

from pipeline.evals.cases import Case
from pipeline.evals.tool_calls import CaseScorer, Prediction, read_calls
from pipeline.evals.tool_calls.execution import TaskApi, judge_state
from pipeline.evals.tool_calls.reply_facts import Support, find_wrong_facts

RENT = {"id": 7, "title": "pay the rent", "due_date": "2026-03-13", "priority": "high", "status": "open"}
ANN = {"id": 9, "title": "call Ann at 5", "due_date": "2026-03-20", "priority": "low", "status": "open"}
TEA = {"id": 12, "title": "buy 3 teas", "priority": "low", "status": "open"}
BOOK: dict[str, Any] = {
    "name": "book_room",
    "parameters": {
        "type": "object",
        "properties": {"size": {"type": "string", "enum": ["small", "large"]}, "day": {"type": "string"}},
    },
}
BOOKED = {
    "booking": "BK-1042",
    "size": "small",
    "day": "2026-04-02T15:30:00",
    "price": 1234.5,
    "rating": 4.666,
    "guests": ["Ann", "Bob"],
}


def make_case(user: str, name: str, arguments: dict[str, Any], result: Any, **fields: Any) -> Case:
    call = {"type": "function", "id": "c", "function": {"name": name, "arguments": json.dumps(arguments)}}
    row: dict[str, Any] = {
        "id": "a",
        "tool_set": "task_api",
        "messages": [
            {"role": "system", "content": "You manage tasks. Today is 2026-03-11."},
            {"role": "user", "content": user},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": json.dumps(result)},
        ],
        "expected": {"kind": "none"},
    }
    return Case.model_validate({**row, **fields})


LISTED = make_case(
    "What is open? I think there were 40.", "list_tasks", {}, {"tasks": [RENT, ANN, TEA], "total": 3}
)
CREATED = make_case(
    "Add pay the rent for Friday the 13th, priority medium.",
    "create_task",
    {"title": "pay the rent", "due_date": "Friday", "priority": "high"},
    {"task": RENT},
)
ROOM = make_case(
    "Book a large room on April 2.",
    "book_room",
    {"size": "small", "day": "2026-04-02"},
    BOOKED,
    tools=[BOOK],
    tool_set=None,
)
REFUSED = make_case(
    "Complete task 4.",
    "complete_task",
    {"task_id": 4},
    {"error": "not_found", "message": "There is no task 4."},
)
DONE_BEFORE = make_case(
    "Complete task 4.",
    "complete_task",
    {"task_id": 4},
    {"error": "already_completed", "message": "Task 4 is already completed."},
)


def errors_of(case: Case, text: str) -> tuple[str, ...]:
    return CaseScorer(case).score(Prediction(text=text)).errors


@pytest.mark.parametrize(
    ("case", "text"),
    [
        # dates in other forms
        (CREATED, 'Added "pay the rent", due March 13, high priority.'),
        (CREATED, "Added task 7 for 13 March 2026."),
        (CREATED, "Added, due Friday the 13th."),
        (CREATED, "Added, due on 3/13."),
        (CREATED, "Added: **pay the rent** (13th of March, 2026)."),
        # counting what was returned
        (LISTED, "You have three open tasks."),
        (LISTED, "3 open tasks, two of them low, and 2 have a due date."),
        (LISTED, "Of the three, only one has no due date."),
        # numbered lines, ordinals
        (LISTED, '1. "pay the rent"\n2. "call Ann at 5"\n3. "buy 3 teas"'),
        (LISTED, "The 1st is due March 13, the 2nd March 20; the third has no date."),
        (LISTED, "- 7: pay the rent (2026-03-13, high)\n- 9: call Ann at 5\n- 12: buy 3 teas"),
        # the reply quotes the user
        (LISTED, 'You said "I think there were 40", but there are 3.'),
        (CREATED, 'You asked for "priority medium"; it is high now.'),
        # numbers inside titles are no facts of their own
        (LISTED, 'Next is "call Ann at 5", due March 20.'),
        # a denial may name what is not there
        (LISTED, "None is due today, March 11."),
        (LISTED, "No task has medium priority."),
        # a question may offer what nobody said
        (CREATED, "Added. Shall I remind you on March 12?"),
        (CREATED, 'Moved "pay the rent" from March 11 to March 13.'),
        (LISTED, '"pay the rent" is high, "call Ann at 5" low.'),
        (REFUSED, "What is its number? Then we set it to completed."),
        (CREATED, 'Added. Say "undo" to take it back.'),
        # another tool set: times, thousands, rounding, ids
        (ROOM, "Booked BK-1042, the small room, on April 2 at 3:30 pm for $1,234.50."),
        (ROOM, "It is booked for 15:30. The price is about 1235, the rating 4.7."),
        (ROOM, "BK-1042 for two guests."),
        (REFUSED, "There is no task 4."),
        (DONE_BEFORE, "That task has already been completed."),
        (LISTED, "Here they are."),
    ],
)
def test_a_reply_that_says_what_was_returned_is_right(case: Case, text: str) -> None:
    assert find_wrong_facts(text, Support.of(case)) == []
    assert errors_of(case, text) == ()


@pytest.mark.parametrize(
    ("case", "text", "words"),
    [
        (CREATED, "Added task 8.", "8"),
        (CREATED, "Added, due March 14.", "03-14"),
        (CREATED, "Added, due on 14 March 2026.", "03-14"),
        (CREATED, "Added, due March 13, 2027.", "2027"),
        (CREATED, "Added, due Friday the 14th.", "14"),
        (CREATED, 'Added "pay the rent deposit".', "pay the rent deposit"),
        (CREATED, "Added with low priority.", "low"),
        # the user said it, and the result says otherwise
        (CREATED, "Added with medium priority.", "medium"),
        (LISTED, "You have four open tasks.", "4"),
        (LISTED, "You have 6 open tasks.", "6"),
        # a count is no id
        (LISTED, "Task 2 is due March 13.", "2"),
        (LISTED, "Task 3 is next.", "3"),
        (LISTED, "Shall I delete task 8?", "8"),
        (LISTED, "The 4th one is due March 13.", "4"),
        (LISTED, '1. "pay the rent"\n3. "call Ann at 5"\n4. "buy 3 teas"', "4"),
        # each fact is there, beside another task
        (LISTED, "Task 9 is pay the rent. Task 7 is call Ann at 5.", "a title beside"),
        (LISTED, '7: "pay the rent" (low), 9: "call Ann at 5" (low), 12: "buy 3 teas" (low)', "priority"),
        (LISTED, 'The low one is "pay the rent", the high one "call Ann at 5".', "priority"),
        (ROOM, "Booked BK-1043.", "1043"),
        (ROOM, "Booked the large room.", "large"),
        (ROOM, "Booked for 3:45 pm.", "15:45"),
        (ROOM, "Booked for 15:45.", "15:45"),
        (ROOM, "It costs 1,243.50.", "1243.5"),
        (ROOM, "The rating is 4.6.", "4.6"),
        (ROOM, "Booked for three guests.", "3"),
        (ROOM, "Booked on April 3.", "04-03"),
    ],
)
def test_a_reply_that_says_something_else_is_a_wrong_fact(case: Case, text: str, words: str) -> None:
    found = find_wrong_facts(text, Support.of(case))
    assert any(words in part for part in found), found
    assert "wrong_fact" in errors_of(case, text)


def test_without_a_result_small_talk_may_say_any_number_and_a_question_no_unknown_id() -> None:
    talk = Case.model_validate(
        {
            "id": "a",
            "tool_set": "task_api",
            "messages": [{"role": "user", "content": "How many days has a leap year?"}],
            "expected": {"kind": "none"},
        }
    )
    assert errors_of(talk, "366.") == ()
    ask = talk.model_copy(
        update={
            "expected": talk.expected.model_copy(update={"kind": "ask"}),
            "messages": ({"role": "user", "content": "Change task 7."},),
        }
    )
    assert errors_of(ask, "What should I change about task 7: low, medium or high priority?") == ()
    assert errors_of(ask, "What should I change about task 8?") == ("wrong_fact",)


def test_a_claim_after_a_refusal_is_undone() -> None:
    assert errors_of(REFUSED, "I have completed task 4.") == ("claims_undone_action",)
    assert errors_of(CREATED, "I have added it.") == ()


def test_the_bfcl_profile_does_not_judge_replies() -> None:
    assert CaseScorer(CREATED, "bfcl").score(Prediction(text="Added task 8.")).correct


WANTED = {"name": "update_task", "arguments": {"task_id": 7, "due_date": "2026-03-20"}}
EXECUTED = Case.model_validate(
    {
        "id": "a",
        "tool_set": "task_api",
        "today": "2026-03-11",
        "messages": [{"role": "user", "content": "Move task 7 to March 20."}],
        "expected": {
            "kind": "calls",
            "calls": [
                {
                    "name": "update_task",
                    "args": {"task_id": {"any_of": [7]}, "due_date": {"any_of": ["2026-03-20"]}},
                }
            ],
        },
        "initial_state": [RENT],
        "oracle_calls": [WANTED],
    }
)


def executed(text: str, *calls: dict[str, Any]) -> tuple[str, ...]:
    prediction = read_calls(calls, text)
    return judge_state(EXECUTED, prediction, CaseScorer(EXECUTED).score(prediction), TaskApi).errors


def test_a_text_beside_calls_is_judged_by_what_they_returned() -> None:
    assert executed('I have moved "pay the rent" to March 20; its priority stays high.', WANTED) == ()
    assert executed('I have moved "pay the bills" to March 20.', WANTED) == ("wrong_fact",)
    assert executed("It stays low.", WANTED) == ("wrong_fact",)


def test_a_claim_beside_calls_that_were_all_refused_is_undone() -> None:
    refused = {"name": "update_task", "arguments": {"task_id": 8, "due_date": "2026-03-20"}}
    assert "claims_undone_action" in executed("I have changed it.", refused)
    assert "claims_undone_action" not in executed("I have changed it.", WANTED)


def test_a_text_beside_calls_that_are_not_executed_is_left_alone() -> None:
    prediction = read_calls([WANTED], "Task 8 is next.")
    assert CaseScorer(EXECUTED).score(prediction).errors == ()


def test_a_case_with_a_persona_wants_its_voice() -> None:
    case = CREATED.model_copy(update={"tags": {"persona": "planner"}})
    assert errors_of(case, "Added.") == ("persona",)
    stranger = CREATED.model_copy(update={"tags": {"persona": "impatient customer"}})
    assert errors_of(stranger, "Added.") == ()


def test_what_the_case_itself_demands_is_still_judged() -> None:
    case = CREATED.model_copy(update={"must_say": ("rent",), "must_not_say": ("sorry",)})
    assert errors_of(case, "Sorry, added.") == ("wrong_fact", "missing_fact")
    assert errors_of(case, "The rent is noted.") == ()


@pytest.mark.parametrize(
    "content", ["", "not found", "[]", "3", "null", '{"tasks": 4}', '{"tasks": [{"id": 1}]}']
)
def test_any_result_can_be_read(content: str) -> None:
    messages = (*LISTED.messages[:3], {"role": "tool", "tool_call_id": "c", "content": content})
    assert "wrong_fact" in errors_of(LISTED.model_copy(update={"messages": messages}), "It is task 77.")
