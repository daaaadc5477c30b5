from collections import Counter

import pytest

from pipeline.export.quantization import Quantization, plan_types


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


@pytest.mark.parametrize("quantization", ["q8_0", "q4_k_m"])
def test_a_row_that_no_block_fits_stays_16_bit(quantization: Quantization) -> None:
    shapes = {"blk.0.attn_q.weight": (8, 48), "output.weight": (8, 48)}  # 48 = 32 + 16
    assert plan_types(shapes, quantization, num_layers=1) == dict.fromkeys(shapes, "F16")


def test_q8_0_is_used_for_every_matrix() -> None:
    plan = plan_types(_llama_shapes(1, 64, 96, tied=False), "q8_0", num_layers=1)
    assert {kind for name, kind in plan.items() if "norm" not in name} == {"Q8_0"}
