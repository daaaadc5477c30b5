"""A Hugging Face folder -> one GGUF file."""

from pathlib import Path

from pipeline.core.extras import require
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.export.checkpoint import read_checkpoint
from pipeline.export.quantization import Quantization


def write_gguf_file(
    folder: Path, path: Path, quantization: Quantization, *, name: str, run: Run | None = None
) -> dict[str, int]:
    """Convert a model folder, whole or not at all; return how many tensors got which type.

    Raises:
        InvalidInputError: If the architecture, tokenizer or rotary scaling is not supported.
        IntegrityError: If the weights are truncated, or not finite in 16 bits.
    """
    require("torch", "transformers", "gguf", "libgguf", "safetensors", extra="train")
    from pipeline.export.backends.gguf_writer import write_gguf

    checkpoint = read_checkpoint(folder)
    with Progress(f"write {path.name}", 0, unit="tensors", run=run) as progress:

        def report(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        return write_gguf(checkpoint, path, quantization, name=name, on_tensor=report)


def write_f16_gguf(folder: Path, path: Path) -> None:
    """Convert a model folder without quantising it; the model is named after the folder."""
    write_gguf_file(folder, path, "f16", name=folder.name)
