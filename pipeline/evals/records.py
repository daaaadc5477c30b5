"""The line of ``details.jsonl``: one judged turn, complete enough to report and compare without the model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_atomic
from pipeline.core.operation import Part
from pipeline.core.paths import resolve_path
from pipeline.core.runs import Run
from pipeline.evals.predictions import Reply
from pipeline.evals.scorers import score_turn
from pipeline.evals.turns import Kind, Turn

DETAILS_FILE = "details.jsonl"


class TurnRecord(Part):
    """One turn, what was expected, what came, and the verdict."""

    id: str
    """Case id."""
    turn: int
    """Assistant turn in the case, from 0."""
    kind: Kind
    """What a right answer does."""
    intent: str
    """Tag ``intent`` of the case."""
    group: str
    """Formulation of the case."""
    digest: str
    """Of history and right answer; tells whether two files judge the same turn."""
    user: str
    """Last user message."""
    gold: dict[str, Any]
    """Right answer in OpenAI form."""
    predicted: Reply
    """What the model answered, with latency and tokens."""
    tags: dict[str, str] = {}
    """Tags of a neutral case; its slices."""
    correct: bool
    """The whole turn is right."""
    errors: tuple[str, ...]
    """Codes, the cause first; see :mod:`pipeline.evals.scorers`."""
    checks: dict[str, bool]
    """Partial verdicts that apply to this turn."""

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the turn in its case file."""
        return self.id, self.turn


def judge(turn: Turn, reply: Reply) -> TurnRecord:
    """Score an answer and keep it."""
    verdict = score_turn(turn, reply)
    return TurnRecord(
        id=turn.example.id,
        turn=turn.number,
        kind=turn.kind,
        intent=turn.example.tags.get("intent", "-"),
        group=turn.example.group,
        digest=turn.digest,
        user=turn.user_text,
        gold=turn.gold.to_openai(),
        predicted=reply,
        correct=verdict.correct,
        errors=verdict.errors,
        checks=verdict.checks,
    )


def write_details(path: Path, records: Sequence[TurnRecord]) -> None:
    """Write a details file whole."""
    write_atomic(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_finished(path: Path) -> dict[tuple[str, int], TurnRecord]:
    """Return the records that an interrupted run left; a half-written line is dropped."""
    found: dict[tuple[str, int], TurnRecord] = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.split("\n"):
        try:
            record = TurnRecord.model_validate_json(line)
        except ValidationError:
            continue  # a killed writer leaves half a line; its turn is asked again
        found[record.key] = record
    return found


def read_details(path: Path) -> list[TurnRecord]:
    """Read a details file.

    Raises:
        InvalidInputError: If it is missing or empty, or a line is no record.
    """
    hint = "Name a run of `llmops evals run`, or its details.jsonl."
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        records = [TurnRecord.model_validate(json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(f"cannot read evaluation details from {path}: {reason}", hint=hint) from error
    if not records:
        raise InvalidInputError(f"{path} holds no evaluated turn", hint=hint)
    return records


def find_details(reference: str) -> Path:
    """Return the details file of a run id, ``run:<id>``, folder or file.

    Raises:
        InvalidInputError: If nothing matches.
    """
    path = resolve_path(reference.removeprefix("file:"))
    if reference.startswith("run:") or not path.exists():
        path = Run.open(reference.removeprefix("run:").partition("/")[0]).path
    if path.is_file():
        return path
    inside = [path / DETAILS_FILE, path / "artifacts" / DETAILS_FILE]
    found = next((candidate for candidate in inside if candidate.is_file()), None)
    if found is None:
        raise InvalidInputError(
            f"{reference!r} holds no {DETAILS_FILE}",
            hint="Name a run of `llmops evals run` that has started.",
        )
    return found
