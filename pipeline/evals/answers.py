"""One answer of a model as it is stored: its raw text or message, what it cost, and what it was asked.

The line is also a line of a predictions file (`evals score`), so that scoring can be repeated without the model.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_atomic
from pipeline.core.operation import Part

PREDICTIONS_FILE = "predictions.jsonl"


class Answer(Part):
    """What came back for one case, unparsed."""

    id: str
    """Case id."""
    repeat: int = 0
    """Which of several tries."""
    digest: str = ""
    """Of messages, tools and decoding; tells whether a stored answer is to the same question."""
    text: str | None = None
    """Raw text, when the server or engine gave text."""
    message: dict[str, Any] | None = None
    """Assistant message in OpenAI form, when the server parsed the calls."""
    finish_reason: str | None = None
    """``stop``, ``tool_calls`` or ``length``."""
    retried: bool = False
    """The server hid a first, unparsable try."""
    latency_ms: float = 0.0
    """Time from request to whole answer."""
    prompt_tokens: int | None = None
    """As the engine counts."""
    completion_tokens: int | None = None
    """As the engine counts."""

    @property
    def key(self) -> tuple[str, int]:
        """Which question it answers."""
        return self.id, self.repeat

    @property
    def visible_text(self) -> str:
        """Text a user would read or a parser gets."""
        if self.text is not None:
            return self.text
        return str((self.message or {}).get("content") or "")


class Decoding(Part):
    """How answers are generated."""

    max_tokens: int = Field(default=160, ge=1)
    """Longest answer."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    seed: int = 0
    """Of sampling; a repeat adds its number."""
    stream: bool = False
    """Ask for server-sent events."""
    constrained: bool = False
    """Let a grammar admit only text or calls that fit their schema."""


def digest_question(
    messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], how: Decoding
) -> str:
    """Return a short digest of everything the answer depends on, the model excepted."""
    text = json.dumps([list(messages), list(tools), how.model_dump()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_answers(path: Path) -> dict[tuple[str, int], Answer]:
    """Return the answers an interrupted run left; a half-written line is dropped."""
    found: dict[tuple[str, int], Answer] = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.split("\n"):
        try:
            answer = Answer.model_validate_json(line)
        except ValidationError:
            continue  # a killed writer leaves half a line; its case is asked again
        found[answer.key] = answer
    return found


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write a predictions file whole."""
    write_atomic(path, "".join(answer.model_dump_json(exclude_none=True) + "\n" for answer in answers))


def read_replay(path: Path) -> dict[str, Answer]:
    """Read predictions that someone else made: ``{id, text}``, ``{id, message}`` or ``{id, calls}``.

    Raises:
        InvalidInputError: If the file is missing or a line is none of these.
    """
    answers: dict[str, Answer] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read {path}: {error}", hint="Name a predictions file.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            answer = _parse_replay(line, f"{path.name}:{number}")
            answers[answer.id] = answer
    return answers


def _parse_replay(line: str, place: str) -> Answer:
    try:
        raw: dict[str, Any] = json.loads(line)
        calls: list[dict[str, Any]] | None = raw.pop("calls", None)
        if calls is not None:
            function = [{"type": "function", "id": f"call_{i}", "function": c} for i, c in enumerate(calls)]
            raw["message"] = {"role": "assistant", "content": None, "tool_calls": function}
        known = {name: value for name, value in raw.items() if name in Answer.model_fields}
        return Answer.model_validate(known)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"{place} is no prediction: {reason}", hint="A line is {id, text}, {id, message} or {id, calls}."
        ) from error
