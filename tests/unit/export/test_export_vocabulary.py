import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.export.vocabulary import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    read_vocabulary,
    recognise_pre_tokenizer,
)

SMOLLM: dict[str, Any] = {
    "added_tokens": [
        {"id": 0, "content": "<|im_start|>", "special": True},
        {"id": 1, "content": "<|im_end|>", "special": True},
        {"id": 4, "content": "<think>", "special": False},
    ],
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    },
    "model": {"type": "BPE", "byte_fallback": False, "vocab": {"a": 2, "Ġa": 3}, "merges": [["Ġ", "a"]]},
}
# As published in tokenizer.json of Qwen2.5 and Llama 3 (the pattern differs in how many digits go together).
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split_tokenizer(digits: str, *, ignore_merges: bool, normalizer: str | None) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": _SPLIT.replace("DIGITS", digits)}, "behavior": "Isolated"}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = copy.deepcopy(SMOLLM)
    tokenizer["pre_tokenizer"]["pretokenizers"] = [split, byte_level]
    tokenizer["model"]["ignore_merges"] = ignore_merges
    tokenizer["normalizer"] = {"type": normalizer} if normalizer else None
    return tokenizer


def _write(folder: Path, tokenizer: dict[str, Any], **named: object) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    return folder


def test_tokens_types_merges_and_special_ids_come_from_the_tokenizer_files(tmp_path: Path) -> None:
    _write(tmp_path, SMOLLM, eos_token="<|im_end|>", bos_token={"content": "<|im_start|>"}, pad_token=None)
    vocabulary = read_vocabulary(tmp_path, 6)
    assert vocabulary.tokens == ["<|im_start|>", "<|im_end|>", "a", "Ġa", "<think>", "[PAD5]"]
    assert vocabulary.token_types == [CONTROL, CONTROL, NORMAL, NORMAL, USER_DEFINED, UNUSED]
    assert vocabulary.merges == ["Ġ a"]
    assert vocabulary.special_ids == {"bos": 0, "eos": 1}


def test_known_pre_tokenizers_get_the_name_of_llama_cpp() -> None:
    assert recognise_pre_tokenizer(SMOLLM) == "smollm"
    llama = _split_tokenizer("{1,3}", ignore_merges=True, normalizer=None)
    assert recognise_pre_tokenizer(llama) == "llama-bpe"
    assert recognise_pre_tokenizer(_split_tokenizer("", ignore_merges=False, normalizer="NFC")) == "qwen2"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("pre_tokenizer", "pretokenizers", 0, "individual_digits"), False),
        (("pre_tokenizer", "pretokenizers", 1, "add_prefix_space"), True),
        (("pre_tokenizer",), None),
        (("normalizer",), {"type": "NFKC"}),
        (("model", "type"), "Unigram"),
        (("model", "byte_fallback"), True),
        (("model", "ignore_merges"), True),
    ],
)
def test_a_tokenizer_that_differs_in_one_step_is_refused_instead_of_guessed(
    path: tuple[Any, ...], value: object
) -> None:
    tokenizer = copy.deepcopy(SMOLLM)
    place: Any = tokenizer
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InvalidInputError, match="not known") as caught:
        recognise_pre_tokenizer(tokenizer)
    assert "SmolLM2, Llama 3 and Qwen2" in caught.value.hint


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="token id 4, the model only 4 rows"):
        read_vocabulary(_write(tmp_path, SMOLLM), 4)
