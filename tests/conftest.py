"""Shared fixtures: real weights, a workspace of its own for every test, and no stray network."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings

from pipeline.models.pull import verify_folder

REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault; benchmarks/ measures speed
settings.load_profile("untimed")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace that this test alone uses."""
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """models/smollm2-135m of this checkout, pulled once and then reused."""
    folder = REPOSITORY / "models" / "smollm2-135m"
    if not verify_folder(folder):
        subprocess.run(
            [sys.executable, "-m", "pipeline", "models", "pull", "smollm2-135m"],
            check=True,
            env={**os.environ, "LLMOPS_WORKSPACE": str(REPOSITORY)},
        )
    return folder


@pytest.fixture(scope="session")
def starter_gguf(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untuned starter as GGUF f16 with our chat template inside."""
    from pipeline.export.gguf import write_f16_gguf

    path = tmp_path_factory.mktemp("gguf") / "starter-f16.gguf"
    write_f16_gguf(starter_model, path)
    return path


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    """A function: chat template -> tokenizer with one token a byte, so that every position can be trained or not."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def make(template: str) -> Any:
        alphabet: list[str] = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer: Any = Tokenizer(
            models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[])
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        headers = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        fast: Any = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<|begin_of_text|>",
            eos_token="<|im_end|>",
            additional_special_tokens=["<|im_start|>", *headers],
        )
        fast.chat_template = template
        return fast

    return make


@pytest.fixture
def tiny_model(workspace: Path, starter_model: Path) -> Path:
    """models/tiny of the test's workspace: two random layers behind the starter's tokenizer and template."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = workspace / "models" / "tiny"
    folder.mkdir(parents=True)
    torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType] - torch's own signature is partial
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = cast("Any", AutoModelForCausalLM).from_config(config)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (folder / name).write_bytes((starter_model / name).read_bytes())
    return folder
