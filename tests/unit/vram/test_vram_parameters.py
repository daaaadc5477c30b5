"""Parameters and exact weight bytes: published totals, hand arithmetic, and wrong configurations."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.vram.architecture import FAMILIES
from pipeline.vram.inference import cache_bytes
from pipeline.vram.model_config import read_architecture
from pipeline.vram.parameters import VRAM_PARAMETERS
from pipeline.vram.registry import find_architecture, find_gpu, read_packaged
from pipeline.vram.weight_bytes import matrix_bytes, weight_bytes

LLAMA_8B = "meta-llama/Llama-3.1-8B"
TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def count(**values: Any) -> Any:
    return VRAM_PARAMETERS.call(values)


@pytest.mark.parametrize("name", read_packaged("registry.json")["models"])
def test_every_registry_model_has_its_published_number_of_parameters(name: str) -> None:
    entry = read_packaged("registry.json")["models"][name]
    result = count(model=name)
    assert result.num_parameters == entry["num_parameters"]
    assert sum(row.num_parameters for row in result.parts) == result.num_parameters
    assert entry["source"]


def test_a_tiny_model_counts_as_by_hand() -> None:
    # attention 64*64 + 2*32*64 + 64*64, MLP 3*64*128, two norms of 64; ends 2*100*64 and a norm of 64
    layer = 12_288 + 24_576 + 128
    assert count(config=TINY).num_parameters == 2 * layer + 12_800 + 64
    assert count(config={**TINY, "tie_word_embeddings": True}).num_parameters == 2 * layer + 6_400 + 64


def test_a_lora_adapter_counts_as_in_the_course_errata() -> None:
    result = count(model=LLAMA_8B, rank=16)
    # per layer: q and o 8192, k and v 5120, gate, up and down 18432; errata E-08: 84 MB in bf16
    assert result.adapter_parameters == 32 * 16 * (2 * 8192 + 2 * 5120 + 3 * 18432) == 41_943_040
    assert result.adapter_file_bytes_16bit == 83_886_080
    assert count(model=LLAMA_8B, rank=8, target_modules=["q_proj", "v_proj"]).adapter_parameters == 3_407_872


def test_only_the_chosen_experts_are_active() -> None:
    # Mixtral 8x7B: 46.7 billion, of which 12.9 billion are used for a token (arXiv:2401.04088, table 2)
    result = count(model="Mixtral-8x7B-v0.1")
    assert result.num_active_parameters / 1e9 == pytest.approx(12.9, abs=0.05)


def test_names_may_leave_out_the_organisation_and_case() -> None:
    assert find_architecture("llama-3.1-8b").name == LLAMA_8B
    assert find_gpu("NVIDIA GeForce RTX 4090").name == "RTX4090"
    assert find_gpu("A100-SXM4-80GB").name == "A100-80"
    with pytest.raises(InvalidInputError, match="not known"):
        find_gpu("A100")


def test_four_bit_weights_of_qwen_7b_are_those_measured_on_a_gpu() -> None:
    # fitcheck-llm 0.3.1 on a T4: 3111.5 MiB packed, 388.949463 MiB of scales and tables
    model = find_architecture("Qwen2.5-7B")
    linears = weight_bytes(model, "nf4", 2).linears
    packed = sum(linear.num_weights for linear in model.linears) * model.num_layers // 2
    assert packed / 2**20 == 3111.5
    assert (linears - packed) / 2**20 == pytest.approx(388.949463, abs=1e-6)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    # 1000 weights in 10 rows: 16 blocks of 64. NF4: 500 + 16*4 + 64. Double: 500 + 16 + 4 + 1024 + 64 + 4.
    [("none", 2000), ("int8", 1040), ("nf4", 628), ("nf4_dq", 1612)],
)
def test_one_matrix_takes_the_bytes_worked_out_by_hand(quantization: Any, expected: int) -> None:
    assert matrix_bytes(1000, 10, quantization, 2) == expected


def test_an_8b_model_in_four_bits_is_5_7_gb_because_its_ends_stay_in_16() -> None:
    model = find_architecture(LLAMA_8B)
    assert weight_bytes(model, "nf4_dq", 2).total / 1e9 == pytest.approx(5.70, abs=0.005)  # errata E-06
    assert weight_bytes(model, "none", 2).total == 2 * model.num_parameters


def test_the_cache_counts_heads_and_windows() -> None:
    llama = find_architecture(LLAMA_8B)
    assert cache_bytes(llama, 8192, 1, 16) == 2 * 32 * 8 * 128 * 2 * 8192  # 1 GiB
    gemma = find_architecture("gemma-3-1b-pt")  # 26 layers, 22 of them see 512 tokens only
    assert cache_bytes(gemma, 4096, 1, 16) == 2 * 256 * 2 * (4 * 4096 + 22 * 512)
    assert cache_bytes(llama, 8192, 1, 8.5) * 16 == cache_bytes(llama, 8192, 1, 16) * 8.5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": -64}, "hidden_size"),
        ({"hidden_size": 64.0}, "hidden_size"),
        ({"hidden_size": float("nan")}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_attention_heads": 5}, "num_attention_heads|num_key_value_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_hidden_layers": 10**7, "hidden_size": 10**6, "num_attention_heads": 4}, "1,000,000,000,000"),
        ({"model_type": "llama", "num_experts": 4}, "model_type"),
        ({"model_type": "mixtral"}, "num_experts"),
        ({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3}, "num_experts_per_tok"),
        ({"model_type": "martian", "vocab_size": None}, "martian"),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_name_of_its_field(
    change: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named) as caught:
        count(config={**TINY, **change})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "model"),
        ({"model": LLAMA_8B, "config": TINY}, "model"),
        ({"model": "no/such-model"}, "no/such-model"),
        ({"model": LLAMA_8B, "rank": 0}, "rank"),
        ({"model": LLAMA_8B, "rank": 1025}, "rank"),  # key and value projections have 1024 outputs
        ({"model": LLAMA_8B, "target_modules": ["q_proj", "nonsense"]}, "nonsense"),
        ({"model": LLAMA_8B, "target_modules": []}, "target_modules"),
    ],
)
def test_a_wrong_request_is_refused_by_the_name_of_its_field(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        count(**values)


def test_an_unknown_family_with_the_usual_sizes_is_counted_and_said_to_be_a_guess() -> None:
    result = count(config={**TINY, "model_type": "martian"})
    assert result.num_parameters == count(config=TINY).num_parameters
    assert any("martian" in warning for warning in result.warnings)


def test_names_of_fused_modules_are_translated_and_said() -> None:
    result = count(model="Phi-4-mini-instruct", target_modules=["q_proj", "k_proj", "v_proj"])
    assert result.adapter_parameters == 32 * 16 * (3072 + 5120)
    assert any("qkv_proj" in warning for warning in result.warnings)


def test_a_config_file_counts_like_the_registry(workspace: Any) -> None:
    (workspace / "m").mkdir()
    (workspace / "m" / "config.json").write_text(
        '{"model_type": "llama", "text_config": null}', encoding="utf-8"
    )
    with pytest.raises(InvalidInputError, match="hidden_size"):
        count(model="m")
    (workspace / "m" / "config.json").write_text("not json", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="not JSON"):
        count(model="m")


def test_gemma_3_files_that_leave_out_defaults_are_read() -> None:
    # as google/gemma-3-4b-it/config.json has it; the text part has 3,880,263,168 parameters
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    }
    assert count(config={"model_type": "gemma3", "text_config": text}).num_parameters == 3_880_263_168


def test_every_family_reads_back_its_own_linears() -> None:
    for name, family in FAMILIES.items():
        experts = {"num_experts": 2, "num_experts_per_tok": 1} if family.mlp == "experts" else {}
        model = read_architecture({**TINY, "model_type": name, **experts}, name)
        assert [linear.name for linear in model.linears] == list(family.names)[: len(model.linears)]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M"),
        ("unsloth/llama-3-8b-bnb-4bit", "meta-llama/Meta-Llama-3-8B"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-hf"),
        ("google/gemma-3-1b-it", "google/gemma-3-1b-pt"),
    ],
)
def test_a_tuned_or_packed_copy_has_the_shape_of_its_base(name: str, base: str) -> None:
    assert find_architecture(name).num_parameters == find_architecture(base).num_parameters


def test_a_folder_called_like_a_known_model_is_read_not_guessed(tmp_path: Path) -> None:
    config: dict[str, Any] = read_packaged("registry.json")["models"]["HuggingFaceTB/SmolLM2-135M"]["config"]
    folder = tmp_path / "tinyllama-1.1b-chat-v1.0"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert find_architecture(str(folder)).num_parameters == 134_515_008
