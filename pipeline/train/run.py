"""Fine-tune a base model on conversations: checks first, then the backend, then ``training.json``.

Resuming is running the same run directory again (`llmops jobs resume RUN`). Does not merge or convert: that is
export's work.
"""

import hashlib
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError, MissingDependencyError, PipelineError
from pipeline.core.extras import installed_version, require
from pipeline.core.files import require_disk, sha256_file, write_json, write_jsonl
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef, shown_path
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.task_api.tools import load_tools
from pipeline.train.job import TrainExample, TrainJob, TrainOutcome
from pipeline.train.launch import launch
from pipeline.train.pairs import make_pairs
from pipeline.train.recipe import PRESETS, PresetName, TrainRecipe
from pipeline.train.rows import common_tools, read_examples, to_row, with_system_prompt

_STATE_BYTES_PER_PARAMETER = 12  # fp32 weight + two Adam moments in a checkpoint (arXiv:1910.02054, 3.1)
_ADAPTER_PARAMETERS = 20_000_000  # more than rank 64 on all linear layers of a model that a CPU can train
_TASK_API_PROMPT = "You are a task assistant. Today is {today}."
_TRACKERS = {"tensorboard": "tensorboardX", "trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow"}
_LISTED_PROMPTS = 20
_NO_PAIR = (
    "rows without a `rejected` message that have no tools, or no assistant turn, give nothing to reject"
)
_NUM_CHECKPOINTS_AT_ONCE = 3  # two are kept, one is being written


