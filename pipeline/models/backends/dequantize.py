# pyright: basic
"""GGUF of a Llama-architecture model -> Hugging Face folder in bfloat16, once.

Reads metadata and tokenizer from the GGUF itself; nothing is fetched. Covers byte-level BPE tokenizers of the SmolLM
kind. Does not handle other architectures: they come as Hugging Face folders.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGUFReader, TokenType
from safetensors.torch import save_file

from pipeline.core.errors import IntegrityError
from pipeline.core.files import write_json

_SHARED = "model.embed_tokens.weight"
# llama.cpp tensor name -> Hugging Face name (gguf-py's tensor map, LlamaForCausalLM block).
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {
    "token_embd.weight": _SHARED,
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def dequantize_gguf(
    source: Path, folder: Path, chat_template: str, on_tensor: Callable[[int, int], None]
) -> None:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer files of a GGUF into ``folder``.

    Raises:
        IntegrityError: If the file is not a complete Llama-architecture GGUF.
    """
    try:
        reader = GGUFReader(source)
    except (ValueError, IndexError, OSError) as error:
        raise IntegrityError(
            f"{source.name} is not a complete GGUF: {error}", hint="Delete it and pull again."
        ) from error
    fields = {key: field.contents() for key, field in reader.fields.items()}
    if fields["general.architecture"] != "llama":
        raise IntegrityError(
            f"architecture {fields['general.architecture']!r} cannot be dequantised",
            hint="Use a Hugging Face folder.",
        )
    tensors: dict[str, torch.Tensor] = {}
    for index, tensor in enumerate(reader.tensors):
        name, values = _convert(tensor, fields)
        tensors[name] = values
        on_tensor(index + 1, len(reader.tensors))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", _config(fields, tied="lm_head.weight" not in tensors))
    _write_tokenizer(fields, folder, chat_template)


def _convert(tensor: Any, fields: dict[str, Any]) -> tuple[str, torch.Tensor]:
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    heads, kv_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    if tensor.name in _TOP_NAMES:
        name = _TOP_NAMES[tensor.name]
    else:
        _, layer, kind, _ = tensor.name.split(".")
        name = f"model.layers.{layer}.{_BLOCK_NAMES[kind]}.weight"
        if kind in {"attn_q", "attn_k"}:
            values = unpermute_rotary(values, heads if kind == "attn_q" else kv_heads)
    return name, torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)


def unpermute_rotary(weight_OI: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo llama.cpp's row order of q and k (pairs interleaved) back to Hugging Face's (halves).

    ``weight_OI`` is [heads * head_dim, inputs]; llama.cpp's converter swaps the axes (2, head_dim / 2) per head.
    """
    rows = weight_OI.shape[0]
    paired = weight_OI.reshape(num_heads, rows // num_heads // 2, 2, *weight_OI.shape[1:])
    return paired.swapaxes(1, 2).reshape(weight_OI.shape)


def _config(fields: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.embedding_length"] // heads,
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 9),
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "rope_theta": fields["llama.rope.freq_base"],
        "vocab_size": fields["llama.vocab_size"],
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _write_tokenizer(fields: dict[str, Any], folder: Path, chat_template: str) -> None:
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    special = [index for index, kind in enumerate(types) if kind == TokenType.CONTROL]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    matching = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": tokens[index], **matching, "special": True} for index in special
        ],
        "normalizer": None,
        # llama.cpp's pre-tokenizer "smollm": every digit alone, then GPT-2's byte-level split.
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    named = {role: tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for role, key in _SPECIAL_ROLES.items()}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": fields["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
            **named,
        },
    )
    write_json(folder / "special_tokens_map.json", named)
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
            "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
            "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        },
    )
    (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


_SPECIAL_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
