"""Execute a model's tool calls: in time, with consent for what destroys, and with the reason when one fails.

Whatever goes wrong becomes a result that the model reads, so that it can try again, ask or explain. Knows the Task API
and not the Agents SDK.
"""

import asyncio
import json
import sqlite3
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.agent.transcript import TranscriptItem
from pipeline.task_api.store import TaskStore
from pipeline.task_api.tools import DESTRUCTIVE_TOOLS

_TIMEOUT_SECONDS = 15.0  # the store itself waits 10 s for another process that writes
ToolResult = dict[str, Any]
T = TypeVar("T")


def refuse(question: str) -> bool:
    """Agree to nothing: there is nobody to ask."""
    return False


def ask_on_terminal(question: str) -> bool:
    """Ask the person at the terminal; without one, the answer is no."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return is_yes(sys.stdin.readline())


def is_yes(answer: str | None) -> bool:
    """Return whether an answer to a yes-or-no question is yes."""
    return (answer or "").strip().lower() in {"y", "yes"}


@dataclass(slots=True)
class ToolCaller:
    """Executes calls one after the other, also those of one turn; a call that hangs is left behind."""

    store: TaskStore
    """The tasks."""
    on_call: Callable[[TranscriptItem], None] | None = None
    """Told each call when its result is there."""
    consent: Callable[[str], bool] = refuse
    """Asked before something that exists is destroyed."""
    timeout_seconds: float = _TIMEOUT_SECONDS
    """Longest time for one call; thinking about consent does not count."""
    reported: list[TranscriptItem] = field(default_factory=list[TranscriptItem])
    """Each call with its result, in order; who begins a new message empties it."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def call(self, name: str, raw_arguments: str) -> str:
        """Execute one call and return its result as JSON text."""
        async with self._turn:  # the second call of a turn may build on the first
            arguments, result = await self._execute(name, raw_arguments)
        return self.report(name, arguments, result)

    def report(self, name: str, arguments: dict[str, Any] | None, result: ToolResult) -> str:
        """Keep a call, tell the listener of it, and return its result as JSON text."""
        item = TranscriptItem(role="tool", tool=name, arguments=arguments, result=result)
        self.reported.append(item)
        if self.on_call is not None:
            self.on_call(item)
        return json.dumps(result, ensure_ascii=False)

    async def _execute(self, name: str, raw: str) -> tuple[dict[str, Any] | None, ToolResult]:
        try:
            arguments = json.loads(raw or "{}")
        except ValueError as error:
            return None, _error("invalid_arguments", f"The arguments are not JSON: {error}.")
        if not isinstance(arguments, dict):
            return None, _error("invalid_arguments", "The arguments must be a JSON object.")
        known: dict[str, Any] = arguments  # pyright: ignore[reportUnknownVariableType] - keys of a JSON object
        try:
            return known, await self._execute_in_time(name, known)
        except TimeoutError:
            # Honest about what is not known: the call was sent, and may yet arrive.
            text = f"{name} did not answer within {self.timeout_seconds:g} s. It is not known whether it was done."
            return known, _error("timeout", text)
        except sqlite3.Error as error:
            return known, _error("unavailable", f"The Task API failed: {error}. Nothing was changed.")

    async def _execute_in_time(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        if name in DESTRUCTIVE_TOOLS:
            tasks = await self._in_time(self.store.snapshot)
            task = next((task for task in tasks if task["id"] == arguments.get("task_id")), None)
            if task and not self.consent(f"{name}: task {task['id']}, {task['title']!r}?"):
                text = f"The user did not agree to {name} of task {task['id']}. Nothing was changed."
                return _error("not_confirmed", text)
        return await self._in_time(lambda: self.store.call(name, arguments))

    async def _in_time(self, work: Callable[[], T]) -> T:
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                done.set_exception(error)

        done.set_running_or_notify_cancel()  # from here on, giving up does not cancel the future under the thread
        # A daemon, unlike the threads of an executor: one that hangs must not keep the program from ending.
        threading.Thread(target=run, daemon=True).start()
        return await asyncio.wait_for(asyncio.wrap_future(done), self.timeout_seconds)


def _error(code: str, message: str) -> ToolResult:
    return {"error": code, "message": message}
