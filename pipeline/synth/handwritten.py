r"""``synth.play``: conversations written by hand as a script, executed on the Task API and written as rows.

A script holds what people and assistant say and which calls are made; results come from the API, so none is invented::

    STATE home 2026-05-04
    41 | descale the coffee machine | low | 2026-05-16 | open
    ROW home terse
    U: 41 done
    C: complete task_id=41
    A: Task 41 "descale the coffee machine" is completed.

``STATE name day`` opens a list of tasks (id, title, priority, due date, status; the last two may be left out), ``ROW
state voice [ask | no_call]`` a conversation. ``U`` is the user, ``A`` the assistant, ``C`` a call in a new turn, ``&`` a call in the same
turn, ``C!timeout`` a call that the API fails. ``{id}`` and ``{due}`` stand for the task of the last result, in calls for
the one created last; ``\n`` for a line break. It does not word anything.
"""

import json
import re
import shlex
from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import sha256_file, write_jsonl
from pipeline.core.messages import Example, Message, ToolCall
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.synth.checks import find_faults
from pipeline.task_api.faults import FAULTS, execute
from pipeline.task_api.store import Task, TaskStore
from pipeline.task_api.tools import order_arguments, system_prompt

_CALL = re.compile(r"C(?:!(?P<fault>\w+))?$")
_HINT = "The form of a script is described in `pipeline/synth/handwritten.py`."


class SynthPlayRequest(Request):
    """Which script to execute."""

    script: WorkspacePath = Field(min_length=1)
    """Text file with states and conversations."""
    out: WorkspacePath = Field(min_length=1)
    """JSON Lines file to write; replaced when it exists."""


class SynthPlayResult(Result):
    """What was written."""

    out: str
    """The file."""
    num_rows: int
    """Conversations."""
    num_calls: int
    """Calls executed."""
    sha256: str
    """Digest of the file."""


class _Line(NamedTuple):
    number: int
    kind: str
    """U, A, C, C!code or &."""
    text: str


class _Script(NamedTuple):
    """One conversation as written."""

    state: str
    voice: str
    category: str
    """ask, no_call, or empty when the calls tell."""
    lines: list[_Line]


class _State(NamedTuple):
    """A named list of tasks and its day."""

    today: str
    tasks: list[Task]


def play_script(request: SynthPlayRequest) -> SynthPlayResult:
    """Execute hand-written conversations and write them as rows.

    Raises:
        InvalidInputError: If a line is not of the form, or a row does not pass the gates.
    """
    path = resolve_path(request.script)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{request.script} cannot be read: {error}", hint=_HINT) from error
    states, scripts = _parse(text, request.script)
    rows: list[Example] = []
    for number, script in enumerate(scripts, start=1):
        where = f"{request.script}:{script.lines[0].number if script.lines else 0}"
        if script.state not in states:
            raise InvalidInputError(f"{where}: there is no state {script.state!r}", hint=_HINT)
        rows.append(_play(script, states[script.state], f"handwritten-{number:03d}", where))
    out = resolve_path(request.out)
    write_jsonl(out, (row.to_row() for row in rows))
    return SynthPlayResult(
        out=request.out,
        num_rows=len(rows),
        num_calls=sum(len(message.tool_calls) for row in rows for message in row.messages),
        sha256=sha256_file(out),
        next_step=f"llmops synth check {request.out}",
    )


def _parse(text: str, name: str) -> tuple[dict[str, _State], list[_Script]]:
    states: dict[str, _State] = {}
    scripts: list[_Script] = []
    tasks: list[Task] = []
    for number, line in _lines(text):
        word, _, rest = line.partition(" ")
        try:
            if word == "STATE":
                label, today = rest.split()
                tasks = []
                states[label] = _State(date.fromisoformat(today).isoformat(), tasks)
            elif word == "ROW":
                state, voice, *category = rest.split()
                scripts.append(_Script(state, voice, _check_category(category), []))
            elif scripts:
                scripts[-1].lines.append(_parse_turn(number, word, rest))
            else:
                tasks.append(_parse_task(line))
        except ValueError as error:
            raise InvalidInputError(f"{name}:{number}: {error}", hint=_HINT) from error
    return states, scripts


def _check_category(words: list[str]) -> str:
    category = " ".join(words)
    if category not in {"", "ask", "no_call"}:
        raise ValueError(f"{category!r} is neither ask nor no_call")
    return category


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _parse_turn(number: int, word: str, rest: str) -> _Line:
    kind = word.removesuffix(":")
    match = _CALL.fullmatch(kind)
    if kind not in {"U", "A", "&"} and not match:
        raise ValueError(f"a line starts with U:, A:, C: or &, not {word!r}")
    if match and match["fault"] and match["fault"] not in FAULTS:
        raise ValueError(f"{match['fault']!r} is no planned failure; there are {', '.join(FAULTS)}")
    if not rest:
        raise ValueError("nothing is said")
    return _Line(number, kind, rest.replace("\\n", "\n"))


