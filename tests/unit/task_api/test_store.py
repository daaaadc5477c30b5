import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.task_api.store import TaskStore

TODAY = date(2026, 3, 11)


@pytest.fixture
def store() -> Generator[TaskStore]:
    with TaskStore(clock=TODAY) as store:
        yield store


def test_created_tasks_are_numbered_from_one_and_hold_what_was_given(store: TaskStore) -> None:
    first = store.call("create_task", {"title": "buy milk"})
    second = store.call(
        "create_task",
        {"title": " call Ann ", "description": "desk 4", "due_date": "Friday", "priority": "high"},
    )
    assert first == {"task": {"id": 1, "title": "buy milk", "priority": "medium", "status": "open"}}
    assert second == {
        "task": {
            "id": 2,
            "title": "call Ann",
            "description": "desk 4",
            "due_date": "2026-03-13",
            "priority": "high",
            "status": "open",
        }
    }


def test_an_update_changes_only_the_named_fields(store: TaskStore) -> None:
    store.create_task("buy milk", due_date="tomorrow", priority="low")
    result = store.call("update_task", {"task_id": 1, "due_date": "next week"})
    assert result["task"] == {
        "id": 1,
        "title": "buy milk",
        "due_date": "2026-03-16",
        "priority": "low",
        "status": "open",
    }


def test_an_empty_due_date_removes_it(store: TaskStore) -> None:
    store.create_task("buy milk", due_date="tomorrow")
    assert "due_date" not in store.call("update_task", {"task_id": 1, "due_date": ""})["task"]


def test_ids_of_deleted_tasks_are_not_used_again(store: TaskStore) -> None:
    store.create_task("a")
    assert store.call("delete_task", {"task_id": 1}) == {"deleted": {"id": 1, "title": "a"}}
    assert store.create_task("b")["id"] == 2


def test_completed_tasks_can_be_listed_and_deleted_but_not_completed_again(store: TaskStore) -> None:
    store.create_task("a")
    assert store.call("complete_task", {"task_id": 1})["task"]["status"] == "completed"
    assert store.call("complete_task", {"task_id": 1})["error"] == "already_completed"
    assert store.call("list_tasks", {"status": "completed"})["total"] == 1
    assert "deleted" in store.call("delete_task", {"task_id": 1})


def test_lists_are_newest_first_and_show_twenty_of_all(store: TaskStore) -> None:
    for number in range(1, 26):
        store.create_task(f"task {number}")
    result = store.call("list_tasks", {})
    assert (result["total"], [task["id"] for task in result["tasks"]]) == (25, list(range(25, 5, -1)))


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ({}, [4, 3, 2, 1]),
        ({"status": "open"}, [4, 3, 1]),
        ({"priority": "high"}, [3]),
        ({"due_before": "Friday"}, [2]),  # the 12th; the task of Friday the 13th itself is not before it
        ({"due_before": "2026-03-12"}, []),
        ({"due_before": "2026-01-01"}, []),
        ({"search": "ÜBUNG"}, [1]),
        ({"search": "desk milk"}, [2]),
        ({"search": "100%"}, [4]),
        ({"status": "open", "priority": "high", "search": "ann"}, [3]),
    ],
)
def test_filters_of_lists(store: TaskStore, arguments: dict[str, Any], ids: list[int]) -> None:
    store.create_task("Übung planen")
    store.create_task("buy milk", description="see desk 4", due_date="tomorrow")
    store.create_task("call Ann", due_date="Friday", priority="high")
    store.create_task("reach 100% coverage")
    store.complete_task(2)
    assert [task["id"] for task in store.call("list_tasks", arguments)["tasks"]] == ids


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("complete_task", {"task_id": 42}, "not_found"),
        ("delete_task", {"task_id": 10**30}, "not_found"),
        ("update_task", {"task_id": 42, "title": "x"}, "not_found"),
        ("update_task", {"task_id": 1}, "nothing_to_update"),
        ("create_task", {"title": "x", "priority": "urgent"}, "invalid_priority"),
        ("create_task", {"title": ""}, "empty_title"),
        ("create_task", {"title": "  "}, "empty_title"),
        ("create_task", {"title": "x", "due_date": "yesterday"}, "past_due_date"),
        ("create_task", {"title": "x", "due_date": "November 31"}, "invalid_due_date"),
        ("list_tasks", {"due_before": "soon"}, "invalid_due_date"),
        ("create_task", {}, "invalid_arguments"),
        ("create_task", {"title": "x", "due": "Friday"}, "invalid_arguments"),
        ("complete_task", {"task_id": "1"}, "invalid_arguments"),
        ("complete_task", {"task_id": True}, "invalid_arguments"),
        ("complete_task", {"task_id": 0}, "invalid_arguments"),
        ("archive_task", {"task_id": 1}, "invalid_arguments"),
    ],
)
def test_refused_calls_change_nothing_and_say_why(
    store: TaskStore, name: str, arguments: dict[str, Any], code: str
) -> None:
    store.create_task("a")
    before = store.snapshot()
    result = store.call(name, arguments)
    assert (result["error"], set(result)) == (code, {"error", "message"})
    assert store.snapshot() == before


