"""Fine-tune a base model on conversations: checks first, then the backend, then ``training.json``.

Resuming is running the same run directory again (`llmops jobs resume RUN`). Does not merge or convert: that is
export's work.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError, MissingDependencyError, PipelineError
from pipeline.core.extras import installed_version, require
from pipeline.core.files import require_disk, sha256_file, write_json
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.task_api.tools import load_tools
from pipeline.train.job import TrainExample, TrainJob, TrainOutcome
from pipeline.train.recipe import PRESETS, TrainRecipe
from pipeline.train.rows import common_tools, read_examples

_STATE_BYTES_PER_PARAMETER = 12  # fp32 weight + two Adam moments in a checkpoint (arXiv:1910.02054, 3.1)
_ADAPTER_PARAMETERS = 20_000_000  # more than rank 64 on all linear layers of a model that a CPU can train
_NUM_CHECKPOINTS_AT_ONCE = 3  # two are kept, one is being written


class TrainRunRequest(Request):
    """What to train, on what, how."""

    model: WorkspaceRef = "smollm2-135m"
    """Base model: starter name, folder, or `file:PATH`."""
    data: WorkspaceRef = Field(min_length=1)
    """Folder with `train.jsonl` and optionally `validation.jsonl`, or one JSONL file; rows are OpenAI messages, each
    with its own `tools` or the name of a `tool_set`."""
    preset: Literal["cpu-smoke", "cpu-quality", "cpu-lora", "t4-lora"] = "cpu-quality"
    """Named recipe; ignored when `recipe` is given."""
    recipe: TrainRecipe | None = None
    """The whole recipe as JSON, to set every knob."""
    backend: Literal["auto", "trl", "unsloth"] = "auto"
    """`auto` uses Unsloth when it is installed, plain TRL + PEFT otherwise."""


class TrainRunResult(Result):
    """What came out."""

    run_id: str
    """Run directory; `run:<id>` is the reference for export."""
    output: str
    """Adapter (or model) folder, relative to the workspace."""
    backend: str
    """Library that trained."""
    num_steps: int
    """Optimizer steps."""
    train_loss: float
    """Mean training loss."""
    eval_loss: float | None
    """Evaluation loss in nats per predicted token."""
    num_rows: int
    """Training rows used."""
    trained_share: float
    """Share of tokens that had a label."""
    train_seconds: float
    """Wall seconds of training in this process."""


def train_model(request: TrainRunRequest, run: Run) -> TrainRunResult:
    """Fine-tune a base model on tool-calling conversations.

    Raises:
        InvalidInputError: If rows are broken, or nothing would be trained.
        DoesNotFitError: If the disk cannot hold the checkpoints.
        MissingDependencyError: If the backend asked for is not installed.
    """
    require("torch", "transformers", "trl", "peft", "datasets", extra="train")
    backend = _choose_backend(request.backend)
    recipe = request.recipe or PRESETS[request.preset]()
    base_model = resolve_path(request.model)
    train_file, validation_file = _find_files(request.data)
    output = run.artifacts / ("adapter" if recipe.method == "lora" else "model")
    require_disk(run.path, _checkpoint_bytes(recipe, base_model), "Training with its checkpoints")
    train_examples = read_examples(train_file)
    job = TrainJob(
        recipe=recipe,
        base_model=base_model,
        train_examples=train_examples,
        validation_examples=read_examples(validation_file) if validation_file else [],
        run=run,
        checkpoints=run.artifacts / "checkpoints",
        output=output,
    )
    started = time.monotonic()
    outcome = _train_with(backend, job)
    seconds = time.monotonic() - started
    settings = Settings.load()
    facts = {
        "base_model": request.model,
        "base_model_path": str(
            base_model.relative_to(settings.workspace)
            if base_model.is_relative_to(settings.workspace)
            else base_model
        ),
        "method": recipe.method,
        "backend": backend,
        **_describe_prompt(train_examples),
        "recipe": recipe.model_dump(mode="json"),
        "data": {"train": str(train_file), "train_sha256": sha256_file(train_file)},
        "outcome": asdict(outcome),
        "train_seconds": round(seconds, 1),
    }
    write_json(run.artifacts / "training.json", facts)
    return TrainRunResult(
        run_id=run.id,
        output=str(output.relative_to(settings.workspace)),
        backend=backend,
        num_steps=outcome.num_steps,
        train_loss=outcome.train_loss,
        eval_loss=outcome.eval_loss,
        num_rows=outcome.num_rows,
        trained_share=outcome.num_trained_tokens / outcome.num_tokens,
        train_seconds=seconds,
        warnings=_warnings(outcome),
        next_step=f"llmops export run run:{run.id}",
    )


def _checkpoint_bytes(recipe: TrainRecipe, base_model: Path) -> int:
    weights_bytes = sum(path.stat().st_size for path in base_model.glob("*.safetensors"))
    # Base weights are 16-bit.
    num_trained = weights_bytes // 2 if recipe.method == "full" else _ADAPTER_PARAMETERS
    return _NUM_CHECKPOINTS_AT_ONCE * _STATE_BYTES_PER_PARAMETER * num_trained


def _describe_prompt(examples: list[TrainExample]) -> dict[str, object]:
    """Return what clients must send, as far as all rows agree: later stages read it from ``training.json``."""
    tools = common_tools(examples)
    if tools == tuple(load_tools()):
        return {
            "tool_set": "task_api",
            "system_prompt_template": "You are a task assistant. Today is {today}.",
        }
    return {"tool_set": None, "tools": tools}


def _find_files(data: str) -> tuple[Path, Path | None]:
    path = resolve_path(data)
    if path.is_file():
        return path, None
    train, validation = path / "train.jsonl", path / "validation.jsonl"
    if not train.is_file():
        raise InvalidInputError(
            f"{data} has no train.jsonl", hint="Run `llmops synth generate --out FOLDER` first."
        )
    return train, validation if validation.is_file() else None


def _choose_backend(wanted: str) -> str:
    if wanted == "auto":
        return "unsloth" if installed_version("unsloth") else "trl"
    if wanted == "unsloth" and not installed_version("unsloth"):
        raise MissingDependencyError(
            "unsloth is not installed",
            hint="Make its environment as docs/decisions/0006-unsloth-optional.md says, or leave --backend out.",
            missing=["unsloth"],
        )
    return wanted


def _train_with(backend: str, job: TrainJob) -> TrainOutcome:
    if backend == "unsloth":
        from pipeline.train.backends.unsloth_sft import train as train_with_unsloth

        return train_with_unsloth(job)
    if backend == "trl":
        from pipeline.train.backends.trl_sft import train as train_with_trl

        return train_with_trl(job)
    raise PipelineError(f"no backend {backend!r}", hint="Report this.")


def _warnings(outcome: TrainOutcome) -> list[str]:
    found: list[str] = []
    if outcome.num_rows_too_long:
        found.append(f"{outcome.num_rows_too_long} rows are longer than max_length and were left out")
    if not outcome.shared_prefix:
        found.append(
            "the shared-prompt speed-up does not cover this architecture, recipe or backend; "
            "training ran without it"
        )
    return found


TRAIN_RUN = Operation(
    name="train.run",
    request=TrainRunRequest,
    result=TrainRunResult,
    run=train_model,
    long_running=True,
    positional=("data",),
)
