"""What the gate writes down: ``gate.json``."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.core.files import read_json

GATE_FILE = "gate.json"


def report_path(model: Path) -> Path:
    """Return where the report on an export folder, or on one file, is written.

    One file has its own: ``models/`` holds files of many models, and a folder's report speaks for all its files.
    """
    return model / GATE_FILE if model.is_dir() else model.with_name(f"{model.stem}.{GATE_FILE}")


class GateCheck(BaseModel):
    """One check and its outcome."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    id: str
    """Stable name, with the file it looked at: ``prompt_tokens:model-f16.gguf``."""
    passed: bool | None
    """Null when the value is only reported."""
    measured: str
    """What was found."""
    limit: str
    """What would have been right."""
    explanation: str
    """What a failure means for the user."""


class GateReport(BaseModel):
    """Outcome of all checks on one model."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    passed: bool
    """True when no check failed."""
    checks: list[GateCheck]
    """In the order they ran."""
    default_gguf: str = ""
    """File to serve: the preferred size whose task accuracy is within the limit."""
    num_turns: int = 0
    """Held-out turns that every file was asked; 0 too in reports of versions that did not count them."""
    seconds: float
    """Wall time."""
    files: dict[str, str]
    """SHA-256 of each file that was verified."""

    def proves(self, name: str, sha256: str) -> bool:
        """True when all checks passed and this very file was among those that were verified."""
        return self.passed and self.files.get(name) == sha256


def read_report(folder: Path) -> GateReport | None:
    """Return the report on an export folder; None when the gate has not run."""
    path = report_path(folder)
    return GateReport.model_validate(read_json(path)) if path.is_file() else None


def served_files(names: Iterable[str]) -> list[str]:
    """Return the files of an export that the gate has to look at; an adapter in a folder below is not one."""
    return [name for name in names if name.endswith(".gguf") and "/" not in name]