class TrainRunRequest(Request):
    """What to train, on what, how."""

    model: WorkspaceRef = "smollm2-135m"
    """Base model: starter name, folder, or `file:PATH`."""
    data: WorkspaceRef = Field(min_length=1)
    """Folder with `train.jsonl` and optionally `validation.jsonl`, or one JSONL file; rows are OpenAI messages, each
    with its own `tools` or the name of a `tool_set`."""
    preset: PresetName = "cpu-quality"
    """Named recipe; ignored when `recipe` is given."""
    recipe: TrainRecipe | None = None
    """The whole recipe as JSON, to set every knob."""
    backend: Literal["auto", "trl", "unsloth"] = "auto"
    """`auto` uses Unsloth when it is installed, plain TRL + PEFT otherwise."""
    system_prompt: str = Field(default="", max_length=20_000)
    """Put before every row's own system message, such as a persona; its hash goes into training.json."""
    num_processes: int = Field(default=1, ge=1, le=64)
    """Processes on this machine that train together (DDP): one per GPU; global batch = micro x accumulation x these."""


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
        InvalidInputError: If rows are broken, nothing would be trained, or another run trains on the device.
        DoesNotFitError: If memory cannot hold the recipe, or the disk the checkpoints.
        MissingDependencyError: If the backend or a tracker asked for is not installed.
        OperationFailedError: If the loss stops being a number.
    """
    require("torch", "transformers", "trl", "peft", "datasets", extra="train")
    backend = _choose_backend(request.backend)
    job = build_job(request, run)
    _require_trackers(job.recipe)
    require_disk(run.path, _checkpoint_bytes(job.recipe, job.base_model), "Training with its checkpoints")
    if job.recipe.objective == "dpo":
        write_jsonl(run.artifacts / "pairs.jsonl", [to_row(pair) for pair in job.train_examples])
    started = time.monotonic()
    if request.num_processes > 1:
        outcome = launch(run, backend, request.num_processes)
    else:
        outcome = train_with_backend(backend, job)
    seconds = time.monotonic() - started
    write_json(
        run.artifacts / "training.json",
        {
            **_describe(request, job),
            "backend": backend,
            "outcome": asdict(outcome),
            "train_seconds": round(seconds, 1),
        },
    )
    return TrainRunResult(
        run_id=run.id,
        output=shown_path(job.output),
        backend=backend,
        num_steps=outcome.num_steps,
        train_loss=outcome.train_loss,
        eval_loss=outcome.eval_loss,
        num_rows=outcome.num_rows,
        trained_share=outcome.num_trained_tokens / outcome.num_tokens,
        train_seconds=seconds,
        warnings=[*_describe_left_out(job), *_warnings(outcome)],
        next_step=f"llmops export run run:{run.id}",
    )


def _require_trackers(recipe: TrainRecipe) -> None:
    missing = [name for name in recipe.report_to if installed_version(_TRACKERS[name]) is None]
    if missing:
        packages = " ".join(_TRACKERS[name] for name in missing)
        raise MissingDependencyError(
            f"{', '.join(missing)} not installed",
            hint=f"Run `pip install {packages}`, or leave it out of the recipe's report_to.",
            missing=missing,
        )


def build_job(request: TrainRunRequest, run: Run) -> TrainJob:
    """Read recipe and rows of a request; what every process of a run does for itself.

    Raises:
        InvalidInputError: If rows are broken, or preference training can make no pair of any.
    """
    recipe = request.recipe or PRESETS[request.preset]()
    train_file, validation_file = find_files(request.data)

    def read(path: Path | None) -> tuple[list[TrainExample], int]:
        rows = [with_system_prompt(row, request.system_prompt) for row in read_examples(path)] if path else []
        kept = make_pairs(rows, recipe.seed) if recipe.objective == "dpo" else rows
        return kept, len(rows) - len(kept)

    train_examples, num_left_out = read(train_file)
    if not train_examples:
        raise InvalidInputError(
            f"no preference pair can be made of {train_file.name}: {_NO_PAIR} (all {num_left_out})",
            hint="Give its rows `tools` (or a `tool_set`) or a `rejected` assistant message, or train with objective=sft.",
        )
    validation_examples, num_validation_left_out = read(validation_file)
    return TrainJob(
        recipe=recipe,
        base_model=resolve_path(request.model),
        train_examples=train_examples,
        validation_examples=validation_examples,
        run=run,
        checkpoints=run.artifacts / "checkpoints",
        output=run.artifacts / ("adapter" if recipe.method == "lora" else "model"),
        num_rows_without_pair=num_left_out,
        num_validation_rows_without_pair=num_validation_left_out,
    )


def _describe(request: TrainRunRequest, job: TrainJob) -> dict[str, object]:
    train_file, _ = find_files(request.data)
    return {
        "base_model": request.model,
        "base_model_path": shown_path(job.base_model),
        "method": job.recipe.method,
        **_describe_prompt(job.train_examples, request.system_prompt),
        "recipe": job.recipe.model_dump(mode="json"),
        "data": {"train": str(train_file), "train_sha256": sha256_file(train_file)},
    }


def _checkpoint_bytes(recipe: TrainRecipe, base_model: Path) -> int:
    weights_bytes = sum(path.stat().st_size for path in base_model.glob("*.safetensors"))
    # Base weights are 16-bit.
    num_trained = weights_bytes // 2 if recipe.method == "full" else _ADAPTER_PARAMETERS
    return _NUM_CHECKPOINTS_AT_ONCE * _STATE_BYTES_PER_PARAMETER * num_trained


def _describe_prompt(examples: list[TrainExample], system_prompt: str) -> dict[str, object]:
    """Return what clients must send, as far as all rows agree: later stages read it from ``training.json``."""
    texts = Counter(row.messages[0].content or "" for row in examples if row.messages[0].role == "system")
    facts: dict[str, object] = {
        "injected_system_prompt": {"text": system_prompt, "sha256": _digest(system_prompt)}
        if system_prompt
        else None,
        "num_system_prompts": len(texts),
        "system_prompts": [
            {"sha256": _digest(text), "num_rows": count} for text, count in texts.most_common(_LISTED_PROMPTS)
        ],
    }
    tools = common_tools(examples)
    if tools != tuple(load_tools()):
        return {**facts, "tool_set": None, "tools": tools}
    template = f"{system_prompt}\n\n{_TASK_API_PROMPT}" if system_prompt else _TASK_API_PROMPT
    return {**facts, "tool_set": "task_api", "system_prompt_template": template}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def find_files(data: str) -> tuple[Path, Path | None]:
    """Return the training file of a folder or file reference, and the validation file beside it."""
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


def train_with_backend(backend: str, job: TrainJob) -> TrainOutcome:
    """Import the backend and train in this process."""
    if backend == "unsloth":
        from pipeline.train.backends.unsloth_sft import train as train_with_unsloth

        return train_with_unsloth(job)
    if backend == "trl":
        from pipeline.train.backends.trl_sft import train as train_with_trl

        return train_with_trl(job)
    raise PipelineError(f"no backend {backend!r}", hint="Report this.")


def _describe_left_out(job: TrainJob) -> list[str]:
    found: list[str] = []
    if num := job.num_rows_without_pair:
        found.append(f"{num} of {num + len(job.train_examples)} training rows were left out: {_NO_PAIR}")
    if num := job.num_validation_rows_without_pair:
        rest = len(job.validation_examples)
        then = (
            "" if rest else "; without any, nothing was evaluated and the weights of the last step are kept"
        )
        found.append(f"{num} of {num + rest} validation rows were left out: {_NO_PAIR}{then}")
    return found


def _warnings(outcome: TrainOutcome) -> list[str]:
    found = list(outcome.changes)
    if outcome.num_rows_too_long:
        found.append(f"{outcome.num_rows_too_long} rows are longer than max_length and were left out")
    if outcome.num_validation_rows_too_long:
        effect = ": nothing is left to evaluate, and training does not stop early" * (
            outcome.eval_loss is None
        )
        found.append(
            f"{outcome.num_validation_rows_too_long} validation rows are longer than max_length and were left out{effect}"
        )
    if outcome.not_shared_because:
        found.append(f"trained without sharing prompt prefixes: {outcome.not_shared_because}")
    if outcome.num_steps < outcome.num_steps_planned:
        found.append(
            f"stopped early after {outcome.num_steps} of {outcome.num_steps_planned} steps, because the evaluation loss "
            f"no longer fell; the weights of step {outcome.best_step} are kept"
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
