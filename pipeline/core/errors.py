"""Every failure this project raises on purpose; anything else that escapes is a bug.

PipelineError                   exit 5  base; a bare one is an internal error
|-- OperationFailedError        exit 1  the operation ran and its answer is no
|   |-- IntegrityError          exit 1  a file is not what it should be (checksum, truncation)
|   `-- CancelledRunError       exit 1  the run was asked to stop
|-- InvalidInputError           exit 2  the request, or a file it names, is wrong
|-- MissingDependencyError      exit 3  an optional extra or tool is not installed
`-- DoesNotFitError             exit 4  not enough disk, memory or context
"""

import json
from typing import ClassVar

Detail = str | int | float | bool | None | list[str]


class PipelineError(Exception):
    """Base of all expected failures.

    Attributes:
        code: Stable machine name, part of the contract of all three surfaces.
        exit_code: Status the CLI returns.
        hint: What the caller can do next, as an imperative sentence.
        details: JSON-safe facts; a number's key ends in its unit (``needed_bytes``).
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 5

    def __init__(self, message: str, *, hint: str, **details: Detail) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = details

    def to_dict(self) -> dict[str, object]:
        """Return the error as the JSON object that every surface shows."""
        return {"code": self.code, "message": str(self), "hint": self.hint, "details": self.details}

    def to_json(self) -> str:
        """Return :meth:`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


class OperationFailedError(PipelineError):
    """The operation ran and could not reach its goal."""

    code, exit_code = "operation_failed", 1


class IntegrityError(OperationFailedError):
    """A file is not what it should be."""

    code = "integrity"


class CancelledRunError(OperationFailedError):
    """The run was cancelled."""

    code = "cancelled"


class InvalidInputError(PipelineError):
    """The request, or a file it names, is wrong."""

    code, exit_code = "invalid_input", 2


class MissingDependencyError(PipelineError):
    """An optional extra, tool or network service is not available."""

    code, exit_code = "missing_dependency", 3


class DoesNotFitError(PipelineError):
    """Not enough disk, memory or context."""

    code, exit_code = "does_not_fit", 4
