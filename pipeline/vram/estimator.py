"""The estimate itself: fields in, plain values out. Imports nothing heavy, so that the command starts fast.

``estimate.py`` gives it its request and result; ``quick.py`` calls it straight from the command line.
"""

from typing import Any, NamedTuple

from pipeline.core.errors import InvalidInputError
from pipeline.vram.advice import find_changes, largest_that_fits, smallest_gpu
from pipeline.vram.architecture import Architecture
from pipeline.vram.fields import Fields
from pipeline.vram.inference import measure_serving
from pipeline.vram.model_config import read_architecture
from pipeline.vram.overhead import (
    Range,
    Spread,
    context_bytes,
    spread_out,
    training_spread,
    unsaid_bytes,
)
from pipeline.vram.plan import make_plan
from pipeline.vram.registry import Gpu, find_architecture, find_config, find_gpu
from pipeline.vram.training import Training, measure_training

_SERVING_SPREAD = Spread((0.6, 1.6), (0.8, 1.15, 2.0))
_CACHE_GROWTH = 0.1
"""Of the cache: appending to it copies one layer at a time."""


class Estimate(NamedTuple):
    """One estimate on one device."""

    allocated: Range
    reserved: Range
    process: Range
    components: dict[str, int]
    phases: dict[str, int]
    peak_phase: str
    num_trainable: int
    assumptions: list[str]

    def fits(self, gpu: Gpu) -> bool:
        """True when it runs on the GPU: what is reserved may shrink, what tensors take may not."""
        context = self.process.high - self.reserved.high
        return max(self.process.expected, self.allocated.high + context) <= gpu.usable_bytes


def estimate(fields: Fields) -> dict[str, Any]:
    """Return everything ``vram estimate`` answers, as plain values.

    Raises:
        InvalidInputError: If the model or GPU is unknown, or fields contradict each other.
    """
    model = read_model(fields)
    gpu = find_gpu(fields.gpu) if fields.gpu else None
    _check_length(fields, model)

    def evaluate(changed: Fields) -> Estimate:
        return estimate_once(changed, model, gpu)

    now = evaluate(fields)
    fits = now.fits(gpu) if gpu else None
    micro_batch = length = None
    if gpu:
        micro_batch = largest_that_fits(fields, "micro_batch_size", evaluate, gpu, 1 << 16)
        length = largest_that_fits(fields, "max_length", evaluate, gpu, model.max_positions)
    smallest = smallest_gpu(now)
    return {
        "warnings": _warnings(model, gpu),
        "next_step": _next_step(fields, fits),
        "model": model.name,
        "allocated_bytes": now.allocated._asdict(),
        "reserved_bytes": now.reserved._asdict(),
        "process_bytes": now.process._asdict(),
        "components": now.components,
        "phases": now.phases,
        "peak_phase": now.peak_phase,
        "num_parameters": model.num_parameters,
        "num_trainable_parameters": now.num_trainable,
        "usable_bytes": gpu.usable_bytes if gpu else None,
        "fits": fits,
        "max_micro_batch_size": micro_batch,
        "max_length_that_fits": length,
        "smallest_gpu": smallest.name if smallest else None,
        "advice": find_changes(fields, now, evaluate, gpu),
        "merge_ram_bytes": _merge_ram(model),
        "export_disk_bytes": _export_disk(model),
        "assumptions": now.assumptions,
    }


def read_model(fields: Fields) -> Architecture:
    """Return what the named or inline model is made of."""
    if fields.model is not None and fields.config is None:
        return find_architecture(fields.model)
    config = find_config(fields.model, fields.config)
    return read_architecture(config, str(config.get("_name_or_path") or "inline config"))


def estimate_once(fields: Fields, model: Architecture, gpu: Gpu | None) -> Estimate:
    """Estimate one set-up."""
    return (
        _estimate_serving(fields, model, gpu)
        if fields.task == "inference"
        else _estimate_training(fields, model, gpu)
    )


