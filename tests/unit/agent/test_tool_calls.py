"""Calls that hang, that break, and that destroy."""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from pipeline.agent.tool_calls import ToolCaller, ask_on_terminal, is_yes
from pipeline.task_api.store import Task, TaskStore

TODAY = date(2026, 3, 11)
TASKS: tuple[Task, ...] = ({"id": 1, "title": "send the invoice"}, {"id": 2, "title": "water the plants"})


class HangingStore(TaskStore):
    """A store whose next call waits until the test lets it go."""

    release = threading.Event()
    hangs = True

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if self.hangs:
            self.hangs = False
            self.release.wait(60)
        return super().call(name, arguments)


@pytest.fixture
def store() -> Iterator[TaskStore]:
    with TaskStore.from_state(TASKS, TODAY) as store:
        yield store


def call(caller: ToolCaller, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(caller.call(name, json.dumps(arguments)) for name, arguments in calls))

    return [json.loads(text) for text in asyncio.run(all_at_once())]


def test_a_call_that_hangs_becomes_a_timeout_and_the_next_one_works() -> None:
    store = HangingStore.from_state(TASKS, TODAY)
    try:
        hung, listed = call(
            ToolCaller(store, timeout_seconds=0.05), ("create_task", {"title": "x"}), ("list_tasks", {})
        )
        assert hung["error"] == "timeout"
        assert "It is not known whether it was done" in hung["message"]
        assert listed["total"] == 2
    finally:
        store.release.set()


def test_calls_of_one_turn_are_executed_in_their_order(store: TaskStore) -> None:
    titles = [f"task {number}" for number in range(20)]
    results = call(ToolCaller(store), *(("create_task", {"title": title}) for title in titles))
    assert [result["task"]["title"] for result in results] == titles
    assert [result["task"]["id"] for result in results] == list(range(3, 23))


def test_a_deletion_asks_first_and_a_no_changes_nothing(store: TaskStore) -> None:
    questions: list[str] = []
    answers = iter([False, True])

    def consent(question: str) -> bool:
        questions.append(question)
        return next(answers)

    caller = ToolCaller(store, consent=consent)
    (refused,) = call(caller, ("delete_task", {"task_id": 2}))
    assert refused["error"] == "not_confirmed"
    assert [task["id"] for task in store.snapshot()] == [1, 2]
    (deleted,) = call(caller, ("delete_task", {"task_id": 2}))
    assert deleted["deleted"]["id"] == 2
    assert questions == ["delete_task: task 2, 'water the plants'?"] * 2


@pytest.mark.parametrize("arguments", [{"task_id": 99}, {"task_id": "two"}, {}])
def test_a_deletion_of_nothing_asks_nobody(store: TaskStore, arguments: dict[str, Any]) -> None:
    def consent(question: str) -> bool:
        raise AssertionError(question)

    (result,) = call(ToolCaller(store, consent=consent), ("delete_task", arguments))
    assert result["error"] in {"not_found", "invalid_argument", "invalid_arguments"}


def test_thinking_about_consent_is_no_timeout(store: TaskStore) -> None:
    def think(question: str) -> bool:
        time.sleep(0.3)
        return True

    (result,) = call(ToolCaller(store, consent=think, timeout_seconds=0.2), ("delete_task", {"task_id": 1}))
    assert result["deleted"]["id"] == 1


def test_without_anybody_to_ask_the_answer_is_no(store: TaskStore) -> None:
    (result,) = call(ToolCaller(store), ("delete_task", {"task_id": 1}))
    assert result["error"] == "not_confirmed"
    assert not ask_on_terminal("Really?")  # pytest's stdin is no terminal


def test_a_broken_database_is_told_to_the_model(store: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(store, "call", fail)
    (result,) = call(ToolCaller(store), ("list_tasks", {}))
    assert (result["error"], "disk I/O error" in result["message"]) == ("unavailable", True)


@pytest.mark.parametrize(
    ("answer", "expected"), [("y\n", True), ("Yes", True), ("", False), ("n", False), (None, False)]
)
def test_only_yes_is_yes(answer: str | None, expected: bool) -> None:
    assert is_yes(answer) is expected
