"""Does a base model fit the GPU? Asks ``vram.estimate`` for training, or for serving when nothing is trained.

The training set-up is the one the lessons start from: LoRA rank 16 on all linear layers, rows of 2,048 tokens, one at a
time, 16 accumulated. 16-bit weights are tried before 4-bit ones. Serving is a q4_k_m file with a context of 4,096 tokens.
"""

from typing import Any, Literal, NamedTuple

from pipeline.vram.estimate import VRAM_ESTIMATE, VramEstimateRequest, VramEstimateResult

Use = Literal["lora", "qlora", "serve q4_k_m"]
_TRAINING: dict[str, Any] = {
    "rank": 16,
    "target_modules": "all-linear",
    "max_length": 2048,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "gradient_checkpointing": "standard",
}
_SERVING: dict[str, Any] = {"task": "inference", "gguf": "q4_k_m", "max_length": 4096}


class ComputePlan(NamedTuple):
    """One way to use one model, and what it takes."""

    use: Use
    request: VramEstimateRequest
    estimate: VramEstimateResult

    @property
    def fits(self) -> bool:
        """The upper end of the estimate fits the GPU."""
        return self.estimate.fits is True


def plan_compute(registry_id: str, gpu: str, *, trains: bool) -> ComputePlan:
    """Return the first way to use a model that fits the GPU, or the smallest one when none does.

    Raises:
        InvalidInputError: If the GPU is not known.
    """
    ways: list[tuple[Use, dict[str, Any]]] = [("serve q4_k_m", _SERVING)]
    if trains:
        ways = [(method, {**_TRAINING, "method": method}) for method in ("lora", "qlora")]
    plans: list[ComputePlan] = []
    for use, values in ways:
        request = VRAM_ESTIMATE.parse({"model": registry_id, "gpu": gpu, **values})
        plans.append(ComputePlan(use, request, VRAM_ESTIMATE.execute(request)))
        if plans[-1].fits:
            break
    return plans[-1]


def write_compute_plan(plan: ComputePlan, out: str) -> None:
    """Write compute_plan.json, which holds the request of ``vram estimate`` and its answer."""
    VRAM_ESTIMATE.execute(plan.request.model_copy(update={"out": out}))
