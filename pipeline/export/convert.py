"""A model folder as GGUF, tuned or not: to serve a base model beside a tuned one with the same template and engine."""

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path
from pipeline.core.refs import resolve_path as resolve_ref
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.export.gguf import write_gguf_file
from pipeline.export.quantization import Quantization


class ExportConvertRequest(Request):
    """What to convert."""

    model: WorkspaceRef = Field(min_length=1)
    """Hugging Face folder: starter name, path or run:<id>/merged."""
    quantization: Quantization = "q8_0"
    """Type of the weights in the file."""
    out: WorkspacePath | None = None
    """GGUF to write; default is in the run directory."""


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
    """
    folder = resolve_ref(request.model)
    path = (
        resolve_path(request.out)
        if request.out
        else run.artifacts / f"{folder.name}-{request.quantization}.gguf"
    )
    if path.suffix != ".gguf":
        raise InvalidInputError(f"{path.name} does not end in .gguf", hint="Name a GGUF file.")
    types = write_gguf_file(folder, path, request.quantization, name=folder.name, run=run)
    root = Settings.load().workspace
    return ExportConvertResult(
        path=str(path.relative_to(root) if path.is_relative_to(root) else path),
        size_bytes=path.stat().st_size,
        tensor_types=types,
        next_step=f"llmops deploy serve --model {path}",
    )


EXPORT_CONVERT = Operation(
    name="export.convert",
    request=ExportConvertRequest,
    result=ExportConvertResult,
    run=convert_model,
    long_running=True,
    positional=("model",),
)
