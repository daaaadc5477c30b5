"""TaskStore: the Task API itself, on SQLite, in memory or in a file.

A file store survives a killed process (write-ahead log) and may be used by several processes at once: every write
is one immediate transaction. Due dates are resolved when they are written. It does not decide what to do about a
refused call: :meth:`TaskStore.call` returns the refusal as a result for the model to read.
"""

import sqlite3
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any, Self

from pipeline.core.errors import InvalidInputError
from pipeline.task_api.due_dates import resolve_due_date
from pipeline.task_api.errors import (
    AlreadyCompletedError,
    EmptyTitleError,
    InvalidArgumentsError,
    InvalidPriorityError,
    NothingToUpdateError,
    TaskApiError,
    TaskNotFoundError,
)
from pipeline.task_api.tools import ArgumentProblem, find_problem

Task = dict[str, Any]
"""``id``, ``title``, then ``description`` and ``due_date`` when set, ``priority``, ``status``."""

MAX_LISTED = 20
"""Tasks that one list result shows; ``total`` counts all."""
_LOCK_WAIT_SECONDS = 10.0
_COLUMNS = ("id", "title", "description", "due_date", "priority", "status")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    description TEXT,
    due_date TEXT,
    priority TEXT NOT NULL DEFAULT 'medium' CHECK (priority IN ('low', 'medium', 'high')),
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'completed'))
)
"""


class TaskStore:
    """Tasks 1, 2, 3 ...; usable from several threads; a context manager that closes the file."""

    def __init__(self, path: str | Path = ":memory:", clock: date | None = None) -> None:
        """Open or create a store.

        Args:
            path: SQLite file, or ``:memory:``.
            clock: The day to call today; None asks the machine at each call.

        Raises:
            InvalidInputError: If the file is not a task database, or its folder does not exist.
        """
        self._clock = clock
        self._lock = threading.RLock()
        self.write_log: list[tuple[str, int]] = []
        """Successful writes of this object, oldest first: (tool, task id)."""
        try:
            self._database = _connect(path)
        except sqlite3.Error as error:
            raise InvalidInputError(
                f"{path} cannot be used as a task database: {error}",
                hint="Name a new file, or one that this project made.",
            ) from error

    @classmethod
    def from_state(cls, tasks: Iterable[Task], today: date) -> Self:
        """Return a store in memory with a fixed clock that holds exactly these tasks."""
        store = cls(clock=today)
        defaults = {"priority": "medium", "status": "open"}
        rows = [[{**defaults, **task}.get(column) for column in _COLUMNS] for task in tasks]
        store._database.executemany("INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?)", rows)
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def today(self) -> date:
        """Return the day that due dates are resolved against."""
        return self._clock or datetime.now().astimezone().date()

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Execute one tool call and return its JSON-able result.

        Results are ``{"task": ...}``, ``{"deleted": ...}``, ``{"tasks": [...], "total": n}``, or for a refusal
        ``{"error": code, "message": text}``.
        """
        try:
            if problem := find_problem(name, arguments):
                raise _refusal(problem)
            if name == "create_task":
                return {"task": self.create_task(**arguments)}
            if name == "update_task":
                return {"task": self.update_task(**arguments)}
            if name == "complete_task":
                return {"task": self.complete_task(**arguments)}
            if name == "delete_task":
                return {"deleted": self.delete_task(**arguments)}
            return self.list_tasks(**arguments)
        except TaskApiError as error:
            return {"error": error.code, "message": str(error)}

    def create_task(
        self, title: str, description: str = "", due_date: str = "", priority: str = "medium"
    ) -> Task:
        """Add a task; empty description and due date mean none.

        Raises:
            TaskApiError: If the title is empty, or the due date is invalid or past.
        """
        values = self._clean(title=title, description=description, due_date=due_date, priority=priority)
        with self._write() as database:
            cursor = database.execute(
                "INSERT INTO tasks (title, description, due_date, priority) VALUES (?, ?, ?, ?)",
                [values[key] for key in ("title", "description", "due_date", "priority")],
            )
            task = self._get(int(cursor.lastrowid or 0))
        self.write_log.append(("create_task", task["id"]))
        return task

    def update_task(self, task_id: int, **changes: str) -> Task:
        """Change title, description, due_date or priority; an empty description or due date removes it.

        Raises:
            TaskApiError: If there is no such task, nothing to change, or a value is refused.
        """
        if not changes:
            raise NothingToUpdateError(
                "Say what to change: title, description, due_date or priority.",
                hint="Pass at least one field.",
            )
        values = self._clean(**changes)
        with self._write() as database:
            task_id = self._get(task_id)["id"]
            assignments = ", ".join(f"{column} = ?" for column in values)
            database.execute(f"UPDATE tasks SET {assignments} WHERE id = ?", [*values.values(), task_id])
            task = self._get(task_id)
        self.write_log.append(("update_task", task["id"]))
        return task

    def complete_task(self, task_id: int) -> Task:
        """Mark a task as completed.

        Raises:
            TaskApiError: If there is no such task, or it is completed already.
        """
        with self._write() as database:
            if self._get(task_id)["status"] == "completed":
                raise AlreadyCompletedError(
                    f"Task {task_id} is already completed.", hint="Nothing needs doing."
                )
            database.execute("UPDATE tasks SET status = 'completed' WHERE id = ?", [task_id])
            task = self._get(task_id)
        self.write_log.append(("complete_task", task["id"]))
        return task

    def delete_task(self, task_id: int) -> Task:
        """Remove a task, open or completed, and return its id and title.

        Raises:
            TaskApiError: If there is no such task.
        """
        with self._write() as database:
            task = self._get(task_id)
            database.execute("DELETE FROM tasks WHERE id = ?", [task_id])
        self.write_log.append(("delete_task", task["id"]))
        return {"id": task["id"], "title": task["title"]}

    def list_tasks(
        self, status: str = "", priority: str = "", due_before: str = "", search: str = ""
    ) -> dict[str, Any]:
        """Return the newest tasks that fit all filters, at most 20, and how many fit in all.

        ``due_before`` is exclusive and may lie in the past; ``search`` finds tasks whose title and description
        together hold every word, in any case.

        Raises:
            TaskApiError: If ``due_before`` is not a date.
        """
        filters = [
            ("status = ?", status),
            ("priority = ?", priority),
            ("holds_words(title, description, ?)", search),
        ]
        if due_before:
            limit = resolve_due_date(due_before, self.today(), allow_past=True)
            filters.append(("due_date < ?", limit.isoformat()))
        used = [(condition, value) for condition, value in filters if value]
        where = " AND ".join(condition for condition, _ in used) or "TRUE"
        with self._lock:
            rows = self._database.execute(
                f"SELECT * FROM tasks WHERE {where} ORDER BY id DESC", [value for _, value in used]
            ).fetchall()
        return {"tasks": [_task(row) for row in rows[:MAX_LISTED]], "total": len(rows)}

    def snapshot(self) -> list[Task]:
        """Return all tasks, by id."""
        with self._lock:
            return [_task(row) for row in self._database.execute("SELECT * FROM tasks ORDER BY id")]

    @contextmanager
    def _write(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _get(self, task_id: int) -> Task:
        # As text, because a model may name a number that SQLite's 64 bits cannot hold.
        row = self._database.execute("SELECT * FROM tasks WHERE id = ?", [str(int(task_id))]).fetchone()
        if row is None:
            raise TaskNotFoundError(f"No task has id {task_id}.", hint="Call list_tasks to see the ids.")
        return _task(row)

    def _clean(self, **values: str) -> dict[str, str | None]:
        cleaned: dict[str, str | None] = {}
        for column, value in values.items():
            if column == "title" and not value.strip():
                raise EmptyTitleError("The title must not be empty.", hint="Say what has to be done.")
            if column == "due_date" and value.strip():
                value = resolve_due_date(value, self.today()).isoformat()
            cleaned[column] = value.strip() or None
        return cleaned


def _connect(path: str | Path) -> sqlite3.Connection:
    database = sqlite3.connect(
        path, timeout=_LOCK_WAIT_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        database.create_function("holds_words", 3, _holds_words, deterministic=True)
        if str(path) != ":memory:":
            database.execute("PRAGMA journal_mode=WAL")
        database.execute(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _task(row: tuple[Any, ...]) -> Task:
    return {column: value for column, value in zip(_COLUMNS, row, strict=True) if value is not None}


def _holds_words(title: str, description: str | None, search: str) -> bool:
    # In Python because SQLite's own LIKE folds the case of ASCII letters only.
    text = f"{title}\n{description or ''}".casefold()
    return all(word in text for word in search.casefold().split())


def _refusal(problem: ArgumentProblem) -> TaskApiError:
    hint = "Read the tool's parameters and call it again."
    if problem.argument == "priority" and problem.rule == "enum":
        return InvalidPriorityError(problem.message, hint=hint)
    if problem.argument == "title" and problem.rule == "minLength":
        return EmptyTitleError(problem.message, hint=hint)
    return InvalidArgumentsError(problem.message, hint=hint)
