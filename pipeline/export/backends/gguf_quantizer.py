# pyright: basic
"""f16 GGUF -> quantised GGUF, tensor by tensor, so that memory stays at one matrix.

Which tensor gets which type is llama.cpp's policy (``core/gguf_types.py``); the blocks are libgguf's, which are ggml's.
"""

import os
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import gguf
import libgguf
import numpy as np

from pipeline.core.errors import IntegrityError
from pipeline.core.gguf_types import TensorType, plan_types
from pipeline.export.quantization import FILE_TYPES, Quantization

_TYPES = gguf.GGMLQuantizationType
_UNQUANTISED = {"F32": np.float32, "F16": np.float16}
_WRITTEN_ANEW = ("general.architecture", "general.file_type")


def count_types(path: Path) -> dict[str, int]:
    """Return how many tensors of a file have which type, after checking that every 16- and 32-bit value is finite.

    Raises:
        IntegrityError: If a weight is not finite as a 16-bit float.
    """
    reader = gguf.GGUFReader(path)
    for tensor in reader.tensors:
        if tensor.tensor_type.name in _UNQUANTISED and not np.isfinite(tensor.data).all():
            raise IntegrityError(
                f"tensor {tensor.name} has values that a 16-bit float cannot hold",
                hint="Training has diverged or the file is damaged: check the loss curve and train again.",
            )
    return dict(Counter(tensor.tensor_type.name for tensor in reader.tensors))


def quantize_gguf(
    full: Path,
    path: Path,
    quantization: Quantization,
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Write the quantised form of an f16 file, whole or not at all; return how many tensors got which type."""
    reader = gguf.GGUFReader(full)
    architecture: str = reader.fields["general.architecture"].contents()
    num_layers: int = reader.fields[f"{architecture}.block_count"].contents()
    shapes = {tensor.name: tuple(int(n) for n in tensor.data.shape) for tensor in reader.tensors}
    plan = plan_types(shapes, quantization, num_layers)
    part = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(part, architecture)
    _copy_metadata(reader, writer)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[quantization]])
    for name, shape in shapes.items():
        _announce(writer, name, shape, plan[name])
    with _whole_file(writer, part, path):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for index, tensor in enumerate(reader.tensors):
            writer.write_tensor_data(_encode(tensor.data, plan[tensor.name]))
            on_tensor(index + 1, len(shapes))
    return dict(Counter(plan.values()))


@contextmanager
def _whole_file(writer: gguf.GGUFWriter, part: Path, path: Path) -> Generator[None]:
    try:
        yield
        writer.flush()
        writer.close()
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    except BaseException:
        writer.close()
        part.unlink(missing_ok=True)
        raise


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in _WRITTEN_ANEW:
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(
            field.name, field.contents(), field.types[0], sub_type=field.types[-1] if is_array else None
        )


def _announce(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: TensorType) -> None:
    if kind in _UNQUANTISED:
        dtype = np.dtype(_UNQUANTISED[kind])
        writer.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
        return
    row_bytes = libgguf.row_size(_TYPES[kind], shape[-1])
    byte_shape = (*shape[:-1], row_bytes)
    writer.add_tensor_info(
        name, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), raw_dtype=_TYPES[kind]
    )


def _encode(values: np.ndarray, kind: TensorType) -> np.ndarray:
    if kind in _UNQUANTISED:
        return np.ascontiguousarray(values, dtype=_UNQUANTISED[kind])
    return libgguf.quantize_rows(np.ascontiguousarray(values, dtype=np.float32), _TYPES[kind])
