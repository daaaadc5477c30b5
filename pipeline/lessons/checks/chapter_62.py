"""Checks of chapter 62, LLM Architecture and Compute Reality: every number is computed again."""

from typing import Any, cast

from pipeline.data.inspect_file import DATA_INSPECT
from pipeline.lessons.checks.computed import (
    find_run,
    is_close,
    read_list,
    recompute,
    require_same,
    require_skill,
)
from pipeline.lessons.work import Work
from pipeline.vram.dtype_advice import advise_gpu
from pipeline.vram.estimate import VRAM_ESTIMATE
from pipeline.vram.parameters import VRAM_PARAMETERS
from pipeline.vram.quantizations import VRAM_QUANTIZATIONS
from pipeline.vram.registry import find_architecture, find_gpu

_MIN_MODELS = 3
_MIN_LAB_CASES = 10


def check_62_1(work: Work) -> None:
    """The card's numbers are the model's, and the LoRA targets are its linear modules."""
    step = "llmops vram parameters --model meta-llama/Llama-3.2-1B --rank 16"
    card = work.read_json("architecture.json", next_step=f"Fill the card from {step}.")
    expected = work.call(VRAM_PARAMETERS, {"model": str(card.get("model", ""))}, next_step=step).model_dump(
        mode="json"
    )
    parts = {part["part"]: part["num_parameters"] for part in expected["parts"]}
    require_same(
        work,
        card,
        {
            "num_parameters": expected["num_parameters"],
            "target_modules": expected["linear_modules"],
            "parts": parts,
        },
        ("num_parameters", "target_modules", "parts"),
        next_step=step,
    )
    model = find_architecture(str(card["model"]))
    require_same(
        work,
        card,
        {"num_layers": model.num_layers, "hidden_size": model.hidden_size},
        ("num_layers", "hidden_size"),
        next_step="Read them in the model's config.json, or in the registry.",
    )


def check_62_2(work: Work) -> None:
    """The token report is what the tokenizer gives for the learner's own rows."""
    step = "llmops data inspect learning/62.2/rows.jsonl --model smollm2-135m"
    rows = work.path("rows.jsonl", next_step="Write ten rows of your own there.")
    report = work.read_json("token_report.json", next_step=f"{step} --json > learning/62.2/token_report.json")
    model = str(report.get("lengths", {}).get("tokenizer") or "smollm2-135m")
    fresh = work.call(DATA_INSPECT, {"file": str(rows), "model": "smollm2-135m"}, next_step=step).model_dump(
        mode="json"
    )
    work.require(
        "the rows are usable",
        fresh["num_rows"] >= 10 and fresh["num_invalid"] == 0,
        reason=f"{fresh['num_rows']} rows, {fresh['num_invalid']} invalid",
        next_step="llmops data validate learning/62.2/rows.jsonl",
    )
    names = ("total", "shortest", "median", "longest", "histogram")
    require_same(
        work, report.get("lengths") or {}, fresh["lengths"] or {}, names, next_step=f"{step} ({model})"
    )


def check_62_3(work: Work) -> None:
    """Three models counted, one of them by hand, and the sizes that follow."""
    step = "llmops vram parameters --model MODEL"
    table = read_list(
        work,
        work.path("sizes.json", next_step=f"A list of {{model, num_parameters, bf16_bytes}}: {step}"),
        next_step=step,
    )
    for row in table:
        counted = work.call(VRAM_PARAMETERS, {"model": str(row.get("model", ""))}, next_step=step).model_dump(
            mode="json"
        )
        expected = {"num_parameters": counted["num_parameters"], "bf16_bytes": 2 * counted["num_parameters"]}
        work.require(
            f"{row.get('model')}: parameters and bytes",
            all(row.get(key) == value for key, value in expected.items()),
            reason=f"computed {expected}",
            next_step=step,
        )
    work.require(
        f"{_MIN_MODELS} different models",
        len({row.get("model") for row in table}) >= _MIN_MODELS,
        reason=f"{len(table)} rows",
        next_step="Add a small, a middle and a large one.",
    )
    by_hand = [row for row in table if _sum_of_parts(row) == row.get("num_parameters")]
    work.require(
        "one row carries the sum that gives its number",
        by_hand,
        reason=f"{len(by_hand)} rows whose `parts` add up",
        next_step="Add parts {embedding, attention, feed_forward, norms, head} that sum to num_parameters.",
    )


def _sum_of_parts(row: dict[str, Any]) -> int:
    parts = row.get("parts")
    values = list(cast("dict[str, Any]", parts).values()) if isinstance(parts, dict) else []
    return sum(value for value in values if isinstance(value, int)) if len(values) >= 4 else -1


def check_62_4(work: Work) -> None:
    """The plan is what the estimate gives, for a GPU that the learner named, and it fits."""
    step = "llmops vram estimate --request learning/62.4/compute_request.json --json > learning/62.4/compute_plan.json"
    request, expected = recompute(
        work, VRAM_ESTIMATE, "compute_request.json", next_step="Write model, gpu, method there."
    )
    work.require(
        "a GPU is named",
        request.get("gpu"),
        reason=f"gpu {request.get('gpu')!r}",
        next_step="Set gpu, such as T4.",
    )
    names = ("allocated_bytes", "reserved_bytes", "components", "peak_phase", "fits")
    require_same(work, work.read_json("compute_plan.json", next_step=step), expected, names, next_step=step)
    work.require(
        "the plan fits",
        expected["fits"] is True,
        reason=f"usable {expected['usable_bytes']}, reserved {expected['reserved_bytes']}",
        next_step="Apply the first `advice` and plan again.",
    )


