"""Peak memory of a training step on one device: what stays, what comes and goes, and which moment is the worst.

The moments are the end of the forward pass, the backward pass of the loss, of the last layer and of the first one
(all gradients are there), and the optimizer's step. Sharding follows ZeRO (arXiv:1910.02054) and PyTorch's FSDP.
"""

from typing import NamedTuple

from pipeline.vram import hf_head, hf_layer, stack_layers
from pipeline.vram.plan import Plan
from pipeline.vram.recipe import Recipe, Stack
from pipeline.vram.step import PartCost, RunLayer, measure_head, measure_layer
from pipeline.vram.weight_bytes import WeightBytes, adapter_parameters, weight_bytes

LAYERS: dict[Stack, RunLayer] = {
    "peft": hf_layer.run_layer,
    "trainer": hf_layer.run_layer,
    "torchtune": hf_layer.run_layer,
    "unsloth": stack_layers.run_unsloth_layer,
    "litgpt": stack_layers.run_litgpt_layer,
}
HEADS: dict[Stack, RunLayer] = {
    "peft": hf_head.run_head,
    "trainer": hf_head.run_head,
    "torchtune": stack_layers.run_torchtune_head,
    "unsloth": stack_layers.run_unsloth_head,
    "litgpt": stack_layers.run_litgpt_head,
}
_STATE_BLOCK = 256
"""Values that share a scale in an 8-bit optimizer state (bitsandbytes 0.44 and later)."""
_PREFETCHED_LAYERS = 2
"""Layers that FSDP and ZeRO-3 hold whole at once: the one that runs and the next."""
_OFFLOAD_BUFFERS = 2


class Moments(NamedTuple):
    """Bytes allocated at each moment of a step."""

    forward_end: int
    loss_backward: int
    layer_backward: int
    backward_end: int
    optimizer_step: int

    @property
    def worst(self) -> str:
        """Name of the largest."""
        return max(self._fields, key=lambda name: getattr(self, name))


class Training(NamedTuple):
    """Bytes of a training step."""

    weights: WeightBytes
    num_trainable: int
    resident: dict[str, int]
    """What is there all the time, by kind."""
    moments: Moments
    saved: int
    """Activations kept from forward to backward."""
    gradients: int
    """Of all parameters, at their end."""
    paged: int
    """Optimizer states outside the allocator."""

    @property
    def allocated(self) -> int:
        """The worst moment."""
        return max(self.moments)

    @property
    def resident_total(self) -> int:
        """What is there all the time."""
        return sum(self.resident.values())


def measure_training(plan: Plan) -> Training:
    """Walk one step of a plan and return its bytes on one device."""
    recipe = plan.recipe
    weights = weight_bytes(
        recipe.model,
        recipe.quantization,
        recipe.dtype_bytes,
        rest_bytes=recipe.rest_bytes,
        quantized_head=recipe.quantized_head,
    )
    num_trainable = count_trainable(recipe)
    width = recipe.dtype_bytes if recipe.is_full else recipe.adapter_bytes
    states, paged = optimizer_bytes(plan, num_trainable, width)
    shards = _Shards(plan)
    resident = {
        "weights": shards.weights(weights.total) * (2 if plan.copies_reference else 1),
        "adapters": 0 if recipe.is_full else shards.weights(num_trainable * width),
        "optimizer": shards.states(states),
        "gathered_weights": shards.gathered(weights, recipe.model.num_layers),
        "inputs": _input_bytes(recipe),
    }
    gradients = shards.gradients(num_trainable * width)
    base = sum(resident.values())
    head, saved, moments = _walk(plan, base, gradients)
    step = base + _step_temporary(plan, num_trainable, width, shards)
    step += 0 if plan.steps_in_backward else gradients
    return Training(
        weights=weights,
        num_trainable=num_trainable,
        resident=resident,
        moments=moments._replace(optimizer_step=step),
        saved=saved + head.saved,
        gradients=gradients,
        paged=shards.states(paged),
    )


def count_trainable(recipe: Recipe) -> int:
    """Return the number of parameters that get gradients."""
    model = recipe.model
    if recipe.is_full:
        return model.num_parameters
    return adapter_parameters(model, recipe.target_names, recipe.rank)


