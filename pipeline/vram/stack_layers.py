"""Decoder layers and losses of LitGPT, torchtune and Unsloth where they differ from transformers with PEFT.

Read from their sources: ``litgpt/model.py``, ``litgpt/lora.py``, ``litgpt/utils.py`` (0.5); ``torchtune/modules``
(0.4 to 0.6); ``unsloth/kernels`` and ``unsloth/models/llama.py`` (2024 to 2026). Not traced here: these libraries do
not run on this machine, so the ranges around their numbers are wider.
"""

from pipeline.vram.hf_head import chunked_loss, head_adapter, head_gradient, standard_loss
from pipeline.vram.hf_layer import attend, frozen_linear, linear, mlp, norm, run_layer
from pipeline.vram.recipe import Recipe
from pipeline.vram.tape import Tape, Value

_LITGPT_CHUNK = 128
"""Rows of a chunk in `chunked_cross_entropy` and `lm_head_chunk_size`."""
_TORCHTUNE_CHUNKS = 8
_UNSLOTH_CHUNK = 1024
_LABEL_BYTES = 8
_QKV_NAMES = ("q_proj", "k_proj", "v_proj")


def run_litgpt_layer(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Record one block of LitGPT: one fused projection, LoRA padded with zeros, values viewed inside it."""
    family = recipe.model.family
    normed = norm(tape, x, recipe)
    attended = _litgpt_attention(tape, normed, recipe)
    if family.post_norms:
        attended = _renormed(tape, attended, recipe)
    if family.parallel:
        second = norm(tape, x, recipe) if family.layer_norms == 2 else normed
        out = mlp(tape, second, recipe)
        tape.release(normed, *(() if second is normed else (second,)))
        both = tape.add(out, attended)
        tape.release(out, attended)
        result = tape.add(both, x)
        tape.release(both)
        return result
    tape.release(normed)
    stream = tape.add(attended, x)
    tape.release(attended)
    normed = norm(tape, stream, recipe)
    out = mlp(tape, normed, recipe)
    tape.release(normed)
    if family.post_norms:
        out = _renormed(tape, out, recipe)
    result = tape.add(out, stream)
    tape.release(out, stream)
    return result


def _renormed(tape: Tape, value: Value, recipe: Recipe) -> Value:
    normed = norm(tape, value, recipe)
    tape.release(value)
    return normed


def _litgpt_attention(tape: Tape, x: Value, recipe: Recipe) -> Value:
    model, tokens = recipe.model, recipe.tokens
    width = recipe.activation_bytes
    q_size, kv_size = width * model.q_size * tokens, width * model.kv_size * tokens
    fused = _litgpt_projection(tape, x, recipe)
    query, key, value = tape.view(fused, q_size), tape.view(fused, kv_size), tape.view(fused, kv_size)
    tape.release(fused)
    if model.num_kv_heads < model.num_heads:  # heads are interleaved by group: all three become copies
        copies = [tape.apply((part,), q_size) for part in (query, key, value)]
        tape.release(query, key, value)
        query, key, value = copies
    rotated = [
        tape.apply((part,), part.size, workspace=4 * part.size, backward_workspace=5 * part.size)
        for part in (query, key)
    ]
    tape.release(query, key)
    attended = attend(tape, (*rotated, value), recipe._replace(expands_kv=False))
    tape.release(*rotated, value)
    ordered = tape.apply((attended,), attended.size)  # heads side by side again
    tape.release(attended)
    out = linear(tape, ordered, model.linears[1 if model.family.fused_qkv else 3], recipe)
    tape.release(ordered)
    return out


def _litgpt_projection(tape: Tape, x: Value, recipe: Recipe) -> Value:
    model, tokens, width = recipe.model, recipe.tokens, recipe.activation_bytes
    widths = (model.q_size, model.kv_size, model.kv_size)
    total, num_weights = sum(widths), sum(widths) * model.hidden_size
    size = width * total * tokens
    if recipe.is_full:
        return tape.apply((x,), size, saves=(x,), parameter_gradient=num_weights * recipe.dtype_bytes)
    base = frozen_linear(tape, x, num_weights, size, recipe)
    fused_target = model.family.fused_qkv and model.linears[0].name in recipe.target_names
    enabled = [
        part
        for name, part in zip(_QKV_NAMES, widths, strict=True)
        if fused_target or name in recipe.target_names
    ]
    if not enabled:
        return base
    # `index_copy` keeps its source for the backward pass, so the unpadded update stays unless all three train.
    source = width * sum(enabled) * tokens if len(enabled) < len(widths) else 0
    dropped = (width + 1) * model.hidden_size * tokens if recipe.has_dropout else 0
    delta = tape.apply(
        (x,),
        size,
        saves=() if dropped else (x,),
        saves_new=width * recipe.rank * len(enabled) * tokens + source + dropped,
        workspace=size + width * sum(enabled) * tokens,
        backward_workspace=2 * size,
        parameter_gradient=recipe.adapter_bytes
        * recipe.rank
        * (len(enabled) * model.hidden_size + sum(enabled)),
    )
    out = tape.add(base, delta)
    tape.release(base, delta)
    return out


def run_litgpt_head(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Record the last norm, the head and a chunked cross entropy on logits that Fabric turned into fp32.

    ``lightning.fabric.plugins.precision.half`` converts what the wrapped model returns to the default type.
    """
    model, tokens = recipe.model, recipe.tokens
    normed = norm(tape, x, recipe)
    tape.release(x)
    elements = model.vocab_size * tokens
    is_old = recipe.quantized_head and recipe.keeps_quantized_input
    dequantized = (4 if is_old else 2) * model.num_embedding_weights if recipe.quantized_head else 0
    if is_old:
        tape.hold(normed)
    kept, gradient = head_adapter(recipe)
    logits = tape.apply(
        (normed,),
        recipe.activation_bytes * elements,
        saves=(normed,) if recipe.is_full or is_old else (),
        saves_new=kept,
        workspace=dequantized,
        backward_workspace=dequantized,
        parameter_gradient=head_gradient(recipe) + gradient,
    )
    tape.release(normed)
    size, chunk = 4 * elements, 4 * model.vocab_size * min(_LITGPT_CHUNK, tokens)
    wide = tape.apply((logits,), size)
    tape.release(logits)
    # The logits stay in a Python variable. Log-probabilities of a chunk go as its gradient comes, so one size stands
    # for both; full fine-tuning cuts whole logits, so their gradient comes back in pieces, is joined and padded.
    return tape.apply(
        (wide,),
        4,
        saves_new=_LABEL_BYTES * tokens,
        workspace=size + chunk,
        backward_workspace=2 * size if recipe.is_full else size + chunk,
    )


def run_torchtune_head(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Record the last norm, eight chunks of logits, and a compiled cross entropy that makes no fp32 copy of them."""
    model, tokens = recipe.model, recipe.tokens
    normed = norm(tape, x, recipe)
    tape.release(x)
    if recipe.loss == "standard":
        loss = standard_loss(tape, normed, recipe)
    elif recipe.loss == "fused":
        loss = chunked_loss(tape, normed, recipe, tokens // _TORCHTUNE_CHUNKS + 1)
    else:
        size = recipe.activation_bytes * model.vocab_size * tokens
        logits = tape.apply(
            (normed,),
            size,
            saves=(normed,) if recipe.is_full else (),
            parameter_gradient=head_gradient(recipe),
        )
        chunk = size // _TORCHTUNE_CHUNKS
        # The gradient of a chunk takes the place of its logits.
        loss = tape.apply(
            (logits,), 4, saves_new=_LABEL_BYTES * tokens, workspace=chunk, backward_workspace=chunk
        )
        tape.release(logits)
    tape.release(normed)
    return loss


def run_unsloth_layer(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Record one layer with Unsloth's own kernels, which keep inputs only and write gradients in place."""
    model = recipe.model
    if recipe.is_full or model.family.mlp != "gated" or model.family.parallel:
        return run_layer(tape, x, recipe)
    tokens, width = recipe.tokens, recipe.activation_bytes
    hidden = width * model.hidden_size * tokens
    q_size, kv_size = width * model.q_size * tokens, width * model.kv_size * tokens
    inner = width * model.intermediate_size * tokens
    gradient = _unsloth_gradients(recipe)
    buffer = 2 * max(module.num_weights for module in model.linears) if recipe.is_quantized else 0
    normed = tape.apply((x,), hidden, saves=(x,), saves_new=4 * tokens)
    projected = [
        tape.apply((normed,), size, saves=(normed,), workspace=buffer, backward_workspace=buffer)
        for size in (q_size, kv_size, kv_size)
    ]
    tape.release(normed)
    attended = attend(tape, (projected[0], projected[1], projected[2]), recipe)
    tape.release(*projected)
    out = tape.apply((attended,), hidden, saves=(attended,), workspace=buffer, backward_workspace=buffer)
    tape.release(attended)
    stream = tape.add(x, out)
    tape.release(out)
    normed = tape.apply((stream,), hidden, saves=(stream,), saves_new=4 * tokens)
    fed = tape.apply(
        (normed,),
        hidden,
        saves=(normed,),
        saves_new=2 * inner,
        workspace=inner + buffer,
        backward_workspace=inner + buffer,
        parameter_gradient=gradient,
    )
    tape.release(normed)
    result = tape.add(stream, fed)
    tape.release(stream, fed)
    return result


def _unsloth_gradients(recipe: Recipe) -> int:
    chosen = [module for module in recipe.model.linears if module.name in recipe.target_names]
    widths = sum(module.in_features + module.out_features for module in chosen)
    return recipe.adapter_bytes * recipe.rank * widths


def run_unsloth_head(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Record the last norm and a cross entropy that writes the gradient over the logits."""
    model, tokens = recipe.model, recipe.tokens
    normed = tape.apply((x,), x.size, saves=(x,), saves_new=4 * tokens)
    tape.release(x)
    if recipe.loss == "standard":
        size = recipe.activation_bytes * model.vocab_size * tokens
        logits = tape.apply((normed,), size)
        loss = tape.apply((logits,), 4, saves_new=12 * tokens)  # the gradient takes the place of the logits
        tape.release(logits)
    else:
        loss = chunked_loss(tape, normed, recipe, min(_UNSLOTH_CHUNK, tokens))
    tape.release(normed)
    return loss
