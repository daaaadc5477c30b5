"""``train.cluster``: launch configuration for a model that one GPU does not hold, checked by a dry run.

Sharding is PyTorch's (FSDP2) and launching is accelerate's; this writes their configuration and counts what each GPU
would hold by sharding the real modules on the meta device. No GPU is used and nothing is trained. What its command
trains cannot be exported: only ``train.run`` describes and closes a run, and it does not shard.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.core.extras import require
from pipeline.core.files import write_atomic
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path, shown_path
from pipeline.core.refs import resolve_path as resolve_ref
from pipeline.core.units import format_bytes
from pipeline.train.recipe import PresetName, TrainRecipe
from pipeline.train.recipe_field import RecipeValues, choose_recipe

_WHAT_THE_COMMAND_GIVES = (
    "the command makes no run: RUN is the directory of a `train run` with this recipe that was cancelled (`llmops jobs cancel "
    "RUN`), in a workspace that all machines share; it leaves metrics, checkpoints and outcome.json there, but no "
    "training.json and no end state, so `export` refuses RUN"
)
_ADAM_STATE_BYTES = 8  # two 32-bit moments for each trained parameter (arXiv:1910.02054, 3.1)


class TrainClusterRequest(Request):
    """What to shard over how many GPUs."""

    model: WorkspaceRef = Field(min_length=1)
    """Base model: its folder needs config.json only."""
    preset: PresetName = "h100-full"
    """Named recipe; ignored when `recipe` is given."""
    recipe: RecipeValues | None = None
    """The whole recipe as JSON, with the fields of `train run`."""
    num_machines: int = Field(default=1, ge=1, le=512)
    """Machines."""
    gpus_per_machine: int = Field(default=8, ge=1, le=16)
    """GPUs of each machine."""
    gpu_memory_bytes: int | None = Field(default=None, ge=1)
    """Memory of one GPU, to say whether the state fits."""
    out: WorkspacePath = "reports/cluster"
    """Folder for accelerate.yaml."""


class TrainClusterResult(Result):
    """How to launch, and what each GPU holds."""

    configuration: str
    """File for `accelerate launch --config_file`."""
    command: str
    """What to run on every machine, with its own rank; it goes on in the directory of an earlier `train run`, and what it
    trains cannot be exported."""
    wrapped_classes: list[str]
    """Modules that are gathered one at a time."""
    num_wrapped: int
    """How many there are."""
    num_parameters: int
    """Parameters with the adapter."""
    weights_bytes: int
    """Weights of one GPU's share."""
    gradients_bytes: int
    """Gradients of one GPU's share."""
    optimizer_bytes: int
    """Optimizer state of one GPU's share."""
    gathered_bytes: int
    """Largest unit, which every GPU holds whole for a moment."""
    state_bytes: int
    """Sum of the four; activations come on top."""
    fits: bool | None
    """Whether that is below gpu_memory_bytes; None when it was not given."""

    def is_negative(self) -> bool:
        """True when the state alone does not fit."""
        return self.fits is False


def configure_cluster(request: TrainClusterRequest) -> TrainClusterResult:
    """Write the FSDP configuration of a model for many GPUs, check it, and count what each GPU would hold.

    Raises:
        InvalidInputError: If the model has no configuration or cannot be sharded.
    """
    require("torch", "transformers", "accelerate", "peft", extra="train")
    from pipeline.train.backends.load import lora_arguments
    from pipeline.train.backends.sharding import check_configuration, dry_run

    recipe = choose_recipe(request.recipe, request.preset)
    num_processes = request.num_machines * request.gpus_per_machine
    lora = lora_arguments(recipe) if recipe.method == "lora" else None
    found = dry_run(resolve_ref(request.model), lora, num_processes)
    path = resolve_path(request.out) / "accelerate.yaml"
    _write_configuration(path, request, recipe, found.wrapped_classes)
    check_configuration(path)
    weight_bytes = 4 if recipe.method == "full" or recipe.dtype == "float32" else 2
    weights = found.num_local * weight_bytes
    gradients = found.num_local_trainable * 4
    optimizer = found.num_local_trainable * _ADAM_STATE_BYTES
    gathered = found.largest_unit * (2 if recipe.dtype in {"bfloat16", "float16"} else 4)
    state = weights + gradients + optimizer + gathered
    fits = None if request.gpu_memory_bytes is None else state < request.gpu_memory_bytes
    return TrainClusterResult(
        configuration=shown_path(path),
        command=_command(request, path),
        wrapped_classes=list(found.wrapped_classes),
        num_wrapped=found.num_wrapped,
        num_parameters=found.num_parameters,
        weights_bytes=weights,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        gathered_bytes=gathered,
        state_bytes=state,
        fits=fits,
        warnings=_find_warnings(recipe, state, fits),
        next_step="llmops vram estimate, with num_gpus, for activations and the whole peak. To train what can be exported, "
        "when one GPU holds the model: llmops train submit (a Ray cluster) or train run --num-processes (one machine).",
    )


