"""Tokenizer files -> the vocabulary metadata of a GGUF.

Covers byte-level BPE (SmolLM2, Llama 3, Qwen2 kinds). The pre-tokenizer is recognised by what ``tokenizer.json`` says
it does; an unknown one is refused, because llama.cpp's fallback ("default") splits text differently without a word
and the model then reads other tokens than it was trained on.
"""

from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Token types of the GGUF format."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# What a tokenizer does -> llama.cpp's name for it (llama-vocab.cpp). Steps: ("digits", one by one?),
# ("split", pattern), ("bytes", prefix space?, GPT-2 split?); then whether whole words skip the merges.
_PRE_TOKENIZERS: dict[tuple[tuple[tuple[object, ...], ...], bool], str] = {
    ((("digits", True), ("bytes", False, True)), False): "smollm",
    ((("split", _CONTRACTIONS + r"\p{N}{1,3}" + _REST), ("bytes", False, False)), True): "llama-bpe",
    ((("split", _CONTRACTIONS + r"\p{N}" + _REST), ("bytes", False, False)), False): "qwen2",
}
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unk": "unk_token", "pad": "pad_token"}


class Vocabulary(NamedTuple):
    """Everything a GGUF says about the tokenizer."""

    tokens: list[str]
    token_types: list[int]
    merges: list[str]
    pre: str
    """llama.cpp's name of the pre-tokenizer."""
    special_ids: dict[str, int]
    """Token id by role: ``bos eos unk pad``; a role the tokenizer lacks is left out."""


def read_vocabulary(folder: Path, vocab_size: int) -> Vocabulary:
    """Read the tokenizer of a model folder; ids up to ``vocab_size`` without a token become unused ones.

    Raises:
        InvalidInputError: If the tokenizer is not a byte-level BPE whose pre-tokenizer is known.
    """
    tokenizer: dict[str, Any] = read_json(folder / "tokenizer.json")
    pre = recognise_pre_tokenizer(tokenizer)
    added_list: list[dict[str, Any]] = tokenizer.get("added_tokens") or []
    added = {int(item["id"]): item for item in added_list}
    ids: dict[str, int] = tokenizer["model"]["vocab"] | {item["content"]: key for key, item in added.items()}
    by_id = {index: token for token, index in ids.items()}
    if max(by_id) >= vocab_size:
        raise InvalidInputError(
            f"the tokenizer has token id {max(by_id)}, the model only {vocab_size} rows",
            hint="Use the tokenizer the model was trained with.",
        )
    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(vocab_size)]
    types = [_token_type(index, by_id, added) for index in range(vocab_size)]
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    return Vocabulary(tokens, types, merges, pre, _special_ids(folder, ids))


def recognise_pre_tokenizer(tokenizer: dict[str, Any]) -> str:
    """Return llama.cpp's name for what a ``tokenizer.json`` does before the merges.

    Raises:
        InvalidInputError: If it is none of the known kinds.
    """
    model: dict[str, Any] = tokenizer["model"]
    pre: dict[str, Any] = tokenizer.get("pre_tokenizer") or {}
    parts: list[dict[str, Any]] = pre.get("pretokenizers") or [pre]
    steps = tuple(_describe(part) for part in parts)
    name = _PRE_TOKENIZERS.get((steps, bool(model.get("ignore_merges"))))
    normalizing: dict[str, Any] = tokenizer.get("normalizer") or {}
    normalizer = normalizing.get("type")
    normalizer_is_known = normalizer is None or (normalizer == "NFC" and name == "qwen2")
    if model.get("type") != "BPE" or model.get("byte_fallback") or name is None or not normalizer_is_known:
        raise InvalidInputError(
            f"this tokenizer is not known: {model.get('type')}, pre-tokenizer {steps}, normalizer {normalizer}",
            hint="Export knows the tokenizers of SmolLM2, Llama 3 and Qwen2; for another, add its entry to "
            "pipeline/export/vocabulary.py with llama.cpp's name (llama-vocab.cpp) and run the gate.",
            supported=sorted(_PRE_TOKENIZERS.values()),
        )
    return name


def _describe(step: dict[str, Any]) -> tuple[object, ...]:
    match step:
        case {"type": "Digits", "individual_digits": one_by_one}:
            return ("digits", one_by_one)
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}:
            return ("split", pattern)
        case {"type": "ByteLevel", "add_prefix_space": prefix}:
            return ("bytes", prefix, step.get("use_regex", True))
        case _:
            return (step.get("type"),)


def _token_type(index: int, by_id: dict[int, str], added: dict[int, dict[str, Any]]) -> int:
    if index not in by_id:
        return UNUSED
    if index not in added:
        return NORMAL
    return CONTROL if added[index]["special"] else USER_DEFINED


def _special_ids(folder: Path, ids: dict[str, int]) -> dict[str, int]:
    named: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the second wins, as in transformers
        if (folder / file).is_file():
            named |= read_json(folder / file)
    found: dict[str, int] = {}
    for role, key in _ROLES.items():
        text: Any = named.get(key)  # a string, or the whole entry of an added token
        if text is not None:
            found[role] = ids[text if isinstance(text, str) else text["content"]]
    return found
