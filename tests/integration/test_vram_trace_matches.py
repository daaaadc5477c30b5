# pyright: basic
"""The arithmetic of `vram estimate` against the real modules: traces on fake tensors, bitsandbytes, the meta device."""

from typing import Any

import pytest
import torch
import transformers

from pipeline.vram.backends.fake_trace import Trace, TraceJob, run_trace
from pipeline.vram.fields import Fields
from pipeline.vram.model_config import read_architecture
from pipeline.vram.plan import Plan, make_plan
from pipeline.vram.registry import read_packaged
from pipeline.vram.trace_training import VRAM_TRACE
from pipeline.vram.training import measure_training
from pipeline.vram.weight_bytes import matrix_bytes

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", "tie_word_embeddings": False, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "phi3": {"model_type": "phi3", "tie_word_embeddings": False, "num_key_value_heads": 8},
    "gemma": {"model_type": "gemma"},
    "gemma2": {"model_type": "gemma2", "sliding_window": 4096},
    "gemma3_text": {"model_type": "gemma3_text", "sliding_window": 4096},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"method": "full", "stack": "peft"},
    "full, checkpoints": {"method": "full", "stack": "peft", "gradient_checkpointing": "standard"},
    "bf16 adapters": {"stack": "peft", "adapter_dtype": "bf16"},
    "fp32 adapters": {"stack": "peft"},
    "autocast": {"stack": "trainer"},
    "autocast, checkpoints": {"stack": "trainer", "gradient_checkpointing": "standard"},
    "eager": {"stack": "peft", "attention": "eager", "adapter_dtype": "bf16"},
}
BATCH, LENGTH, RANK = 2, 192, 8


def make_pair(family: str, setting: str) -> tuple[Plan, Trace]:
    """The plan of an estimate and the trace of the same thing."""
    config = {**SIZES, **FAMILIES[family]}
    values = {"gradient_checkpointing": "none", "dtype": "bf16", **SETTINGS[setting]}
    if family == "gemma2":
        values["attention"] = "eager"  # its capped scores exist in eager attention only
    fields = Fields(
        config=config, rank=RANK, max_length=LENGTH, micro_batch_size=BATCH, loss="standard", **values
    )
    model = read_architecture(config, family)
    plan = make_plan(fields, model, None)
    recipe = plan.recipe._replace(keeps_outputs=False)  # the trace drops them, as a trainer does
    trace = run_trace(
        TraceJob(
            config=config,
            batch=BATCH,
            length=LENGTH,
            dtype="bf16",
            attention="eager" if recipe.attention == "eager" else "sdpa",
            checkpointing=plan.checkpointing != "none",
            targets=recipe.target_names,
            rank=RANK,
            adapter_dtype="fp32" if recipe.adapter_bytes == 4 else "bf16",
            autocast=recipe.is_autocast,
        )
    )
    return plan._replace(recipe=recipe), trace


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_arithmetic_counts_what_the_real_modules_keep(family: str, setting: str) -> None:
    plan, trace = make_pair(family, setting)
    training = measure_training(plan)
    base = training.resident_total - training.resident["inputs"]
    assert training.num_trainable == trace.num_trainable
    assert training.weights.total + training.resident["adapters"] == trace.weight_bytes
    if plan.checkpointing == "none":
        rotary = 2 * 2 * LENGTH * SIZES["head_dim"]
        assert training.saved + rotary == pytest.approx(trace.saved_bytes, abs=8)  # the loss and a count
    backward = max(training.moments[1:4]) - base
    if plan.recipe.attention != "eager":  # CUDA's softmax has a temporary that the CPU's has not
        assert backward == pytest.approx(trace.backward_peak_bytes, rel=0.02)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    "shape", [(64, 64), (1, 1), (3, 5), (127, 129), (1000, 333), (2048, 512), (4096, 1024), (11008, 64)]
)
def test_four_bit_weights_take_the_bytes_that_bitsandbytes_takes(
    shape: tuple[int, int], double: bool
) -> None:
    from bitsandbytes import functional

    quantized: Any = functional.quantize_4bit(
        torch.randn(shape, dtype=torch.bfloat16), quant_type="nf4", compress_statistics=double
    )
    packed, state = quantized
    parts = [packed, state.absmax, state.code]
    if double:
        parts += [state.state2.absmax, state.state2.code, state.offset]
    found = sum(part.numel() * part.element_size() for part in parts)
    assert matrix_bytes(shape[0] * shape[1], shape[0], "nf4_dq" if double else "nf4", 2) == found


@pytest.mark.parametrize("name", read_packaged("registry.json")["models"])
def test_every_registry_model_has_the_parameters_and_linears_of_the_real_one(name: str) -> None:
    config: dict[str, Any] = dict(read_packaged("registry.json")["models"][name]["config"])
    model = read_architecture(config, name)
    settings = {key: value for key, value in config.items() if key != "model_type"}
    real_config = transformers.AutoConfig.for_model(model.model_type, pad_token_id=0, **settings)
    with torch.device("meta"):
        real = transformers.AutoModelForCausalLM.from_config(real_config, dtype=torch.bfloat16)
    assert model.num_parameters == real.num_parameters()
    layer = real.model.layers[0]
    linears = {
        path.rpartition(".")[2]: (module.out_features, module.in_features)
        for path, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert {linear.name: (linear.out_features, linear.in_features) for linear in model.linears} == linears


def test_the_operation_traces_a_model_the_estimate_does_not_know() -> None:
    config = {**SIZES, "model_type": "stablelm"}
    result = VRAM_TRACE.call({"config": config, "max_length": 64, "target_modules": ["q_proj", "v_proj"]})
    assert result.num_trainable_parameters == 3 * 16 * ((256 + 256) + (256 + 64))
    assert result.peak_bytes > result.weight_bytes
