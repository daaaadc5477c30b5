"""What a training run left behind, checked before anything is computed from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import IntegrityError, InvalidInputError
from pipeline.core.files import read_json, sha256_file
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.export.checkpoint import Checkpoint, read_checkpoint


@dataclass(frozen=True, slots=True)
class TrainingSource:
    """One finished training run."""

    run_id: str
    base: Checkpoint
    """The 16-bit model that was trained."""
    weights: Path
    """PEFT adapter folder (``is_adapter``), or the folder of a fully trained model."""
    is_adapter: bool
    facts: dict[str, Any]
    """``training.json``."""
    metrics: dict[str, float]
    """Last value of every number the run logged."""

    @property
    def tool_set(self) -> str | None:
        """Name of the tools the model was trained with, or None."""
        return self.facts.get("tool_set")

    @property
    def held_out(self) -> Path | None:
        """``test.jsonl`` beside the training data, whose wording training has not seen; None when there is none."""
        trained_on: str | None = self.facts.get("data", {}).get("train")
        if trained_on is None:
            return None
        path = (Settings.load().workspace / trained_on).with_name("test.jsonl")
        return path if path.is_file() else None


def read_training(reference: str) -> TrainingSource:
    """Read a training run by ``run:<id>`` or its id.

    Raises:
        InvalidInputError: If it is not a finished training run.
        IntegrityError: If its weights are not the ones it wrote.
    """
    run = Run.open(reference.removeprefix("run:").split("/")[0])
    facts_path = run.artifacts / "training.json"
    if not facts_path.is_file() or run.state() != "succeeded":
        raise InvalidInputError(
            f"{run.id} is not a finished training run (state: {run.state()})",
            hint=f"Run `llmops jobs resume {run.id}` if it was interrupted, or name a run of `llmops train run`.",
        )
    facts: dict[str, Any] = read_json(facts_path)
    is_adapter = facts["method"] == "lora"
    weights = run.artifacts / ("adapter" if is_adapter else "model")
    if not any(weights.glob("*.safetensors")):
        raise InvalidInputError(f"{weights} holds no weights", hint="Train again: the run is incomplete.")
    _check_digests(run, weights)
    base = read_checkpoint(Settings.load().workspace / facts["base_model_path"])
    return TrainingSource(run.id, base, weights, is_adapter, facts, _last_values(run))


def _check_digests(run: Run, weights: Path) -> None:
    outputs: list[dict[str, Any]] = run.manifest().get("outputs") or []
    recorded: dict[str, str] = {item["path"]: item["sha256"] for item in outputs}
    for path in weights.glob("*.safetensors"):
        expected = recorded.get(str(path.relative_to(run.path)))
        if expected is not None and sha256_file(path) != expected:
            raise IntegrityError(
                f"{path.name} is not the file that {run.id} wrote",
                hint="It was changed or truncated: restore it, or train again.",
            )


def _last_values(run: Run) -> dict[str, float]:
    last: dict[str, float] = {}
    for line in run.metrics():
        last |= {
            key: value for key, value in line.items() if isinstance(value, int | float) and key != "time"
        }
    return last
