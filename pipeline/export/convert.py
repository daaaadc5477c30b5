"""A model folder as GGUF, tuned or not: to serve a base model beside a tuned one with the same template and engine."""

from pathlib import Path

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import require_disk
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path
from pipeline.core.refs import resolve_path as resolve_ref
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.export.checkpoint import read_checkpoint
from pipeline.export.gguf import write_gguf_file
from pipeline.export.quantization import BITS_PER_WEIGHT, Quantization


class ExportConvertRequest(Request):
    """What to convert."""

    model: WorkspaceRef = Field(min_length=1)
    """Hugging Face folder: starter name, path or run:<id>/merged."""
    quantization: Quantization = "q8_0"
    """Type of the weights in the file."""
    out: WorkspacePath | None = None
    """GGUF to write, one of that name is replaced; default is in the run directory."""


class ExportConvertResult(Result):
    """What was written."""

    path: str
    """The GGUF."""
    size_bytes: int
    """Its size."""
    tensor_types: dict[str, int]
    """Number of tensors by type."""


def convert_model(request: ExportConvertRequest, run: Run) -> ExportConvertResult:
    """Convert a model folder to one GGUF file with its chat template inside; nothing is compared.

    Raises:
        InvalidInputError: If the model is of an unknown kind, or `out` is no GGUF name.
        IntegrityError: If the weights are damaged.
        DoesNotFitError: If the disk is too small.
    """
    folder = resolve_ref(request.model)
    path = (
        resolve_path(request.out)
        if request.out
        else run.artifacts / f"{folder.name}-{request.quantization}.gguf"
    )
    if path.suffix != ".gguf":
        raise InvalidInputError(f"{path.name} does not end in .gguf", hint="Name a GGUF file.")
    _check_room(path, read_checkpoint(folder).num_params, request.quantization)
    path.parent.mkdir(parents=True, exist_ok=True)
    types = write_gguf_file(folder, path, request.quantization, name=folder.name, run=run)
    root = Settings.load().workspace
    return ExportConvertResult(
        path=str(path.relative_to(root) if path.is_relative_to(root) else path),
        size_bytes=path.stat().st_size,
        tensor_types=types,
        next_step=f"llmops deploy serve --model {path}",
    )


def _check_room(path: Path, num_params: int, quantization: Quantization) -> None:
    # The 16-bit file is written beside the quantised one, which is made from it.
    bits = BITS_PER_WEIGHT["f16"] + (0 if quantization == "f16" else BITS_PER_WEIGHT[quantization])
    require_disk(path.parent, int(num_params * bits / 8 * 1.05) + (64 << 20), "The conversion")


EXPORT_CONVERT = Operation(
    name="export.convert",
    request=ExportConvertRequest,
    result=ExportConvertResult,
    run=convert_model,
    long_running=True,
    destructive=True,
    positional=("model",),
)
