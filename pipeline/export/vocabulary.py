"""What the tokenizer files of a model folder say, where llama.cpp's converter needs to be told.

The converter knows pre-tokenizers by a fingerprint of whole published tokenizers, which a small or an extended one does
not have. Here one is recognised by what ``tokenizer.json`` does; an unknown one is refused, because llama.cpp's fallback
("default") splits text differently without a word and the model then reads other tokens than it was trained on.
"""

from pathlib import Path
from typing import Any

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# What a tokenizer does -> llama.cpp's name for it (llama-vocab.cpp). Steps: ("digits", one by one?),
# ("split", pattern), ("bytes", prefix space?, GPT-2 split?); then whether whole words skip the merges.
_PRE_TOKENIZERS: dict[tuple[tuple[tuple[object, ...], ...], bool], str] = {
    ((("digits", True), ("bytes", False, True)), False): "smollm",
    ((("split", _CONTRACTIONS + r"\p{N}{1,3}" + _REST), ("bytes", False, False)), True): "llama-bpe",
    ((("split", _CONTRACTIONS + r"\p{N}" + _REST), ("bytes", False, False)), False): "qwen2",
}
_PHI3_TOKENS = {"<s>", "</s>", "<unk>", "<|endoftext|>"}


def adds_space_prefix(tokenizer: dict[str, Any]) -> bool:
    """Tell whether a sentencepiece kind of tokenizer puts a space before text that follows a special token.

    llama.cpp puts it before each such piece of text or before none. A tokenizer that does so at the very start only
    ("first") does it nowhere in a prompt, because prompts start with a special token.
    """
    normalizer: dict[str, Any] = tokenizer.get("normalizer") or {}
    pre: dict[str, Any] = tokenizer.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = [
        *(normalizer.get("normalizers") or [normalizer]),
        *(pre.get("pretokenizers") or [pre]),
    ]
    return any(step.get("type") == "Prepend" or step.get("prepend_scheme") == "always" for step in steps)


def strips_like_phi3(tokenizer: dict[str, Any]) -> bool:
    """Tell whether white space after special tokens disappears, as in Phi-3, whose tokens llama.cpp then asks for."""
    added: list[dict[str, Any]] = tokenizer.get("added_tokens") or []
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    known = vocabulary.keys() | {token["content"] for token in added}
    return known >= _PHI3_TOKENS and any(token["special"] and token["rstrip"] for token in added)


def end_token(folder: Path) -> str:
    """Return the text of the token that ends a turn, as the tokenizer files name it.

    Raises:
        InvalidInputError: If they name none.
    """
    named: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the second wins, as in transformers
        if (folder / file).is_file():
            named |= read_json(folder / file)
    text: Any = named.get("eos_token")  # a string, or the whole entry of an added token
    if text is None:
        raise InvalidInputError(f"{folder} names no eos_token", hint="Name one in tokenizer_config.json.")
    return text if isinstance(text, str) else text["content"]


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
            hint="Use the tokenizer of the base model unchanged; for another kind, add its entry to "
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
