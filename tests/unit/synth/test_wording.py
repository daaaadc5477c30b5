import random
from collections import Counter
from datetime import date, timedelta

import pytest

from pipeline.core.messages import ToolCall
from pipeline.synth.due_words import draw_due, draw_impossible, draw_when
from pipeline.synth.formulations import Formulation
from pipeline.synth.replies import nothing_found, reply_to, several_found
from pipeline.synth.wording import fill, ordered, roughen
from pipeline.task_api.due_dates import resolve_due_date
from pipeline.task_api.errors import DueDateError

TODAY = date(2026, 3, 11)
OPEN = {"id": 4, "title": "a", "due_date": "2026-03-13", "priority": "high", "status": "open"}


def test_arguments_are_what_was_typed_without_the_preposition() -> None:
    line = Formulation("create", "{when} I must {title}, {priority} prio; note: {description}", {})
    values = {"when": ("by", "Friday"), "title": "call Ann", "priority": "low", "description": "desk 4"}
    wording = fill(line, values)
    assert wording.text == "by Friday I must call Ann, low prio; note: desk 4"
    assert wording.arguments() == {
        "due_date": "Friday",
        "title": "call Ann",
        "priority": "low",
        "description": "desk 4",
    }


def test_the_second_call_has_its_own_arguments() -> None:
    wording = fill(Formulation("multi", "do {id}, add {title2}", {}), {"id": "7", "title2": "call Ann"})
    assert (wording.arguments(), wording.arguments("2")) == ({"task_id": 7}, {"title": "call Ann"})


def test_a_constant_is_an_argument_and_order_is_canonical() -> None:
    line = Formulation("create", "urgent, by {due}: {title}", {"priority": "high"})
    wording = fill(line, {"due": "Friday", "title": "call Ann"})
    assert list(ordered("create_task", wording.arguments())) == ["title", "due_date", "priority"]


def test_roughening_keeps_arguments_verbatim_and_leaves_about_half_alone() -> None:
    line = Formulation("create", "create a {priority} priority task for {when}, it's called {title}", {})
    values = {"priority": "high", "when": ("on", "March 20"), "title": "review Ann's Q3 budget"}
    seen: Counter[str] = Counter()
    for seed in range(600):
        wording = fill(line, values)
        roughen(wording, random.Random(seed))
        arguments = wording.arguments()
        assert arguments["priority"] == "high"
        assert arguments["title"] in wording.text
        assert arguments["due_date"] in wording.text
        assert {value.lower() for value in (arguments["title"], arguments["due_date"])} == {
            "review ann's q3 budget",
            "march 20",
        }
        seen.update(wording.register or ["plain"])
    assert 0.4 < seen["plain"] / 600 < 0.75
    assert {
        "lower",
        "typo",
        "greeting",
        "thanks",
        "ending",
        "apostrophe",
        "capital",
        "please",
        "space",
    } <= set(seen)


def test_lower_case_reaches_the_arguments() -> None:
    for seed in range(200):
        wording = fill(Formulation("create", "add {title}", {}), {"title": "call Ann"})
        roughen(wording, random.Random(seed))
        if "lower" in wording.register:
            assert wording.arguments() == {"title": "call ann"}
            return
    pytest.fail("no seed gave the register")


def test_every_date_expression_is_in_the_policy() -> None:
    rng = random.Random(1)
    for step in range(3000):
        today = TODAY + timedelta(days=step)
        assert resolve_due_date(draw_due(rng, today), today) >= today
        preposition, words = draw_when(rng, today)
        assert resolve_due_date(f"{preposition} {words}", today) == resolve_due_date(words, today) >= today
        assert resolve_due_date(draw_due(rng, today, distant=True), today) >= today


def test_every_impossible_date_is_refused() -> None:
    rng = random.Random(1)
    for step in range(1000):
        today = TODAY + timedelta(days=step)
        with pytest.raises(DueDateError):
            resolve_due_date(draw_impossible(rng, today), today)


@pytest.mark.parametrize(
    ("name", "arguments", "result", "text"),
    [
        ("create_task", {}, {"task": OPEN}, 'Created task 4: "a", due 2026-03-13, high priority.'),
        (
            "update_task",
            {},
            {"task": {"id": 4, "title": "a", "description": "d", "priority": "low", "status": "open"}},
            'Updated task 4: "a", low priority, description "d".',
        ),
        ("complete_task", {}, {"task": OPEN}, 'Task 4 "a" is completed.'),
        ("delete_task", {}, {"deleted": {"id": 4, "title": "a"}}, 'Deleted task 4: "a".'),
        ("list_tasks", {"status": "open"}, {"tasks": [], "total": 0}, "No open tasks found."),
        (
            "list_tasks",
            {},
            {"tasks": [OPEN, {"id": 1, "title": "b", "priority": "low", "status": "completed"}], "total": 2},
            '2 tasks:\n- 4: "a" (due 2026-03-13, high)\n- 1: "b" (low, completed)',
        ),
        (
            "delete_task",
            {"task_id": 42},
            {"error": "not_found"},
            "There is no task 42. Shall I list your tasks?",
        ),
        ("complete_task", {"task_id": 4}, {"error": "already_completed"}, "Task 4 is already completed."),
        (
            "create_task",
            {"due_date": "yesterday"},
            {"error": "past_due_date"},
            '"yesterday" is in the past. Which due date should I use?',
        ),
        (
            "create_task",
            {"due_date": "May 32"},
            {"error": "invalid_due_date"},
            '"May 32" is not a valid date. Which due date should I use?',
        ),
    ],
)
def test_a_reply_says_what_the_result_holds(
    name: str, arguments: dict[str, object], result: dict[str, object], text: str
) -> None:
    assert reply_to([ToolCall(name=name, arguments=arguments)], [result]) == text


def test_replies_about_titles() -> None:
    assert nothing_found("a b") == 'There is no task matching "a b". Shall I list your tasks?'
    found = {"tasks": [OPEN, {**OPEN, "id": 2}], "total": 2}
    assert several_found(found).splitlines() == [
        "2 tasks match:",
        '- 4: "a" (due 2026-03-13, high)',
        '- 2: "a" (due 2026-03-13, high)',
        "Which one do you mean?",
    ]
