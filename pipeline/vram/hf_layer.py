"""One decoder layer as transformers 5 computes it, with PEFT adapters: what each operation keeps and needs.

Follows ``models/*/modeling_*.py`` of transformers 5.23 and ``tuners/lora/{layer,bnb}.py`` of PEFT 0.21; a test
compares with a trace of those libraries.
"""

from pipeline.vram.architecture import Linear
from pipeline.vram.recipe import Recipe
from pipeline.vram.tape import Tape, Value


def run_layer(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Record one decoder layer on the tape and return its output."""
    family = recipe.model.family
    if family.parallel:
        return _run_parallel(tape, x, recipe)
    has_pre_norms = family.layer_norms == 4 or not family.post_norms
    stream = _attention_half(tape, x, recipe, has_pre_norms)
    normed = norm(tape, stream, recipe) if has_pre_norms else stream
    out = mlp(tape, normed, recipe)
    if has_pre_norms:
        tape.release(normed)
    out = _finish_half(tape, out, recipe)
    result = tape.add(stream, out)
    tape.release(stream, out)
    return result


def _attention_half(tape: Tape, x: Value, recipe: Recipe, has_pre_norms: bool) -> Value:
    normed = norm(tape, x, recipe) if has_pre_norms else x
    out = attention(tape, normed, recipe)
    if has_pre_norms:
        tape.release(normed)
    out = _finish_half(tape, out, recipe)
    stream = tape.add(x, out)
    tape.release(out)
    return stream


def _finish_half(tape: Tape, out: Value, recipe: Recipe) -> Value:
    """Normalise what attention or MLP put out, in the families that do."""
    if not recipe.model.family.post_norms:
        return out
    normed = norm(tape, out, recipe)
    tape.release(out)
    return normed


def _run_parallel(tape: Tape, x: Value, recipe: Recipe) -> Value:
    normed = norm(tape, x, recipe)
    first = _finish_half(tape, attention(tape, normed, recipe), recipe)
    second_input = norm(tape, x, recipe) if recipe.model.family.layer_norms == 2 else normed
    second = _finish_half(tape, mlp(tape, second_input, recipe), recipe)
    tape.release(normed)
    if second_input is not normed:
        tape.release(second_input)
    both = tape.add(first, second)
    tape.release(first, second)
    result = tape.add(both, x)
    tape.release(both)
    return result


def norm(tape: Tape, x: Value, recipe: Recipe, rows: int = 0, width: int = 0) -> Value:
    """Normalise over ``width`` elements of ``rows`` rows (the residual stream unless given)."""
    rows, width = rows or recipe.tokens, width or recipe.model.hidden_size
    elements, kind = rows * width, recipe.model.family.norm
    if kind == "layer":
        gradient = 2 * width * recipe.dtype_bytes if recipe.is_full else 0
        return tape.apply(
            (x,),
            x.size,
            saves=(x,),
            saves_new=8 * rows,
            backward_workspace=x.size,
            parameter_gradient=gradient,
        )
    wide = 4 * elements
    is_wide = x.size == wide
    kept = (0 if is_wide else wide) + 4 * rows
    if kind == "gemma":
        kept += 4 * width  # 1 + weight, in fp32
    if recipe.is_full:
        kept += x.size if kind == "rms" else wide
    return tape.apply(
        (x,),
        x.size,
        saves=(x,) if is_wide else (),
        saves_new=kept,
        workspace=wide + (0 if recipe.is_full else x.size),
        backward_workspace=4 * wide,
        parameter_gradient=width * recipe.dtype_bytes if recipe.is_full else 0,
    )


def linear(tape: Tape, x: Value, module: Linear, recipe: Recipe) -> Value:
    """Apply one linear module, with its adapter if it has one."""
    tokens = recipe.tokens
    out_size = recipe.activation_bytes * module.out_features * tokens
    if recipe.is_full:
        return _trained_linear(tape, x, module, recipe)
    base = frozen_linear(tape, x, module.num_weights, out_size, recipe)
    if module.name not in recipe.target_names:
        return base
    if recipe.is_quantized:  # PEFT clones what a quantised linear puts out
        tape.peak = max(tape.peak, tape.live + out_size)
    delta = _adapter(tape, x, module, recipe, out_size)
    out = tape.add(base, delta)
    tape.release(base, delta)
    if out.size != out_size:  # summed in fp32, then converted back
        narrow = tape.apply((out,), out_size)
        tape.release(out)
        return narrow
    return out


def frozen_linear(tape: Tape, x: Value, num_weights: int, out_size: int, recipe: Recipe) -> Value:
    """Multiply by a weight that does not train, dequantised for the moment if it is quantised.

    bitsandbytes before 0.43.2 kept the input as an attribute of the autograd context, so it outlived the backward
    pass, and dequantised to fp16 before converting to the compute type (``autograd/_functions.py``, ``nn/modules.py``).
    """
    if not recipe.is_quantized:
        return tape.apply((x,), out_size)
    is_old = recipe.keeps_quantized_input
    dequantized = (4 if is_old else 2) * num_weights
    if is_old:
        tape.hold(x)
    return tape.apply(
        (x,),
        out_size,
        saves=(x,) if is_old else (),
        workspace=dequantized,
        backward_workspace=dequantized,
    )


def _trained_linear(tape: Tape, x: Value, module: Linear, recipe: Recipe) -> Value:
    tokens, gradient = recipe.tokens, module.num_weights * recipe.dtype_bytes
    if not recipe.is_autocast:
        out_size = recipe.activation_bytes * module.out_features * tokens
        return tape.apply((x,), out_size, saves=(x,), parameter_gradient=gradient)
    narrow_input = 2 * module.in_features * tokens
    is_narrow = x.size == narrow_input
    return tape.apply(
        (x,),
        2 * module.out_features * tokens,
        saves=(x,) if is_narrow else (),
        saves_new=2 * module.num_weights + (0 if is_narrow else narrow_input),
        backward_workspace=2 * module.num_weights + narrow_input,
        parameter_gradient=gradient,
    )


def _adapter(tape: Tape, x: Value, module: Linear, recipe: Recipe, out_size: int) -> Value:
    """The low-rank branch: input, optional dropout, A, B, scaling."""
    tokens, rank = recipe.tokens, recipe.rank
    in_elements, out_elements = module.in_features * tokens, module.out_features * tokens
    gradient = recipe.adapter_bytes * rank * (module.in_features + module.out_features)
    if recipe.is_autocast and recipe.adapter_bytes == 4:
        return _autocast_adapter(tape, x, module, recipe, gradient)
    width = recipe.adapter_bytes
    own = x
    if x.size != width * in_elements:
        own = tape.apply((x,), width * in_elements)
    dropped = (width + 1) * in_elements if recipe.has_dropout else 0
    delta = tape.apply(
        (own,),
        width * out_elements,
        saves=() if dropped else (own,),
        saves_new=width * rank * tokens + dropped,
        workspace=width * out_elements,
        backward_workspace=width * out_elements,
        parameter_gradient=gradient,
    )
    if own is not x:
        tape.release(own)
    if recipe.is_quantized and delta.size != out_size:
        narrow = tape.apply((delta,), out_size)
        tape.release(delta)
        return narrow
    return delta


def _autocast_adapter(tape: Tape, x: Value, module: Linear, recipe: Recipe, gradient: int) -> Value:
    """Adapters in fp32, products in 16 bit: 16-bit copies of the input and of both matrices are kept."""
    tokens, rank = recipe.tokens, recipe.rank
    in_elements, out_size = module.in_features * tokens, 2 * module.out_features * tokens
    copies = 2 * rank * (tokens + module.out_features)
    if x.needs_grad:  # the first matrix is kept for the gradient of its input only
        copies += 2 * rank * module.in_features
    # PEFT converts the input to fp32 first, except for quantised linears under autocast (tuners/lora/bnb.py).
    shares_input = recipe.is_quantized and x.size == 2 * in_elements and not recipe.has_dropout
    if not shares_input:
        copies += 2 * in_elements
    wide_copy = 0 if recipe.is_quantized else 4 * in_elements
    dropout_mask = in_elements if recipe.has_dropout else 0
    return tape.apply(
        (x,),
        out_size,
        saves=(x,) if shares_input else (),
        saves_new=copies + dropout_mask,
        workspace=max(wide_copy, out_size),
        backward_workspace=max(out_size, 2 * in_elements + wide_copy),
        parameter_gradient=gradient,
    )


def attention(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Projections, rotary embedding, attention, output projection."""
    model = recipe.model
    linears, tokens, width = model.linears, recipe.tokens, recipe.activation_bytes
    q_size, kv_size = width * model.q_size * tokens, width * model.kv_size * tokens
    if model.family.fused_qkv:
        fused = linear(tape, x, linears[0], recipe)
        query, key, value = tape.view(fused, q_size), tape.view(fused, kv_size), tape.view(fused, kv_size)
        tape.release(fused)
        out_module = linears[1]
    else:
        query, key, value = (linear(tape, x, module, recipe) for module in linears[:3])
        out_module = linears[3]
    if model.family.qk_norm:
        query = _normed_heads(tape, query, recipe, model.num_heads)
        key = _normed_heads(tape, key, recipe, model.num_kv_heads)
    rotated = [_rotate(tape, part) for part in (query, key)]
    tape.release(query, key)
    attended = attend(tape, (*rotated, value), recipe)
    tape.release(*rotated, value)
    if model.family.rotates_by_cat and recipe.attention != "eager":
        ordered = tape.apply((attended,), attended.size)
        tape.release(attended)
        attended = ordered
    out = linear(tape, attended, out_module, recipe)
    tape.release(attended)
    return out


def _normed_heads(tape: Tape, part: Value, recipe: Recipe, heads: int) -> Value:
    model, tokens = recipe.model, recipe.tokens
    if model.family.qk_norm == "head":
        normed = norm(tape, part, recipe, rows=tokens * heads, width=model.head_dim)
    else:
        normed = norm(tape, part, recipe, rows=tokens, width=heads * model.head_dim)
    tape.release(part)
    return normed


def _rotate(tape: Tape, part: Value) -> Value:
    return tape.apply((part,), part.size, workspace=2 * part.size, backward_workspace=5 * part.size // 2)


def attend(tape: Tape, parts: tuple[Value, ...], recipe: Recipe) -> Value:
    """Attention proper on rotated queries and keys, and values."""
    model, tokens = recipe.model, recipe.tokens
    query, key, value = parts
    held: list[Value] = []
    if (recipe.expands_kv or recipe.attention == "eager") and model.num_kv_heads < model.num_heads:
        key, value = tape.apply((key,), query.size), tape.apply((value,), query.size)
        held = [key, value]
    elif recipe.attention == "eager" and model.family.fused_qkv:  # the product needs the values in one block
        value = tape.apply((value,), value.size)
        held = [value]
    if recipe.attention == "eager":
        out = _attend_eagerly(tape, query, key, value, recipe)
        tape.release(*held)
        return out
    if (
        recipe.is_autocast and query.size > 2 * model.q_size * tokens
    ):  # autocast gives the kernel 16-bit copies
        narrow = [tape.apply((part,), part.size // 2) for part in (query, key, value)]
        tape.release(*held)
        query, key, value = held = narrow
    wide_query = 4 * model.q_size * tokens  # the kernel sums the gradient of the queries in fp32
    expanded = 2 * query.size if key.size < query.size else 0
    out = tape.apply(
        (query, key, value),
        query.size,
        saves=(query, key, value),
        saves_new=4 * model.num_heads * tokens,
        backward_workspace=wide_query + expanded,
    )
    tape.keep_output(out)
    tape.release(*held)
    return out


def _attend_eagerly(tape: Tape, query: Value, key: Value, value: Value, recipe: Recipe) -> Value:
    model = recipe.model
    elements = model.num_heads * recipe.length * recipe.tokens
    size = recipe.activation_bytes * elements
    scores = tape.apply((query, key), size, saves=(query, key), workspace=size)
    if model.family.softcaps:
        capped = tape.apply((scores,), size, workspace=size)
        tape.keep_output(capped)
        tape.release(scores)
        scores = tape.apply((capped,), size)
        tape.release(capped)
    masked = tape.apply((scores,), size, backward_workspace=size)
    tape.release(scores)
    # CUDA's softmax multiplies gradient and output into a temporary (aten/native/cuda/SoftMax.cu).
    wide = tape.apply((masked,), 4 * elements, backward_workspace=4 * elements + size)
    tape.keep_output(wide)
    weights = wide
    if size != 4 * elements:
        weights = tape.apply((wide,), size)
        tape.release(wide)
    tape.release(masked)
    out = tape.apply((weights, value), query.size, saves=(weights, value), workspace=query.size)
    tape.release(weights)
    return out


def mlp(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """The feed-forward half: gated, fused and gated, plain, or experts."""
    model, kind = recipe.model, recipe.model.family.mlp
    modules = model.linears
    if kind == "experts":
        return _run_experts(tape, x, recipe)
    size = recipe.activation_bytes * model.intermediate_size * recipe.tokens
    if kind == "gated":
        gate, up = linear(tape, x, modules[-3], recipe), linear(tape, x, modules[-2], recipe)
        active = tape.apply((gate,), gate.size, saves=(gate,))
        tape.release(gate)
        product = tape.apply((active, up), active.size, saves=(active, up))
        tape.release(active, up)
    else:
        inner = linear(tape, x, modules[-2], recipe)
        if kind == "fused_gated":
            product = tape.apply((inner,), size, saves=(inner,), saves_new=size, backward_workspace=3 * size)
        else:
            product = tape.apply((inner,), size, saves=(inner,))
        tape.release(inner)
    out = linear(tape, product, modules[-1], recipe)
    tape.release(product)
    return out


def _run_experts(tape: Tape, x: Value, recipe: Recipe) -> Value:
    """Fused experts, one after the other on their own tokens; not traced, so its range is wider."""
    model = recipe.model
    routed = recipe.tokens * model.experts_per_token
    width = recipe.activation_bytes
    inner = width * model.expert_size * routed
    outer = width * model.hidden_size * routed
    weights = model.num_expert_weights * recipe.dtype_bytes if recipe.is_full else 0
    return tape.apply(
        (x,),
        x.size,
        saves_new=3 * inner + outer + 4 * model.num_experts * recipe.tokens,
        workspace=inner // max(model.num_experts, 1),
        backward_workspace=4 * inner // max(model.num_experts, 1) + x.size,
        parameter_gradient=weights,
    )
