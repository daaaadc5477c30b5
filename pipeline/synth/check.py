"""``synth.check``: hold every row of a Task API data file against all gates and name each fault by line and kind.

Works for any file of Task API conversations, whoever wrote it. A row whose system prompt is that of a known persona is
judged by the persona's items too. Changes nothing; a clean row is never reported. Needs the libraries of the extra
``data`` for personal data and personas.
"""

import json
from collections import Counter
from datetime import date
from typing import Any

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.messages import Example
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.pii_patterns import find_pii
from pipeline.core.progress import Progress
from pipeline.personas.items import PASS_RATIO, judge_reply, style_ratio
from pipeline.personas.spec import PERSONAS, Persona, load_persona
from pipeline.synth.checks import RowFault, find_faults, label_of
from pipeline.synth.grounding import fold

_MAX_SHOWN = 100


class SynthCheckRequest(Request):
    """Which file to check."""

    file: WorkspacePath = Field(min_length=1)
    """JSON Lines file of conversations."""


class LineFault(Part):
    """One fault of one line."""

    line: int
    """Line in the file, from 1."""
    id: str
    """Id of the row, when it has one."""
    kind: str
    """What kind of fault it is."""
    problem: str
    """What is wrong."""


class SynthCheckResult(Result):
    """What was found."""

    num_rows: int
    """Rows in the file."""
    num_faulty_rows: int
    """Rows with at least one fault."""
    faults_by_kind: dict[str, int]
    """Faults by kind."""
    faults: list[LineFault]
    """The first 100 faults, by line."""

    def is_negative(self) -> bool:
        """True when any row has a fault."""
        return self.num_faulty_rows > 0


class FileChecker:
    """Checks rows one after the other and remembers what they teach, to find contradictions."""

    def __init__(self) -> None:
        self._first_label: dict[str, tuple[int, str]] = {}
        self._ids: dict[str, int] = {}

    def check_line(self, number: int, line: str) -> list[LineFault]:
        """Return the faults of one line."""
        try:
            row = Example.from_row(json.loads(line))
            date.fromisoformat(row.today)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            return [LineFault(line=number, id="", kind="not_a_conversation", problem=reason)]
        faults = [*self._check_row(row), *self._check_known(number, row)]
        return [LineFault(line=number, id=row.id, kind=fault.kind, problem=_place(fault)) for fault in faults]

    def _check_row(self, row: Example) -> list[RowFault]:
        return find_faults(row) + find_personal_data(row) + find_style_faults(row)

    def _check_known(self, number: int, row: Example) -> list[RowFault]:
        faults: list[RowFault] = []
        if (known := self._ids.setdefault(row.id, number)) != number:
            faults.append(
                RowFault(kind="repeated_id", message=-1, problem=f"line {known} has the id {row.id!r} too")
            )
        label = json.dumps(label_of(row), sort_keys=True)
        first, other = self._first_label.setdefault(_question_of(row), (number, label))
        if first != number and other != label:
            problem = f"line {first} has the same conversation and state with other calls"
            faults.append(RowFault(kind="contradiction", message=-1, problem=problem))
        return faults


def check_file(request: SynthCheckRequest) -> SynthCheckResult:
    """Check every row of a data file against all gates and report each fault by line and kind.

    Raises:
        InvalidInputError: If the file cannot be read.
        MissingDependencyError: If the libraries that find personal data are not installed.
    """
    require("phonenumbers", "python-stdnum", "PyYAML", extra="data")
    path = resolve_path(request.file)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{request.file} cannot be read: {error}", hint="Name a JSON Lines file."
        ) from error
    checker = FileChecker()
    faults: list[LineFault] = []
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    with Progress("check", len(numbered), unit="rows") as progress:
        for number, line in numbered:
            faults += checker.check_line(number, line)
            progress.advance()
    return SynthCheckResult(
        num_rows=len(numbered),
        num_faulty_rows=len({fault.line for fault in faults}),
        faults_by_kind=dict(Counter(fault.kind for fault in faults).most_common()),
        faults=faults[:_MAX_SHOWN],
    )


def find_personal_data(row: Example) -> list[RowFault]:
    """Return personal data that has a form, in any text of a row."""
    found: list[RowFault] = []
    for i, message in enumerate(row.messages):
        texts = [
            message.content or "",
            *(json.dumps(call.arguments, ensure_ascii=False) for call in message.tool_calls),
        ]
        for finding in (finding for text in texts for finding in find_pii(text)):
            found.append(
                RowFault(
                    kind="pii", message=i, problem=f"{finding.kind}, {finding.end - finding.start} characters"
                )
            )
    state = json.dumps(row.initial_state, ensure_ascii=False)
    found += [
        RowFault(kind="pii", message=-1, problem=f"{finding.kind} in initial_state")
        for finding in find_pii(state)
    ]
    return found


def find_style_faults(row: Example) -> list[RowFault]:
    """Return the items that failing replies miss, for a row whose system prompt is a known persona's."""
    persona = _speaker_of(row)
    if persona is None:
        return []
    found: list[RowFault] = []
    for i, message in enumerate(row.messages):
        if message.role != "assistant" or (message.tool_calls and not message.content):
            continue
        verdicts = judge_reply(persona, message.content or "")
        is_off_style = style_ratio(verdicts) < PASS_RATIO
        for verdict in verdicts:
            if not verdict.passed and (verdict.hard or is_off_style):
                problem = f"{persona.title}: {verdict.evidence}"
                found.append(RowFault(kind=f"persona_{verdict.item}", message=i, problem=problem))
    return found


def _speaker_of(row: Example) -> Persona | None:
    first = row.messages[0]
    prompt = first.content or "" if first.role == "system" else ""
    return next((p for p in map(load_persona, PERSONAS) if prompt.startswith(p.prompt)), None)


def _question_of(row: Example) -> str:
    """Return what determines the right calls: what was said, on which day, in which state."""
    texts: list[Any] = [fold(message.content or "") for message in row.messages if message.role == "user"]
    return json.dumps([row.today, texts, row.initial_state, row.faults], sort_keys=True)


def _place(fault: RowFault) -> str:
    return fault.problem if fault.message < 0 else f"messages[{fault.message}]: {fault.problem}"


SYNTH_CHECK = Operation(
    name="synth.check",
    request=SynthCheckRequest,
    result=SynthCheckResult,
    run=check_file,
    read_only=True,
    positional=("file",),
)
