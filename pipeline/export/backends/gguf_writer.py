# pyright: basic
"""Merged Hugging Face folder -> GGUF, written tensor by tensor so that memory stays at one matrix.

Llama architecture only (docs/decisions/0005). Quantised files are made from the values of the f16 file, so they equal
what `llama-quantize` makes of the f16 file we ship.
"""

import os
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import libgguf
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pipeline.core.errors import IntegrityError, InvalidInputError
from pipeline.core.gguf_types import TensorType, plan_types
from pipeline.export.checkpoint import Checkpoint
from pipeline.export.quantization import FILE_TYPES, Quantization
from pipeline.export.vocabulary import read_vocabulary

_TYPES = gguf.GGMLQuantizationType
_NUMPY_TYPES = {"F32": np.float32, "F16": np.float16}


def write_gguf(
    source: Checkpoint,
    path: Path,
    quantization: Quantization,
    *,
    name: str,
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Write one GGUF file, whole or not at all; return how many tensors got which type.

    Raises:
        InvalidInputError: If the tokenizer, rotary scaling or a tensor is of a kind we cannot write.
        IntegrityError: If a weight is not finite as a 16-bit float.
    """
    config: Any = AutoConfig.from_pretrained(source.folder)
    names = _gguf_names(source, config)
    extra = _rope_factors(config)
    shapes = {new: source.tensors[old].shape for new, old in names.items()} | {
        k: v.shape for k, v in extra.items()
    }
    plan = plan_types(shapes, quantization, config.num_hidden_layers)
    part = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(part, "llama")
    _add_metadata(writer, source, config, name=name, file_type=FILE_TYPES[quantization])
    for tensor, shape in shapes.items():
        _announce(writer, tensor, shape, plan[tensor])
    with _whole_file(writer, part, path):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for index, tensor in enumerate(shapes):
            values = extra[tensor] if tensor in extra else _load(source, names[tensor], config)
            writer.write_tensor_data(_encode(values, plan[tensor], tensor))
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


def permute_rotary(weight_OI: np.ndarray, num_heads: int) -> np.ndarray:
    """Reorder the rows of q or k from Hugging Face's rotary halves to llama.cpp's interleaved pairs.

    Legend: O = heads * head_dim rows (a bias has only these), I = inputs.
    """
    rows = weight_OI.shape[0]
    halves = weight_OI.reshape(num_heads, 2, rows // num_heads // 2, *weight_OI.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight_OI.shape)


def _gguf_names(source: Checkpoint, config: Any) -> dict[str, str]:
    """Return {llama.cpp name: Hugging Face name} in llama.cpp's usual order."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    found: dict[str, str] = {}
    for old in source.tensors:
        if old.endswith("rotary_emb.inv_freq") or (config.tie_word_embeddings and old == "lm_head.weight"):
            continue
        new = table.get_name(old, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise InvalidInputError(
                f"tensor {old!r} is not part of a Llama model",
                hint="Merge the adapter first, or use a plain Llama-architecture model.",
            )
        found[new] = old
    return dict(sorted(found.items(), key=lambda item: _reading_order(item[0])))


def _reading_order(name: str) -> tuple[int, str]:
    parts = name.split(".")
    return (int(parts[1]) if parts[0] == "blk" else (-1 if parts[0] == "token_embd" else 1 << 30), name)


def _rope_factors(config: Any) -> dict[str, np.ndarray]:
    """Return the frequency divisors of Llama 3.1's rotary scaling, as llama.cpp stores them; else nothing."""
    kind = config.rope_parameters.get("rope_type", "default")
    if kind == "default":
        return {}
    if kind != "llama3":
        raise InvalidInputError(
            f"rotary scaling {kind!r} cannot be exported",
            hint="Use a model with rope_type default or llama3.",
        )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device=torch.device("cpu"))
    dim = 2 * scaled.shape[0]
    plain = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return {"rope_freqs.weight": (plain / scaled).numpy()}


def _add_metadata(
    writer: gguf.GGUFWriter, source: Checkpoint, config: Any, *, name: str, file_type: str
) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_size_label(f"{round(source.num_params / 1e6)}M")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head_dim)
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, source, config)


def _add_tokenizer(writer: gguf.GGUFWriter, source: Checkpoint, config: Any) -> None:
    vocabulary = read_vocabulary(source.folder, config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.token_types)
    writer.add_token_merges(vocabulary.merges)
    adders = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
    }
    for role, token_id in vocabulary.special_ids.items():
        adders[role](token_id)
    # The chat template prints the whole prompt; a BOS put before it would be a token that training never saw.
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template((source.folder / "chat_template.jinja").read_text(encoding="utf-8"))


def _announce(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: TensorType) -> None:
    if kind in _NUMPY_TYPES:
        dtype = np.dtype(_NUMPY_TYPES[kind])
        writer.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
        return
    row_bytes = libgguf.row_size(_TYPES[kind], shape[-1])
    byte_shape = (*shape[:-1], row_bytes)
    writer.add_tensor_info(
        name, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), raw_dtype=_TYPES[kind]
    )


def _load(source: Checkpoint, name: str, config: Any) -> np.ndarray:
    with safe_open(source.folder / source.tensors[name].file, framework="pt") as handle:
        values = handle.get_tensor(name).to(torch.float32).numpy()
    if ".q_proj." in name:
        return permute_rotary(values, config.num_attention_heads)
    if ".k_proj." in name:
        return permute_rotary(values, config.num_key_value_heads)
    return values


def _encode(values: np.ndarray, kind: TensorType, name: str) -> np.ndarray:
    if kind != "F32":
        with np.errstate(over="ignore"):  # an overflow becomes inf and is reported below
            values = values.astype(np.float16)
    if not np.isfinite(values).all():
        raise IntegrityError(
            f"tensor {name} has values that a 16-bit float cannot hold",
            hint="Training has diverged or the file is damaged: check the loss curve and train again.",
        )
    if kind in _NUMPY_TYPES:
        return np.ascontiguousarray(values)
    return libgguf.quantize_rows(values.astype(np.float32), _TYPES[kind])
