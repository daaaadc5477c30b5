"""Chapter 62: numbers computed again; plausible ones from the course plan's tables do not pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.inspect_file import DATA_INSPECT
from pipeline.lessons.check import LessonCheckResult
from pipeline.vram.estimate import VRAM_ESTIMATE
from pipeline.vram.quantizations import VRAM_QUANTIZATIONS

Write = Callable[[str, Any], Path]
Verdict = Callable[[str], LessonCheckResult]
LLAMA_8B = "meta-llama/Meta-Llama-3-8B"
# Counted by hand from the configuration: vocabulary 128,256, hidden 4,096, 32 layers, feed-forward 14,336, 8 KV heads.
PARTS = {
    "embedding": 128_256 * 4096,
    "attention": 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024),
    "feed_forward": 32 * 3 * 4096 * 14_336,
    "norms": 65 * 4096,
    "head": 128_256 * 4096,
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def unmet(result: LessonCheckResult) -> list[str]:
    return [criterion.name for criterion in result.criteria if not criterion.is_met]


def test_62_1_the_card_is_the_models(write: Write, check: Verdict) -> None:
    card = {
        "model": LLAMA_8B,
        "num_layers": 32,
        "hidden_size": 4096,
        "num_parameters": 8_030_261_248,
        "target_modules": TARGETS,
        "parts": PARTS,
    }
    write("62.1/architecture.json", card)
    assert check("62.1").passed
    write("62.1/architecture.json", {**card, "num_parameters": 8_000_000_000})
    assert unmet(check("62.1")) == ["num_parameters is what the facts give"]
    write("62.1/architecture.json", {**card, "target_modules": ["up_proj", "down_proj"]})
    assert not check("62.1").passed


@pytest.mark.slow
def test_62_2_tokens_are_the_tokenizers(
    write: Write, check: Verdict, starter_model: Path, workspace: Path
) -> None:
    (workspace / "models").mkdir()
    (workspace / "models" / "smollm2-135m").symlink_to(starter_model)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Add task {i}"},
                {"role": "assistant", "content": "Added."},
            ]
        }
        for i in range(10)
    ]
    path = write("62.2/rows.jsonl", rows)
    report = DATA_INSPECT.call({"file": str(path), "model": "smollm2-135m"}).model_dump(mode="json")
    write("62.2/token_report.json", report)
    assert check("62.2").passed
    words = {**report, "lengths": {**report["lengths"], "total": 10 * 4}}
    write("62.2/token_report.json", words)
    assert unmet(check("62.2")) == ["total is what the facts give"]


def test_62_3_sizes_are_counted(write: Write, check: Verdict) -> None:
    def row(model: str, count: int, **more: Any) -> dict[str, Any]:
        return {"model": model, "num_parameters": count, "bf16_bytes": 2 * count, **more}

    rows = [
        row(LLAMA_8B, 8_030_261_248, parts=PARTS),
        row("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        row("meta-llama/Llama-3.1-70B", 70_553_706_496),
    ]
    write("62.3/sizes.json", rows)
    assert check("62.3").passed, check("62.3")
    write("62.3/sizes.json", [row(LLAMA_8B, 8_000_000_000, parts=PARTS), *rows[1:]])
    assert f"{LLAMA_8B}: parameters and bytes" in unmet(check("62.3"))
    write("62.3/sizes.json", [row(LLAMA_8B, 8_030_261_248), *rows[1:]])
    assert unmet(check("62.3")) == ["one row carries the sum that gives its number"]


PLAN = {
    "model": LLAMA_8B,
    "method": "qlora",
    "gpu": "T4",
    "max_length": 512,
    "micro_batch_size": 1,
    "gradient_checkpointing": "standard",
}


def test_62_4_the_plan_is_the_estimates(write: Write, check: Verdict) -> None:
    write("62.4/compute_request.json", PLAN)
    plan = VRAM_ESTIMATE.call(PLAN).model_dump(mode="json")
    assert plan["fits"] is True
    write("62.4/compute_plan.json", plan)
    assert check("62.4").passed
    too_long = {**PLAN, "max_length": 8192, "micro_batch_size": 8}
    write("62.4/compute_request.json", too_long)
    write("62.4/compute_plan.json", {**VRAM_ESTIMATE.call(too_long).model_dump(mode="json"), "fits": True})
    assert unmet(check("62.4")) == ["fits is what the facts give", "the plan fits"]


def test_62_5_the_configuration_suits_the_gpu(write: Write, check: Verdict) -> None:
    sizes = VRAM_QUANTIZATIONS.call({"model": LLAMA_8B, "gpu": "T4"}).model_dump(mode="json")
    config = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "float16",
    }
    write("62.5/quantizations.json", {**sizes, "gpu": "T4"})
    write("62.5/quantization_config.json", config)
    assert check("62.5").passed
    write("62.5/quantization_config.json", {**config, "bnb_4bit_compute_dtype": "bfloat16"})
    assert unmet(check("62.5")) == ["it computes in float16 on T4"]
    write("62.5/quantization_config.json", config)
    formats = [
        {**row, "weight_bytes": 4_000_000_000} if row["format"] == "nf4" else row for row in sizes["formats"]
    ]
    write("62.5/quantizations.json", {**sizes, "gpu": "T4", "formats": formats})
    assert unmet(check("62.5")) == ["formats is what the facts give"]


def test_62_6_memory_is_saved_without_changing_what_is_learned(write: Write, check: Verdict) -> None:
    before = {"model": LLAMA_8B, "method": "qlora", "gpu": "T4", "max_length": 2048, "micro_batch_size": 8}
    after = {
        **before,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "gradient_checkpointing": "standard",
    }
    write("62.6/before.json", before)
    write("62.6/after.json", after)
    assert check("62.6").passed, unmet(check("62.6"))
    write("62.6/after.json", {**after, "gradient_accumulation_steps": 1})
    assert unmet(check("62.6")) == ["the global batch is the same"]
    write("62.6/after.json", {**after, "model": "meta-llama/Llama-3.2-1B"})
    assert unmet(check("62.6")) == ["model and GPU are the same"]


def test_62_7_a_bench_is_of_a_run_that_happened(write: Write, check: Verdict, finished_run: Any) -> None:
    latency = {"p50_ms": 640.0, "p95_ms": 730.0}
    run = finished_run("evals.run", {"num_cases": 10, "latency": latency})
    request = {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "task": "inference", "gguf": "q8_0"}
    write("62.7/memory_request.json", request)
    predicted = VRAM_ESTIMATE.call(request).model_dump(mode="json")["process_bytes"]
    bench = {"eval_run": run.id, "latency": latency, "process_bytes": predicted}
    write("62.7/bench.json", bench)
    assert check("62.7").passed, unmet(check("62.7"))
    write("62.7/bench.json", {**bench, "latency": {"p50_ms": 200.0, "p95_ms": 400.0}})
    assert unmet(check("62.7")) == ["the latency stated is the measured one"]
    other = finished_run("data.preview", {"num_cases": 10, "latency": latency})
    write("62.7/bench.json", {**bench, "eval_run": other.id})
    assert not check("62.7").passed
