"""``synth.replay``: execute every call of a data file again and compare with the results that are stored.

Works for any file of Task API conversations, whoever wrote it. It checks calls and results, not the wording.
"""

import json
from datetime import date
from json import JSONDecodeError

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Example
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.task_api.faults import execute
from pipeline.task_api.store import TaskStore

_MAX_SHOWN = 20


class SynthReplayRequest(Request):
    """Which file to replay."""

    file: WorkspacePath = Field(min_length=1)
    """JSON Lines file of conversations."""


class SynthReplayResult(Result):
    """What the replay found."""

    rows: int
    """Rows in the file."""
    calls: int
    """Calls executed."""
    different_rows: int
    """Rows with a call whose stored result is missing or not what the Task API answers."""
    differences: list[str]
    """The first 20 of them: row, call and both results."""

    def is_negative(self) -> bool:
        """True when any row differs."""
        return self.different_rows > 0


def replay_file(request: SynthReplayRequest) -> SynthReplayResult:
    """Execute the tool calls of a data file again and report rows whose results differ.

    Raises:
        InvalidInputError: If the file cannot be read or a line is not a conversation.
    """
    rows = read_rows(request.file)
    differences: list[str] = []
    different_rows = 0
    for row in rows:
        found = find_differences(row)
        different_rows += bool(found)
        differences += [f"{row.id}: {difference}" for difference in found]
    return SynthReplayResult(
        rows=len(rows),
        calls=sum(len(message.tool_calls) for row in rows for message in row.messages),
        different_rows=different_rows,
        differences=differences[:_MAX_SHOWN],
    )


def find_differences(row: Example) -> list[str]:
    """Return how the stored results of a row differ from those of a fresh Task API.

    A row may end with the assistant's calls; those are executed and have nothing to be compared with.
    """
    stored = {
        message.tool_call_id: message.content or "" for message in row.messages if message.role == "tool"
    }
    differences: list[str] = []
    with TaskStore.from_state(row.initial_state, date.fromisoformat(row.today)) as store:
        for call in (call for message in row.messages for call in message.tool_calls):
            actual = execute(store, call, row.faults)
            if call.id not in stored and call in row.messages[-1].tool_calls:
                continue
            if call.id not in stored:
                differences.append(f"{call.id} has no result")
            elif not _equals(stored[call.id], actual):
                differences.append(
                    f"{call.id} {call.name} gives {json.dumps(actual)}, stored is {stored[call.id]}"
                )
    return differences


def _equals(stored: str, actual: dict[str, object]) -> bool:
    try:
        return json.loads(stored) == actual
    except JSONDecodeError:
        return False


def read_rows(file: str) -> list[Example]:
    """Return the rows of a data file.

    Raises:
        InvalidInputError: If it cannot be read or a line is not a conversation.
    """
    path = resolve_path(file)
    rows: list[Example] = []
    try:
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    rows.append(_parse(line, f"{file}:{number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}", hint="Name a JSON Lines file.") from error
    return rows


def _parse(line: str, where: str) -> Example:
    try:
        row = Example.from_row(json.loads(line))
        date.fromisoformat(row.today)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"{where} is not a conversation: {reason}", hint="Mend or remove the line."
        ) from error
    return row


SYNTH_REPLAY = Operation(
    name="synth.replay",
    request=SynthReplayRequest,
    result=SynthReplayResult,
    run=replay_file,
    read_only=True,
    positional=("file",),
)
