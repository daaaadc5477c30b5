"""Last norm, output head and loss as transformers 5 computes them, with the chunked and fused losses beside them.

The standard loss turns all logits into fp32 (``loss/loss_utils.py``); a chunked loss keeps one chunk of them; the
fused one (Liger, arXiv:2410.10989, section 3.2) also makes the gradient of the head's input in the forward pass.
"""

from pipeline.vram.architecture import HEAD_NAME
from pipeline.vram.hf_layer import norm
from pipeline.vram.recipe import Recipe
from pipeline.vram.tape import Tape, Value

CHUNK_TOKENS = 1024
"""Rows of logits alive at once in a chunked loss."""
_LABEL_BYTES = 8


def run_head(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Record the last norm, the head and the loss; return the loss."""
    normed = norm(tape, x, recipe)
    tape.release(x)
    if recipe.loss == "standard":
        loss = standard_loss(tape, normed, recipe)
    else:
        loss = chunked_loss(tape, normed, recipe, chunk_tokens(recipe))
    tape.release(normed)
    return loss


def chunk_tokens(recipe: Recipe) -> int:
    """Return the rows of logits that a chunked or fused loss has at once."""
    if recipe.loss == "chunked":
        return min(CHUNK_TOKENS, recipe.tokens)
    # Liger: as many chunks as the vocabulary is wider than the model, rounded up to a power of two of rows.
    num_chunks = -(-recipe.model.vocab_size // recipe.model.hidden_size)
    rows = -(-recipe.tokens // num_chunks)
    return min(recipe.tokens, 1 << (rows - 1).bit_length())


def head_gradient(recipe: Recipe) -> int:
    """Return the bytes of the head's gradient, if it trains."""
    return recipe.model.num_embedding_weights * recipe.dtype_bytes if recipe.is_full else 0


def head_adapter(recipe: Recipe) -> tuple[int, int]:
    """Return what an adapter on the head keeps, and the bytes of its gradient."""
    if HEAD_NAME not in recipe.target_names:
        return 0, 0
    model, width = recipe.model, recipe.adapter_bytes
    kept = recipe.tokens * (2 * recipe.rank + (3 if recipe.has_dropout else 2) * model.hidden_size)
    return kept, width * recipe.rank * (model.vocab_size + model.hidden_size)


def project(tape: Tape, normed: Value, recipe: Recipe) -> Value:
    """Make the logits of all tokens."""
    model, tokens = recipe.model, recipe.tokens
    width = head_width(recipe)
    copies = 2 * model.num_embedding_weights if recipe.is_autocast and recipe.rest_bytes == 4 else 0
    kept, gradient = head_adapter(recipe)
    size = width * model.vocab_size * tokens
    logits = tape.apply(
        (normed,),
        size,
        saves=(normed,) if recipe.is_full else (),
        saves_new=copies + kept,
        workspace=2 * size if gradient else 0,
        backward_workspace=size if gradient else 0,
        parameter_gradient=head_gradient(recipe) + gradient,
    )
    if model.family.softcaps:
        capped = tape.apply((logits,), logits.size, workspace=logits.size)
        tape.keep_output(capped)
        tape.release(logits)
        logits = tape.apply((capped,), capped.size)
        tape.release(capped)
    return logits


def head_width(recipe: Recipe) -> int:
    """Return the bytes of one logit."""
    return 2 if recipe.is_autocast else (recipe.rest_bytes or recipe.activation_bytes)


def standard_loss(tape: Tape, normed: Value, recipe: Recipe) -> Value:
    """Turn all logits into fp32 and take their cross entropy."""
    elements = recipe.model.vocab_size * recipe.tokens
    logits = project(tape, normed, recipe)
    wide = logits
    if logits.size != 4 * elements:
        wide = tape.apply((logits,), 4 * elements)
    log_probabilities = tape.apply((wide,), 4 * elements)
    tape.keep_output(log_probabilities)
    if wide is not logits:
        tape.release(wide)
    loss = tape.apply(
        (log_probabilities,), 4, saves=(log_probabilities,), saves_new=_LABEL_BYTES * recipe.tokens + 4
    )
    tape.release(log_probabilities)
    if not recipe.keeps_outputs:
        tape.release(logits)
    return loss


def chunked_loss(tape: Tape, normed: Value, recipe: Recipe, rows: int) -> Value:
    """A loss that sees ``rows`` rows of logits at a time."""
    model = recipe.model
    chunk = rows * model.vocab_size
    # One chunk: logits, their fp32 form and its gradient; the fused kernel writes gradients over the logits.
    workspace = (2 + 4 + 4) * chunk if recipe.loss == "chunked" else (head_width(recipe) + 4) * chunk
    gradient = head_gradient(recipe)
    return tape.apply(
        (normed,),
        4,
        saves=(normed,),
        saves_new=(normed.size if recipe.loss == "fused" else 0) + _LABEL_BYTES * recipe.tokens,
        workspace=workspace + 2 * gradient,
        backward_workspace=workspace,
        parameter_gradient=gradient,
    )
