"""GGUF types by llama.cpp's policy, and the bytes they take."""

from collections import Counter

import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from pipeline.core.gguf_types import FileType, TensorType, plan_types, tensor_bytes


def _llama_shapes(num_layers: int, hidden: int, inner: int, *, tied: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (1000, hidden),
        "output_norm.weight": (hidden,),
    }
    if not tied:
        shapes["output.weight"] = (1000, hidden)
    for layer in range(num_layers):
        block = f"blk.{layer}."
        shapes |= {f"{block}{name}_norm.weight": (hidden,) for name in ("attn", "ffn")}
        shapes |= {f"{block}attn_{name}.weight": (hidden, hidden) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_{name}.weight": (inner, hidden) for name in ("gate", "up")}
        shapes[f"{block}ffn_down.weight"] = (hidden, inner)
    return shapes


def test_norms_stay_32_bit_and_f16_keeps_every_matrix_at_16() -> None:
    plan = plan_types(_llama_shapes(2, 64, 128, tied=True), "f16", num_layers=2)
    assert {name: kind for name, kind in plan.items() if "norm" in name} == {
        name: "F32" for name in plan if "norm" in name
    }
    assert {kind for name, kind in plan.items() if "norm" not in name} == {"F16"}


def test_smollm2_135m_in_q4_k_m_falls_back_where_576_columns_do_not_fit_a_block_of_256() -> None:
    # 30 layers: more bits in layers 0-2, 26-29 and where (layer - 3) % 3 == 2 (5, 8 ... 23): 3 + 4 + 7 = 14.
    # ffn_down has 1536 = 6 x 256 columns and keeps its K type; everything else has 576 and falls back.
    plan = plan_types(_llama_shapes(30, 576, 1536, tied=True), "q4_k_m", num_layers=30)
    kinds = Counter((name.split(".")[-2], kind) for name, kind in plan.items())
    assert kinds["ffn_down", "Q6_K"] == 14
    assert kinds["ffn_down", "Q4_K"] == 16
    assert kinds["attn_v", "Q8_0"] == 14
    assert kinds["attn_v", "Q5_0"] == 16
    assert kinds["attn_q", "Q5_0"] == kinds["ffn_up", "Q5_0"] == 30
    assert plan["token_embd.weight"] == "Q8_0"
    # llama.cpp's own q4_k_m of this model reports 180 of 272 tensors as fallen back (notes/serving.md).
    assert (
        sum(
            kinds[name, kind]
            for name, kind in kinds
            if name not in {"ffn_down", "token_embd"} and kind != "F32"
        )
        == 180
    )


def test_a_model_whose_rows_fit_gets_k_types_and_a_finer_output_matrix() -> None:
    plan = plan_types(_llama_shapes(8, 512, 1024, tied=False), "q4_k_m", num_layers=8)
    assert plan["output.weight"] == "Q6_K"
    assert plan["token_embd.weight"] == "Q4_K"
    # 8 layers: first eighth is layer 0, last eighth layer 7, and (layer - 1) % 3 == 2 gives 3 and 6.
    finer = [layer for layer in range(8) if plan[f"blk.{layer}.attn_v.weight"] == "Q6_K"]
    assert finer == [0, 3, 6, 7]


def test_a_tied_embedding_is_quantised_like_an_output_matrix() -> None:
    assert plan_types(_llama_shapes(2, 512, 512, tied=True), "q4_k_m", 2)["token_embd.weight"] == "Q6_K"


@pytest.mark.parametrize("quantization", ["q8_0", "q6_k", "q5_k_m", "q4_k_m"])
def test_a_row_that_no_block_fits_stays_16_bit(quantization: FileType) -> None:
    shapes = {"blk.0.attn_q.weight": (8, 48), "output.weight": (8, 48)}  # 48 = 32 + 16
    assert plan_types(shapes, quantization, num_layers=1) == dict.fromkeys(shapes, "F16")


def test_q8_0_is_used_for_every_matrix() -> None:
    plan = plan_types(_llama_shapes(1, 64, 96, tied=False), "q8_0", num_layers=1)
    assert {kind for name, kind in plan.items() if "norm" not in name} == {"Q8_0"}


def test_q5_k_m_mixes_like_q4_k_m_one_step_up_and_q6_k_does_not_mix() -> None:
    shapes = _llama_shapes(8, 512, 1024, tied=False)
    five, six = plan_types(shapes, "q5_k_m", 8), plan_types(shapes, "q6_k", 8)
    assert [layer for layer in range(8) if five[f"blk.{layer}.ffn_down.weight"] == "Q6_K"] == [0, 3, 6, 7]
    assert five["blk.1.ffn_down.weight"] == five["blk.0.attn_q.weight"] == "Q5_K"
    assert {kind for name, kind in six.items() if "norm" not in name} == {"Q6_K"}


def test_q5_k_m_falls_back_to_q5_1_where_a_block_does_not_fit() -> None:
    plan = plan_types({"blk.0.attn_q.weight": (8, 96), "output.weight": (8, 96)}, "q5_k_m", 1)
    assert plan == {"blk.0.attn_q.weight": "Q5_1", "output.weight": "Q8_0"}


def test_values_of_80_layers_and_attention_of_8_experts_get_more_bits() -> None:
    names = [
        f"blk.20.{name}.weight"
        for name in ("attn_v", "attn_k", "attn_output", "ffn_down_exps", "ffn_gate_inp")
    ]
    shapes = dict.fromkeys(names, (256, 256))
    # (20 - 10) % 3 == 1, so layer 20 of 80 is not one of those with more bits; (20 - 4) % 3 == 1 in 32 layers.
    assert list(plan_types(shapes, "q4_k_m", 80).values()) == ["Q5_K", "Q4_K", "Q4_K", "Q4_K", "F32"]
    assert list(plan_types(shapes, "q4_k_m", 32, 8).values()) == ["Q8_0", "Q8_0", "Q5_K", "Q4_K", "F32"]


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_blocks_have_the_sizes_of_the_gguf_package(kind: TensorType) -> None:
    block_values, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    assert tensor_bytes((3, 512), kind) == 3 * 512 // block_values * block_bytes