def _parse_task(line: str) -> Task:
    parts = [part.strip() for part in line.split("|")]
    number, title, priority, due, status = [*parts, *[""] * (5 - len(parts))]
    task: Task = {"id": int(number), "title": title}
    if due:
        task["due_date"] = date.fromisoformat(due).isoformat()
    return {**task, "priority": priority, "status": status or "open"}


class _Stage:
    """A conversation being executed."""

    def __init__(self, state: _State) -> None:
        self.today = state.today
        self.store = TaskStore.from_state(state.tasks, date.fromisoformat(state.today))
        self.messages = [Message(role="system", content=system_prompt(date.fromisoformat(state.today)))]
        self.faults: dict[str, str] = {}
        self.named: dict[str, Any] = {}
        self.created: dict[str, Any] = {}
        self._num_calls = 0

    def say(self, role: str, text: str) -> None:
        """Add a text turn."""
        for slot in ("id", "due"):
            text = text.replace("{" + slot + "}", str(self.named.get(slot, "{" + slot + "}")))
        self.messages.append(Message.from_openai({"role": role, "content": text}))

    def call(self, lines: list[_Line]) -> None:
        """Add one turn of calls and their results."""
        made: list[ToolCall] = []
        for line in lines:
            self._num_calls += 1
            name = f"call_{self._num_calls}"
            made.append(_parse_call(line.text.replace("{id}", str(self.created.get("id", ""))), name))
            match = _CALL.fullmatch(line.kind)
            if match and match["fault"]:
                self.faults[name] = match["fault"]
        self.messages.append(Message(role="assistant", tool_calls=tuple(made)))
        for call in made:
            result = execute(self.store, call, self.faults)
            content = json.dumps(result, ensure_ascii=False)
            self.messages.append(Message(role="tool", content=content, tool_call_id=call.id))
            task: Task = result.get("task") or result.get("deleted") or {}
            if task:
                self.named = {"id": task["id"], "due": task.get("due_date", "")}
                self.created = self.named if call.name == "create_task" else self.created


def _parse_call(text: str, name: str) -> ToolCall:
    verb, *pairs = shlex.split(text)
    tool = "list_tasks" if verb == "list" else f"{verb}_task"
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        arguments[key] = int(value) if key == "task_id" else value
    return ToolCall(name=tool, arguments=order_arguments(tool, arguments), id=name)


def _play(script: _Script, state: _State, name: str, where: str) -> Example:
    stage = _Stage(state)
    with stage.store:
        for turn in _turns(script.lines):
            try:
                if turn[0].kind in {"U", "A"}:
                    stage.say("user" if turn[0].kind == "U" else "assistant", turn[0].text)
                else:
                    stage.call(turn)
            except ValueError as error:
                raise InvalidInputError(f"{where}: {turn[0].text!r}: {error}", hint=_HINT) from error
    row = Example(
        id=name,
        messages=tuple(stage.messages),
        group=name,
        tags=_tags(stage, script.voice, script.category),
        today=state.today,
        initial_state=tuple(state.tasks),
        faults=stage.faults,
    )
    if faults := find_faults(row):
        listed = "; ".join(f"messages[{fault.message}]: {fault.kind}: {fault.problem}" for fault in faults)
        raise InvalidInputError(f"{where}: {listed}", hint="Mend what the script says there.")
    return row


def _turns(lines: list[_Line]) -> list[list[_Line]]:
    turns: list[list[_Line]] = []
    for line in lines:
        if line.kind == "&" and turns and turns[-1][0].kind not in {"U", "A"}:
            turns[-1].append(line)
        else:
            turns.append([line])
    return turns


def _tags(stage: _Stage, voice: str, category: str) -> dict[str, str]:
    """Return the slices of a row, read off what was played."""
    rounds = [message.tool_calls for message in stage.messages if message.tool_calls]
    calls = [call for made in rounds for call in made]
    results = [json.loads(m.content or "{}") for m in stage.messages if m.role == "tool"]
    num_turns = sum(message.role == "user" for message in stage.messages)
    writes = [call.name.removesuffix("_task") for call in calls if call.name != "list_tasks"]
    refused = next((result["error"] for result in results if "error" in result), "")
    if not category:
        is_parallel = any(len(made) > 1 for made in rounds)
        category = "multi_turn" if num_turns > 1 else "single"
        category = "errors" if refused else "parallel" if is_parallel else category
    return {
        "intent": writes[0] if writes else "list" if calls else "none",
        "kind": category,
        "category": category,
        "register": voice,
        "outcome": refused or "ok",
        "turns": "1" if num_turns == 1 else "2-3" if num_turns < 4 else "4+",
        "calls": str(len(calls)),
        "persona": "neutral",
        "slice": "handwritten",
    }


SYNTH_PLAY = Operation(
    name="synth.play",
    request=SynthPlayRequest,
    result=SynthPlayResult,
    run=play_script,
    destructive=True,
    positional=("script",),
)
