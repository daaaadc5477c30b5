import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.export.vocabulary import (
    adds_space_prefix,
    end_token,
    recognise_pre_tokenizer,
    strips_like_phi3,
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


def test_the_end_token_is_the_one_of_tokenizer_config_whatever_its_form(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "</s>"}', encoding="utf-8")
    assert end_token(tmp_path) == "</s>"
    assert end_token(_write(tmp_path, SMOLLM, eos_token={"content": "<|im_end|>"})) == "<|im_end|>"
    with pytest.raises(InvalidInputError, match="names no eos_token"):
        end_token(_write(tmp_path, SMOLLM, eos_token=None))


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "expected"),
    [
        # Llama 2 as first published, its later form, Gemma, and the same without a space at all.
        ({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}, None, True),
        (None, {"type": "Metaspace", "prepend_scheme": "first"}, False),
        ({"type": "Replace"}, {"type": "Split"}, False),
        (None, {"type": "Metaspace", "prepend_scheme": "always"}, True),
        (None, None, False),
    ],
)
def test_a_space_after_special_tokens_is_what_the_tokenizer_says(
    normalizer: Any, pre_tokenizer: Any, expected: bool
) -> None:
    assert adds_space_prefix({"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}) is expected


def test_phi3_is_known_by_its_tokens_and_by_what_they_do_with_white_space() -> None:
    names = ("<s>", "</s>", "<unk>", "<|endoftext|>", "<|end|>")
    added = [{"content": name, "special": True, "rstrip": name == "<|end|>"} for name in names]
    assert strips_like_phi3({"model": {"vocab": {}}, "added_tokens": added})
    assert not strips_like_phi3({"model": {"vocab": {}}, "added_tokens": added[1:]})
    plain = [{**token, "rstrip": False} for token in added]
    assert not strips_like_phi3({"model": {"vocab": {}}, "added_tokens": plain})


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
    assert "tokenizer of the base model" in caught.value.hint