def _estimate_training(fields: Fields, model: Architecture, gpu: Gpu | None) -> Estimate:
    plan = make_plan(fields, model, gpu)
    training = measure_training(plan)
    resident = training.resident_total
    gathered = training.resident["gathered_weights"]
    allocated, reserved = spread_out(
        resident,
        training.allocated - resident,
        training_spread(plan),
        extra=unsaid_bytes(plan, training.weights.total),
    )
    # Gathered weights come on a stream of their own, so the blocks of the layer before are not free yet.
    reserved = reserved.plus(Range(0, gathered, gathered))
    context = context_bytes(gpu, plan.num_gpus).plus(Range(0, 0, training.paged))
    return Estimate(
        allocated=allocated,
        reserved=reserved,
        process=reserved.plus(context),
        components=_components(training),
        phases=training.moments._asdict(),
        peak_phase=training.moments.worst,
        num_trainable=training.num_trainable,
        assumptions=list(plan.assumptions),
    )


def _components(training: Training) -> dict[str, int]:
    """Split the worst moment, so that the parts add up to it."""
    parts = dict(training.resident)
    worst = training.moments.worst
    rest = training.allocated - training.resident_total
    saved = 0 if worst == "optimizer_step" else min(training.saved, rest)
    gradients = min(training.gradients, rest - saved) if worst in {"backward_end", "optimizer_step"} else 0
    parts |= {"saved_activations": saved, "gradients": gradients, "working": rest - saved - gradients}
    return {name: size for name, size in parts.items() if size}


def _estimate_serving(fields: Fields, model: Architecture, gpu: Gpu | None) -> Estimate:
    serving = measure_serving(fields, model, gpu)
    resident = serving.weights + serving.cache
    allocated, reserved = spread_out(
        resident, serving.working, _SERVING_SPREAD, extra=int(_CACHE_GROWTH * serving.cache)
    )
    said = [
        f"{fields.micro_batch_size} sequence(s) with a full context of {fields.max_length} tokens, cache {fields.kv_cache}",
        "one engine that loads everything; vLLM reserves its share of the device whatever the model needs",
    ]
    return Estimate(
        allocated=allocated,
        reserved=reserved,
        process=reserved.plus(context_bytes(gpu, 1)),
        components=serving._asdict(),
        phases={"loaded": serving.weights, "prompt": allocated.expected},
        peak_phase="prompt",
        num_trainable=0,
        assumptions=said,
    )


def _check_length(fields: Fields, model: Architecture) -> None:
    if fields.task == "inference" and fields.max_length > model.max_positions:
        raise InvalidInputError(
            f"max_length: {fields.max_length} exceeds the {model.max_positions} positions of {model.name}",
            hint=f"Use 1 to {model.max_positions}.",
        )


def _next_step(fields: Fields, fits: bool | None) -> str:
    if fits is False:
        return "apply the advice in order and estimate again"
    return "llmops train run --help" if fields.task == "train" else "llmops deploy serve --help"


def _merge_ram(model: Architecture) -> int:
    """Base model in 16 bits, and its widest matrix once more in fp32 while the adapter is added."""
    widest = max(model.num_embedding_weights, *(linear.num_weights for linear in model.linears))
    return 2 * model.num_parameters + 4 * widest


def _export_disk(model: Architecture) -> int:
    """Merged 16-bit model, the same as GGUF, and a 4-bit GGUF (5 bits a weight at most)."""
    return 2 * model.num_parameters * 2 + model.num_parameters * 5 // 8


def _warnings(model: Architecture, gpu: Gpu | None) -> list[str]:
    warnings: list[str] = []
    if model.is_guess:
        warnings.append(
            f"model type {model.model_type!r} is unknown: taken for a Llama-like decoder, range widened"
        )
    if model.num_experts:
        warnings.append("the activations of experts are not traced: range widened")
    if gpu and not gpu.is_measured:
        warnings.append(f"the usable memory of {gpu.name} was not measured: {gpu.source}")
    return warnings
