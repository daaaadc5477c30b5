"""What the gate writes down: ``gate.json``."""

from pydantic import BaseModel, ConfigDict

GATE_FILE = "gate.json"


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
    seconds: float
    """Wall time."""
    files: dict[str, str]
    """SHA-256 of each file that was verified."""
