"""Bytes of one training step on one device, moment by moment, from the tapes of its layers and its head."""

from collections.abc import Callable
from typing import NamedTuple

from pipeline.vram.recipe import Recipe
from pipeline.vram.tape import Tape, Value

RunLayer = Callable[[Tape, Value, Recipe], Value]


class PartCost(NamedTuple):
    """A layer, or the head with its loss; bytes beside what lay there before."""

    saved: int
    """Kept from forward to backward."""
    forward_peak: int
    backward_peak: int
    """Counted from before its forward pass, with what it keeps."""
    gradients: int
    """Of parameters, which stay."""
    input_size: int
    held_by_graph: int
    """Of what it keeps, the part that lives until the next micro batch has made its own."""
    left_over: int
    """What is alive after the backward pass: gradients of its input and of parameters."""


def measure_layer(
    run: RunLayer, recipe: Recipe, *, is_first: bool = False, recomputes: bool = False
) -> PartCost:
    """Walk one layer forwards and backwards.

    Args:
        run: Records the layer.
        recipe: Set-up.
        is_first: Its input needs no gradient (frozen embedding).
        recomputes: The forward pass runs again right before the backward pass, and somebody else holds its input.
    """
    tape = Tape()
    size = recipe.stream_bytes * recipe.model.hidden_size * recipe.tokens
    held = size if recomputes else 0
    waiting = tape.new(size) if recomputes else None  # the gradient of the output, already there
    x = tape.new(size, needs_grad=not is_first)
    out = run(tape, x, recipe)
    if not recomputes:
        tape.release(x)
    saved = tape.live - out.size - held - (waiting.size if waiting else 0)
    forward_peak = tape.peak - held
    tape.release(out)
    if waiting:
        tape.release(waiting)
    tape.peak = tape.live
    tape.backward(out, out.size)
    return PartCost(
        saved, forward_peak, tape.peak - held, tape.kept_gradients, size, tape.held_by_graph, tape.live
    )


def measure_head(run: RunLayer, recipe: Recipe) -> PartCost:
    """Walk the last norm, the head and the loss forwards and backwards."""
    tape = Tape()
    size = recipe.stream_bytes * recipe.model.hidden_size * recipe.tokens
    x = tape.new(size)
    loss = run(tape, x, recipe)
    saved, forward_peak = tape.live, tape.peak
    tape.peak = tape.live
    tape.backward(loss, loss.size)
    return PartCost(saved, forward_peak, tape.peak, tape.kept_gradients, size, tape.held_by_graph, tape.live)