def check_62_5(work: Work) -> None:
    """Sizes per format are exact, and the 4-bit configuration runs on the GPU named."""
    step = "llmops vram quantizations MODEL --gpu T4"
    report = work.read_json(
        "quantizations.json", next_step=f"{step} --json > learning/62.5/quantizations.json"
    )
    gpu = str(report.get("gpu") or "T4")
    request = {"model": str(report.get("model", "")), "gpu": gpu}
    expected = work.call(VRAM_QUANTIZATIONS, request, next_step=step).model_dump(mode="json")
    require_same(work, report, expected, ("num_parameters", "formats", "dtype"), next_step=step)
    config = work.read_json("quantization_config.json", next_step="Write the BitsAndBytesConfig as JSON.")
    advice = advise_gpu(gpu, find_gpu(gpu).compute_capability)
    wanted = "bfloat16" if advice.compute_dtype == "bf16" else "float16"
    work.require(
        "the base is loaded in 4 bits with double quantisation",
        config.get("load_in_4bit") is True
        and config.get("bnb_4bit_quant_type") == "nf4"
        and config.get("bnb_4bit_use_double_quant") is True,
        reason=str({key: config.get(key) for key in ("load_in_4bit", "bnb_4bit_quant_type")}),
        next_step="FR-005: 4-bit NF4 with double quantisation.",
    )
    work.require(
        f"it computes in {wanted} on {gpu}",
        config.get("bnb_4bit_compute_dtype") == wanted,
        reason=f"bnb_4bit_compute_dtype {config.get('bnb_4bit_compute_dtype')!r}",
        next_step="A T4 has no bfloat16; newer GPUs do.",
    )


def check_62_6(work: Work) -> None:
    """A plan that does not fit becomes one that does, at the same global batch."""
    step = "llmops vram estimate --request FILE"
    before, first = recompute(
        work, VRAM_ESTIMATE, "before.json", next_step="Write a request that does not fit."
    )
    after, second = recompute(
        work, VRAM_ESTIMATE, "after.json", next_step="Write the same one after the ladder."
    )
    work.require(
        "it did not fit before", first["fits"] is False, reason=f"fits: {first['fits']}", next_step=step
    )
    work.require(
        "it fits now", second["fits"] is True, reason=f"fits: {second['fits']}", next_step="Follow `advice`."
    )
    same = ("model", "gpu")
    work.require(
        "model and GPU are the same",
        all(before.get(name) == after.get(name) for name in same),
        reason=str([(before.get(name), after.get(name)) for name in same]),
        next_step="Only memory settings may change.",
    )
    batches = [_global_batch(request) for request in (before, after)]
    work.require(
        "the global batch is the same",
        batches[0] == batches[1],
        reason=f"micro batch x accumulation: {batches[0]} before, {batches[1]} after",
        next_step="Lower micro_batch_size and raise gradient_accumulation_steps.",
    )


def _global_batch(request: dict[str, Any]) -> int:
    return int(request.get("micro_batch_size", 1)) * int(request.get("gradient_accumulation_steps", 1))


def check_62_7(work: Work) -> None:
    """A quantised model was really served and measured; the numbers in the bench are the run's."""
    step = "llmops evals run --cases runs/data/test.jsonl --serve models/task-agent --limit 10"
    bench = work.read_json("bench.json", next_step=f"Measure: {step}")
    _, result = find_run(work, bench.get("eval_run"), "evals.run", next_step=step)
    work.require(
        f"{_MIN_LAB_CASES} cases were run",
        result["num_cases"] >= _MIN_LAB_CASES,
        reason=f"{result['num_cases']} cases",
        next_step=step,
    )
    work.require(
        "the latency stated is the measured one",
        is_close(bench.get("latency"), result["latency"]),
        reason=f"measured {result['latency']}",
        next_step="Copy `latency` of the run's result.",
    )
    estimate = work.read_json("memory_request.json", next_step="Write the request that predicts its memory.")
    predicted = work.call(VRAM_ESTIMATE, {**estimate, "out": None}, next_step="Mend memory_request.json.")
    work.require(
        "the memory prediction is of serving in a quantised format",
        estimate.get("task") == "inference" and estimate.get("gguf") not in {None, "f16"},
        reason=f"task {estimate.get('task')!r}, gguf {estimate.get('gguf')!r}",
        next_step="Set task to inference and gguf to the format served.",
    )
    expected = predicted.model_dump(mode="json")["process_bytes"]
    require_same(
        work, bench, {"process_bytes": expected}, ("process_bytes",), next_step="Copy process_bytes."
    )


def check_62_8(work: Work) -> None:
    """A valid compute skill that works with the operations of this chapter."""
    require_skill(work, "llmops-compute-planner", {"vram"})
