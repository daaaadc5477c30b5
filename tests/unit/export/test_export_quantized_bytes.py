"""libgguf against two other implementations: the gguf package, and ggml inside the engine that serves the files."""

import ctypes

import gguf
import libgguf
import numpy as np
import pytest
import xllamacpp.xllamacpp as engine  # pyright: ignore[reportMissingTypeStubs]

_TYPES = gguf.GGMLQuantizationType
_ROWS, _COLUMNS = 6, 512


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(7).normal(0, 0.05, (_ROWS, _COLUMNS)).astype(np.float32)


@pytest.mark.parametrize("kind", [_TYPES.Q8_0, _TYPES.Q5_0])
def test_simple_blocks_are_the_bytes_of_the_gguf_package(
    kind: gguf.GGMLQuantizationType, weights: np.ndarray
) -> None:
    assert np.array_equal(libgguf.quantize_rows(weights, kind), gguf.quants.quantize(weights, kind))


@pytest.mark.parametrize("kind", [_TYPES.Q8_0, _TYPES.Q5_0, _TYPES.Q4_K, _TYPES.Q6_K])
def test_every_type_is_the_bytes_of_ggml_in_the_serving_engine(
    kind: gguf.GGMLQuantizationType, weights: np.ndarray
) -> None:
    quantize = ctypes.CDLL(engine.__file__).ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    ours = libgguf.quantize_rows(weights, kind)
    theirs = np.zeros_like(ours)
    written = quantize(int(kind), weights.ctypes.data, theirs.ctypes.data, 0, _ROWS, _COLUMNS, None)
    assert written == ours.nbytes
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("kind", "num_levels"), [(_TYPES.Q8_0, 256), (_TYPES.Q6_K, 64), (_TYPES.Q5_0, 32), (_TYPES.Q4_K, 16)]
)
def test_reading_back_is_off_by_about_a_quantisation_step(
    kind: gguf.GGMLQuantizationType, num_levels: int, weights: np.ndarray
) -> None:
    restored = gguf.quants.dequantize(libgguf.quantize_rows(weights, kind), kind)
    block_range = float(np.ptp(weights))  # the widest block is no wider than the whole matrix
    assert 0 < float(np.abs(restored - weights).max()) < 1.5 * block_range / num_levels
