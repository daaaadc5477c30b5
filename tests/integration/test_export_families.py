# pyright: basic
"""Every family the export knows: a tiny random model of its architecture, converted, served and compared.

No hub is reached, so tokenizer and template are made here in the family's kind: byte-level BPE with its published
pre-tokenizer, or sentencepiece. What is random is the weights; that the engine computes with them what transformers
computes is exactly what a conversion has to get right.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import torch
from tokenizers import Regex, decoders, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaTokenizer,
    LlamaConfig,
    LlamaTokenizer,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from pipeline.export.checkpoint import SUPPORTED_ARCHITECTURES
from pipeline.export.gate import find_subject, run_gate
from pipeline.export.gguf import write_f16_gguf
from pipeline.models.pull import chat_template

pytestmark = pytest.mark.slow
_SHAPE: dict[str, Any] = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "initializer_range": 0.15,
}
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEXT = [
    "Create a task to call Priya on Friday. Which tasks are still open? Thanks, that was quick!",
    "The capital of France, three fruits, one word; number 1234567 jumps over the quick brown fox.",
    "Hello. How can I help? naïve café 🚀 你好 <tool_call> {title: string} \n\n\t two  spaces",
]
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (message['content'] | trim) + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_PHI_TEMPLATE = (
    "{% for message in messages %}{% if message['content'] %}{{ '<|' + message['role'] + '|>\n' + message['content'] "
    "+ '<|end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def _bpe(split: str | None, *, ignore_merges: bool = False) -> Any:
    """Byte-level BPE as in SmolLM2 (no split given), Llama 3 or Qwen."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    first = (
        pre_tokenizers.Split(Regex(split), "isolated")
        if split
        else pre_tokenizers.Digits(individual_digits=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=620,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


def _sentencepiece(folder: Path, kind: Any, specials: list[str], *, dummy_prefix: bool = True) -> Any:
    """A sentencepiece BPE with byte fallback, as in Llama 2, Mistral, Phi-3 and Gemma."""
    (folder / "text").write_text("\n".join(_TEXT * 4), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.Train(
        input=str(folder / "text"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=specials,
        minloglevel=2,
    )
    for leftover in ("text", "tokenizer.vocab"):
        (folder / leftover).unlink()
    roles = {"bos_token": "<s>", "eos_token": specials[-1], "pad_token": "</s>", "unk_token": "<unk>"}
    return kind.from_pretrained(str(folder), add_bos_token=False, legacy=False, **roles)


def _smollm(folder: Path) -> tuple[Any, str]:
    return _bpe(None), chat_template()


def _llama3(folder: Path) -> tuple[Any, str]:
    return _bpe(_WORDS.replace("DIGITS", "{1,3}"), ignore_merges=True), chat_template()


def _qwen(folder: Path) -> tuple[Any, str]:
    return _bpe(_WORDS.replace("DIGITS", "")), chat_template()


def _mistral(folder: Path) -> tuple[Any, str]:
    return _sentencepiece(folder, LlamaTokenizer, ["<|im_start|>", "<|im_end|>"]), chat_template()


def _phi(folder: Path) -> tuple[Any, str]:
    specials = ["<|endoftext|>", "<|user|>", "<|system|>", "<|assistant|>", "<|end|>"]
    tokenizer = _sentencepiece(folder, LlamaTokenizer, specials)
    # As published: white space after these tokens disappears.
    tokenizer.add_tokens([AddedToken(text, rstrip=True, special=True) for text in (*specials[1:], "</s>")])
    return tokenizer, _PHI_TEMPLATE


def _gemma(folder: Path) -> tuple[Any, str]:
    specials = ["<mask>", "<start_of_turn>", "<end_of_turn>"]
    return _sentencepiece(folder, GemmaTokenizer, specials, dummy_prefix=False), _GEMMA_TEMPLATE


_ROPE = {"rope_theta": 500_000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 512}  # fmt: skip
_FAMILIES: dict[str, tuple[Any, Callable[[Path], tuple[Any, str]]]] = {
    "smollm2": (LlamaConfig(**_SHAPE, tie_word_embeddings=True), _smollm),
    "llama3": (LlamaConfig(**_SHAPE, rope_parameters=_ROPE), _llama3),
    "smollm3": (SmolLM3Config(**{**_SHAPE, "num_hidden_layers": 4}), _llama3),
    "mistral": (MistralConfig(**_SHAPE, head_dim=32, sliding_window=None), _mistral),
    "qwen2.5": (Qwen2Config(**_SHAPE), _qwen),
    "qwen3": (Qwen3Config(**_SHAPE, head_dim=32, tie_word_embeddings=True), _qwen),
    "gemma2": (Gemma2Config(**_SHAPE, head_dim=32, sliding_window=1024, query_pre_attn_scalar=32), _gemma),
    "gemma3": (
        Gemma3TextConfig(**_SHAPE, head_dim=32, sliding_window=1024, query_pre_attn_scalar=32),
        _gemma,
    ),
    "phi3": (Phi3Config(**_SHAPE), _phi),
}


@pytest.fixture(params=_FAMILIES)
def family_model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model folder of one family with random weights, all of them away from their initial values."""
    config, make_tokenizer = _FAMILIES[request.param]
    folder = tmp_path / request.param
    folder.mkdir()
    tokenizer, template = make_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for _, parameter in model.named_parameters():  # norms and biases start at 1 and 0, which hides mistakes
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.half().save_pretrained(folder)
    return folder


def test_the_engine_says_what_transformers_says(family_model: Path, tmp_path: Path) -> None:
    write_f16_gguf(family_model, tmp_path / "model.gguf")
    report = run_gate(find_subject(tmp_path / "model.gguf", family_model))
    checks = {check.id.split(":")[0]: check for check in report.checks}
    for name in ("template", "special_ids", "no_added_bos", "served_template", "prompt_text", "prompt_tokens",
                 "greedy_parity", "next_token_logprobs", "streaming"):  # fmt: skip
        print(family_model.name, name, checks[name].passed, checks[name].measured)
    for name in ("template", "special_ids", "no_added_bos", "served_template", "prompt_text", "prompt_tokens",
                 "greedy_parity", "next_token_logprobs", "streaming"):  # fmt: skip
        assert checks[name].passed, checks[name]
    # Random weights never end a turn by themselves, so "stop" is the one thing they must fail.
    assert {check.id for check in report.checks if check.passed is False} <= {"stop"}


def test_each_supported_architecture_is_among_the_families() -> None:
    made = {AutoModelForCausalLM.from_config(config).__class__.__name__ for config, _ in _FAMILIES.values()}
    assert made == set(SUPPORTED_ARCHITECTURES)