def _find_warnings(recipe: TrainRecipe, state: int, fits: bool | None) -> list[str]:
    found = [
        "no GPU was used: the configuration was parsed and the sharding counted, nothing was trained",
        _WHAT_THE_COMMAND_GIVES,
    ]
    if recipe.quantization is not None:
        found.append("4-bit weights are not sharded by this configuration: take a 16-bit recipe")
    if recipe.optimizer != "adamw":
        found.append(f"optimizer_bytes are those of 32-bit AdamW, not of {recipe.optimizer}")
    if fits is False:
        found.append(f"{format_bytes(state)} of state a GPU do not fit: more GPUs, or a LoRA recipe")
    return found


def _write_configuration(
    path: Path, request: TrainClusterRequest, recipe: TrainRecipe, classes: tuple[str, ...]
) -> None:
    precision = {"bfloat16": "bf16", "float16": "fp16", "float32": "no", "auto": "bf16"}[recipe.dtype]
    fsdp: dict[str, Any] = {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_transformer_layer_cls_to_wrap": ",".join(classes),
        "fsdp_reshard_after_forward": True,
        "fsdp_cpu_ram_efficient_loading": True,  # one process of a machine reads the weights
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",  # a whole one would need the memory of one GPU
        # By FSDP instead of the trainer: the trainer's own would gather every layer's weights twice.
        "fsdp_activation_checkpointing": recipe.gradient_checkpointing,
        "fsdp_offload_params": False,
    }
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP",
        "mixed_precision": precision,
        "num_machines": request.num_machines,
        "num_processes": request.num_machines * request.gpus_per_machine,
        "machine_rank": 0,
        "main_process_ip": "127.0.0.1",
        "main_process_port": 29500,
        "rdzv_backend": "c10d",
        "same_network": True,
        "use_cpu": False,
        "main_training_function": "main",
        "fsdp_config": fsdp,
    }
    write_atomic(path, _to_yaml(values))


def _to_yaml(values: dict[str, Any], indent: str = "") -> str:
    """Return flat values and one level of nesting as YAML; texts are quoted so that `no` stays a word."""
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{name}:\n{_to_yaml(value, indent + '  ')}")  # pyright: ignore[reportUnknownArgumentType] - JSON
        elif isinstance(value, bool):
            lines.append(f"{indent}{name}: {str(value).lower()}\n")
        else:
            lines.append(
                f'{indent}{name}: "{value}"\n' if isinstance(value, str) else f"{indent}{name}: {value}\n"
            )
    return "".join(lines)


def _command(request: TrainClusterRequest, path: Path) -> str:
    machines = " --machine_rank RANK --main_process_ip IP-OF-RANK-0" if request.num_machines > 1 else ""
    return (
        f"accelerate launch --config_file {shown_path(path)}{machines} "
        "-m pipeline.train.backends.worker RUN trl"
    )


TRAIN_CLUSTER = Operation(
    name="train.cluster",
    request=TrainClusterRequest,
    result=TrainClusterResult,
    run=configure_cluster,
    read_only=True,
    positional=("model",),
)