def optimizer_bytes(plan: Plan, num_trainable: int, width: int) -> tuple[int, int]:
    """Return the bytes of optimizer states inside and outside the allocator."""
    if plan.optimizer == "sgd":
        return 0, 0
    if plan.parallelism.startswith("zero") and plan.recipe.is_full:
        return 12 * num_trainable, 0  # DeepSpeed keeps fp32 weights beside both moments
    if plan.optimizer == "adamw":
        return 2 * width * num_trainable, 0
    states = 2 * (num_trainable + 4 * -(-num_trainable // _STATE_BLOCK))
    return (0, states) if plan.optimizer == "paged_adamw_8bit" else (states, 0)


class _Shards:
    """Divides by the number of devices what the kind of parallelism divides."""

    def __init__(self, plan: Plan) -> None:
        kind = plan.parallelism
        self._is_sharded = kind in {"fsdp", "zero3"}
        self._n = plan.num_gpus
        self._divides_gradients = self._is_sharded or kind == "zero2"
        self._divides_states = self._divides_gradients or kind == "zero1"

    def weights(self, size: int) -> int:
        return -(-size // self._n) if self._is_sharded else size

    def gradients(self, size: int) -> int:
        return -(-size // self._n) if self._divides_gradients else size

    def states(self, size: int) -> int:
        return -(-size // self._n) if self._divides_states else size

    def gathered(self, weights: WeightBytes, num_layers: int) -> int:
        """Weights that are whole for the moment: embedding and head all the time, and two layers."""
        if not self._is_sharded:
            return 0
        layer = (weights.linears + weights.experts) // num_layers
        return weights.embedding + weights.head + _PREFETCHED_LAYERS * layer


def _input_bytes(recipe: Recipe) -> int:
    """Token ids, mask and labels in 64 bits, and the rotary tables."""
    rotary = 2 * recipe.stream_bytes * recipe.length * recipe.model.head_dim
    mask = 0
    if recipe.attention == "eager":
        mask = recipe.stream_bytes * recipe.batch * recipe.length * recipe.length
    return 3 * 8 * recipe.tokens + rotary + mask


def _walk(plan: Plan, base: int, gradients: int) -> tuple[PartCost, int, Moments]:
    """Return the head's cost, what the layers keep, and the moments without the optimizer's step."""
    recipe = plan.recipe
    if plan.is_dpo:  # chosen and rejected answers run as one batch of twice the size
        recipe = recipe._replace(batch=2 * recipe.batch)
    num_layers = recipe.model.num_layers
    run = LAYERS[recipe.stack]
    head = measure_head(HEADS[recipe.stack], recipe)
    outputs = 0
    if recipe.keeps_outputs and recipe.loss == "standard":
        outputs = hf_head.head_width(recipe) * recipe.model.vocab_size * recipe.tokens
    recomputes = plan.checkpointing != "none"
    layer = measure_layer(run, recipe, recomputes=recomputes)
    if recomputes:
        kept = num_layers if plan.checkpointing == "standard" else min(num_layers, _OFFLOAD_BUFFERS)
        saved, left = kept * layer.input_size, layer.input_size
        last = saved + max(layer.forward_peak, layer.backward_peak)
    else:
        first = layer if recipe.is_full else measure_layer(run, recipe, is_first=True)
        saved, left = first.saved + (num_layers - 1) * layer.saved, 0
        last = saved - layer.saved + layer.backward_peak
    before = gradients if plan.accumulates else 0
    stale = head.held_by_graph + (0 if recomputes else num_layers * layer.held_by_graph)
    piled = _piled_gradients(plan, head.gradients, layer.gradients, num_layers, gradients)
    moments = Moments(
        forward_end=base + before + stale + saved + head.forward_peak,
        loss_backward=base + before + saved + head.backward_peak,
        layer_backward=base + max(before, piled[0]) + outputs + last,
        backward_end=base + max(before, piled[1]) + outputs + left + layer.backward_peak,
        optimizer_step=0,
    )
    return head, saved, moments


def _piled_gradients(plan: Plan, head: int, layer: int, num_layers: int, gradients: int) -> tuple[int, int]:
    """Gradients that are there when the last layer, and the first one, go backwards (its own are in its cost)."""
    if plan.steps_in_backward:
        return 0, 0
    if plan.parallelism in {"fsdp", "zero3", "zero2"}:
        return head, gradients
    return head, head + (num_layers - 1) * layer


def _step_temporary(plan: Plan, num_trainable: int, width: int, shards: _Shards) -> int:
    """Bytes that the optimizer needs while it steps: the default AdamW takes roots of all variances at once."""
    if plan.optimizer != "adamw" or plan.fused_optimizer or plan.parallelism.startswith("zero"):
        return 0
    return shards.states(num_trainable * width)
