"""What a learner made for one lesson, and the criteria a check holds it against.

A check reads files through :class:`Work` and states criteria; it never trusts a claim that it can compute. A missing
or unreadable deliverable is an unmet criterion with its next step, not an error.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from pipeline.core.errors import InvalidInputError, PipelineError
from pipeline.core.files import read_jsonl
from pipeline.core.operation import Operation, Part, Result
from pipeline.core.runs import Run


class Criterion(Part):
    """One thing that a lesson asks for."""

    name: str
    """What must be so."""
    is_met: bool
    """Whether it is."""
    reason: str = ""
    """What was found."""
    next_step: str = Field(default="")
    """What to do when it is not met."""


class NotYetError(Exception):
    """A deliverable that the rest of the check needs is missing or broken."""

    def __init__(self, criterion: Criterion) -> None:
        super().__init__(criterion.reason)
        self.criterion = criterion


@dataclass(slots=True)
class Work:
    """A learner's folder, seen from one lesson."""

    folder: Path
    """Root of the learner's folder; a lesson's deliverables are in ``folder/<number>/``."""
    number: str
    """The lesson."""
    criteria: list[Criterion] = field(default_factory=list[Criterion])
    """Everything that was held against the work so far."""

    @property
    def own(self) -> Path:
        """Folder of this lesson's deliverables."""
        return self.folder / self.number

    def require(self, name: str, met: object, *, reason: str = "", next_step: str = "") -> bool:
        """State a criterion; ``reason`` is what was found, ``next_step`` what to do when it is not met."""
        is_met = bool(met)
        self.criteria.append(
            Criterion(name=name, is_met=is_met, reason=reason, next_step="" if is_met else next_step)
        )
        return is_met

    def stop(self, name: str, *, reason: str, next_step: str) -> NotYetError:
        """Return the error that ends the check because nothing further can be judged."""
        return NotYetError(Criterion(name=name, is_met=False, reason=reason, next_step=next_step))

    def path(self, name: str, *, next_step: str) -> Path:
        """Return a deliverable that must exist: of this lesson, or of another as ``"63.3/rows.jsonl"``.

        Raises:
            NotYetError: If it does not exist or leaves the learner's folder.
        """
        path = (
            self.folder / name if name[:3] in {f"6{n}." for n in range(1, 7)} else self.own / name
        ).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.exists():
            raise self.stop(f"{name} exists", reason=f"{path} is missing", next_step=next_step)
        return path

    def read_json(self, name: str, *, next_step: str) -> dict[str, Any]:
        """Return a deliverable that holds one JSON object.

        Raises:
            NotYetError: If it is missing or holds something else.
        """
        path = self.path(name, next_step=next_step)
        try:
            value: object = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.stop(f"{name} is JSON", reason=str(error)[:200], next_step=next_step) from error
        if not isinstance(value, dict):
            raise self.stop(f"{name} is a JSON object", reason="it is not an object", next_step=next_step)
        return cast("dict[str, Any]", value)

    def read_rows(self, name: str, *, next_step: str) -> list[dict[str, Any]]:
        """Return the rows of a JSON Lines deliverable.

        Raises:
            NotYetError: If it is missing or unreadable.
        """
        path = self.path(name, next_step=next_step)
        try:
            return read_jsonl(path)
        except (OSError, ValueError, PipelineError) as error:
            raise self.stop(f"{name} is JSON Lines", reason=str(error)[:200], next_step=next_step) from error

    def call(self, operation: Operation[Any, Any], request: dict[str, Any], *, next_step: str) -> Result:
        """Run an operation on the learner's work; a refused request is an unmet criterion.

        Raises:
            NotYetError: If the operation raised one of the expected failures.
        """
        try:
            return operation.call(request)
        except PipelineError as error:
            name = f"`llmops {operation.name.replace('.', ' ')}` accepts it"
            raise self.stop(name, reason=str(error)[:300], next_step=next_step) from error

    def run(self, run_id: object, operation: str, *, next_step: str) -> Run:
        """Return a succeeded run that the learner names.

        Raises:
            NotYetError: If there is none of that id, it runs another operation, or it did not succeed.
        """
        name = f"a succeeded run of `llmops {operation.replace('.', ' ')}`"
        try:
            run = Run.open(str(run_id))
        except InvalidInputError as error:
            raise self.stop(name, reason=str(error), next_step=next_step) from error
        found = run.manifest()["operation"], run.state()
        if found != (operation, "succeeded"):
            raise self.stop(name, reason=f"{run.id} is {' '.join(found)}", next_step=next_step)
        return run