def test_a_refusal_names_the_task(store: TaskStore) -> None:
    assert store.call("complete_task", {"task_id": 42})["message"] == "No task has id 42."


def test_a_whole_float_is_an_integer_as_in_json_schema(store: TaskStore) -> None:
    store.create_task("a")
    assert store.call("complete_task", {"task_id": 1.0})["task"]["id"] == 1


def test_the_write_log_holds_successful_writes_only(store: TaskStore) -> None:
    store.call("create_task", {"title": "a"})
    store.call("complete_task", {"task_id": 9})
    store.call("list_tasks", {})
    store.call("delete_task", {"task_id": 1})
    assert store.write_log == [("create_task", 1), ("delete_task", 1)]


def test_a_store_made_from_a_state_equals_it_and_numbers_on() -> None:
    state = [
        {
            "id": 3,
            "title": "a",
            "description": "d",
            "due_date": "2026-01-01",
            "priority": "low",
            "status": "completed",
        },
        {"id": 8, "title": "b", "priority": "medium", "status": "open"},
    ]
    with TaskStore.from_state(state, TODAY) as store:
        assert store.snapshot() == state
        assert store.create_task("c")["id"] == 9


def test_without_a_fixed_clock_today_is_the_machines_day() -> None:
    with TaskStore() as store:
        before = date.today()  # noqa: DTZ011 - the local day is the point
        assert before <= store.today() <= date.today()  # noqa: DTZ011


def test_a_file_store_keeps_committed_tasks_when_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    script = (
        "import os, signal, sys; from pipeline.task_api.store import TaskStore\n"
        "store = TaskStore(sys.argv[1]); store.create_task('kept'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.run([sys.executable, "-c", script, str(path)], check=False, env={**os.environ})
    assert process.returncode == -signal.SIGKILL
    with TaskStore(path) as store:
        assert [task["title"] for task in store.snapshot()] == ["kept"]


def _create_many(path: str, prefix: str) -> None:
    with TaskStore(path) as store:
        for number in range(40):
            store.create_task(f"{prefix}{number}")


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "tasks.db")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_create_many, args=(path, prefix)) for prefix in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with TaskStore(path) as store:
        tasks = store.snapshot()
    assert [task["id"] for task in tasks] == list(range(1, 121))
    assert {task["title"] for task in tasks} == {f"{p}{n}" for p in "abc" for n in range(40)}


def test_a_file_that_is_no_database_is_refused_as_input(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, only words " * 50, encoding="utf-8")
    with pytest.raises(InvalidInputError, match="cannot be used as a task database"):
        TaskStore(path)
