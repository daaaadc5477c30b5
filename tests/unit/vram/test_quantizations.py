"""vram.quantizations: sizes against published files and llama.cpp's own tables, number formats of a GPU, bad input."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.vram.gguf_bytes import gguf_bytes
from pipeline.vram.quantizations import VRAM_QUANTIZATIONS, QuantizationRow, VramQuantizationsResult
from pipeline.vram.registry import find_architecture, find_gpu

GB = 10**9


def table(model: str, gpu: str | None = None) -> tuple[VramQuantizationsResult, dict[str, QuantizationRow]]:
    result = VRAM_QUANTIZATIONS.call({"model": model, "gpu": gpu})
    return result, {row.format: row for row in result.formats}


@pytest.mark.parametrize(
    ("file_type", "bits"),
    [("q4_k_m", 4.8944), ("q5_k_m", 5.7036), ("q6_k", 6.5633), ("q8_0", 8.5008), ("f16", 16.0005)],
)
def test_llama_3_1_8b_takes_the_bits_per_weight_that_llama_cpp_publishes(file_type: str, bits: float) -> None:
    """tools/quantize/README.md at ggml-org/llama.cpp@311c2c9, to the fourth decimal."""
    _, rows = table("meta-llama/Llama-3.1-8B")
    assert rows[file_type].bits_per_weight == pytest.approx(bits, abs=1.1e-4)


@pytest.mark.parametrize(
    ("model", "bits"),
    [
        ("meta-llama/Llama-2-7b-hf", {"q4_k_m": 4.84, "q5_k_m": 5.68, "q6_k": 6.56}),
        ("meta-llama/Llama-2-13b-hf", {"q4_k_m": 4.83, "q5_k_m": 5.67, "q6_k": 6.56}),
        ("meta-llama/Llama-2-70b-hf", {"q4_k_m": 4.80, "q5_k_m": 5.65, "q6_k": 6.56}),
    ],
)
def test_llama_2_takes_the_bits_per_weight_that_llama_cpp_publishes(
    model: str, bits: dict[str, float]
) -> None:
    """examples/quantize/README.md at ggml-org/llama.cpp@b8c1476, to the second decimal."""
    _, rows = table(model)
    assert {name: round(rows[name].bits_per_weight, 2) for name in bits} == bits


def test_a_published_file_is_the_tensors_and_the_vocabulary() -> None:
    """Meta-Llama-3-8B-Instruct-bf16.gguf has 16,068,890,912 bytes; its vocabulary of 128,256 tokens a few of them."""
    _, rows = table("meta-llama/Meta-Llama-3-8B")
    assert 16_068_890_912 - rows["f16"].weight_bytes < 64 * 128_256


@pytest.mark.slow
def test_a_file_that_the_export_writes_has_exactly_these_tensor_bytes(starter_gguf: Path) -> None:
    from gguf import GGUFReader

    tensors = GGUFReader(starter_gguf).tensors
    model = find_architecture("HuggingFaceTB/SmolLM2-135M")
    assert gguf_bytes(model, "f16") == sum(int(tensor.n_bytes) for tensor in tensors)


def test_llama_3_1_8b_in_the_formats_of_transformers_and_bitsandbytes() -> None:
    result, rows = table("meta-llama/Llama-3.1-8B")
    assert result.num_parameters == 8_030_261_248
    assert rows["fp32"].weight_bytes == 4 * 8_030_261_248
    assert rows["bf16"].weight_bytes == 2 * 8_030_261_248
    # 6,979,321,856 linear weights at 8 bits + one fp32 scale for each of the 1,376,256 rows; the rest at 16 bits
    rows_of_a_layer = 4096 + 1024 + 1024 + 4096 + 14_336 + 14_336 + 4096
    rest = 2 * (8_030_261_248 - 6_979_321_856)
    assert rows["int8"].weight_bytes == 6_979_321_856 + 32 * rows_of_a_layer * 4 + rest
    assert rows["nf4"].weight_bytes / GB == pytest.approx(6.03, abs=0.005)
    assert rows["nf4_dq"].weight_bytes / GB == pytest.approx(5.70, abs=0.005)
    assert rows["nf4_dq"].share_of_bf16 == pytest.approx(5.702 / 16.061, abs=1e-3)
    assert [row.loads_on_gpu for row in result.formats] == [None] * 10
    assert result.dtype is None


def test_a_t4_computes_in_fp16_and_holds_8b_only_when_it_is_quantised() -> None:
    result, rows = table("meta-llama/Llama-3.1-8B", "T4")
    assert result.dtype is not None
    assert result.dtype.compute_dtype == "fp16"
    assert {name: row.loads_on_gpu for name, row in rows.items() if row.runtime != "llama.cpp"} == {
        "fp32": False, "bf16": False, "int8": True, "nf4": True, "nf4_dq": True,
    }  # fmt: skip
    ampere, _ = table("meta-llama/Llama-3.1-8B", "A100-40")
    assert ampere.dtype is not None
    assert ampere.dtype.compute_dtype == "bf16"


def test_int8_needs_compute_capability_7_5() -> None:
    assert find_gpu("P100-16").compute_capability == "6.0"
    _, rows = table("HuggingFaceTB/SmolLM2-135M", "P100-16")
    assert (rows["int8"].loads_on_gpu, rows["nf4"].loads_on_gpu) == (False, True)


def test_fused_experts_stay_16_bit_in_bitsandbytes_and_the_result_says_so() -> None:
    result, rows = table("Qwen/Qwen3-30B-A3B")
    assert rows["nf4"].share_of_bf16 > 0.9
    assert rows["q4_k_m"].share_of_bf16 < 0.35
    assert any("experts" in warning for warning in result.warnings)


def test_where_llama_cpp_has_other_rules_no_gguf_size_is_made_up() -> None:
    result, rows = table("openai/gpt-oss-20b")
    assert "q4_k_m" not in rows
    assert any("no GGUF sizes" in warning for warning in result.warnings)


def test_a_config_json_counts_like_the_registry(workspace: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    }  # fmt: skip
    (workspace / "mine").mkdir()
    (workspace / "mine" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    expected, _ = table("meta-llama/Llama-3.1-8B")
    for reference in ("mine", "mine/config.json"):
        assert table(reference)[0].formats == expected.formats


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"model": "meta-llama/Llama-9"}, "model: 'meta-llama/Llama-9' is not known"),
        ({"model": "meta-llama/Llama-3.1-8B", "gpu": "T5"}, "gpu: 'T5' is not known"),
        ({"model": ""}, "model: String should have at least 1 character"),
        ({"model": "broken.json"}, "is not JSON"),
        ({"model": "list.json"}, "is not a JSON object"),
        ({"model": "zero.json"}, "config.hidden_size: 0 is not an integer from 1"),
    ],
)
def test_bad_input_names_the_field(workspace: Path, values: dict[str, Any], problem: str) -> None:
    (workspace / "broken.json").write_text("{", encoding="utf-8")
    (workspace / "list.json").write_text("[]", encoding="utf-8")
    zero = {"hidden_size": 0, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 1}
    (workspace / "zero.json").write_text(json.dumps(zero), encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        VRAM_QUANTIZATIONS.call(values)
    assert problem in str(caught.value)
    assert caught.value.hint
