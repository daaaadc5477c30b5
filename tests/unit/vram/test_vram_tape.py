"""The tape counts what autograd holds: worked examples by hand, and that nothing is left over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.vram.model_config import read_architecture
from pipeline.vram.recipe import Recipe
from pipeline.vram.step import measure_layer
from pipeline.vram.tape import Tape
from pipeline.vram.training import LAYERS


def test_a_kept_input_lives_until_its_operation_has_gone_backwards() -> None:
    tape = Tape()
    x = tape.new(10)
    y = tape.apply((x,), 20, saves=(x,))
    tape.release(x)
    assert tape.live == 30
    tape.release(y)
    assert (tape.live, tape.peak) == (10, 30)
    tape.backward(y, 20)  # 20 for the gradient of y, 10 for that of x; then y's gradient and x go
    assert (tape.live, tape.peak) == (10, 40)


def test_gradients_of_a_branch_meet_in_place() -> None:
    tape = Tape()
    x = tape.new(10)
    left, right = tape.apply((x,), 10), tape.apply((x,), 10)
    out = tape.add(left, right)
    tape.release(x, left, right, out)
    assert (tape.live, tape.peak) == (0, 40)
    tape.peak = 0
    tape.backward(
        out, 10
    )  # the sum passes one gradient to both; each branch makes its own, the second joins the first
    assert (tape.live, tape.peak) == (10, 30)


def test_an_input_that_needs_no_gradient_is_not_kept() -> None:
    tape = Tape()
    x = tape.new(10, needs_grad=False)
    y = tape.apply((x,), 10, saves=(x,), saves_new=5)
    tape.release(x, y)
    assert tape.live == 0
    z = tape.apply((x,), 10, saves=(x,), parameter_gradient=7)
    assert z.needs_grad


def test_a_view_pins_the_whole_block() -> None:
    tape = Tape()
    block = tape.new(30)
    part = tape.view(block, 10)
    tape.release(block)
    assert tape.live == 30
    tape.release(part)
    assert tape.live == 0


FAMILIES = ["llama", "qwen3", "gemma", "gemma3_text", "phi3", "phi", "olmo2", "falcon", "gpt_neox"]


@pytest.mark.parametrize("stack", LAYERS)
@given(
    family=st.sampled_from(FAMILIES),
    is_full=st.booleans(),
    attention=st.sampled_from(["flash", "efficient", "eager"]),
    quantized=st.booleans(),
    autocast=st.booleans(),
    length=st.integers(1, 300),
)
def test_after_the_backward_pass_only_gradients_are_left(
    stack: str, family: str, is_full: bool, attention: str, quantized: bool, autocast: bool, length: int
) -> None:
    config = {
        "model_type": family,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
    }
    model = read_architecture(config, family)
    recipe = Recipe(
        model=model,
        stack=stack,  # pyright: ignore[reportArgumentType] - a key of LAYERS
        is_full=is_full,
        quantization="nf4" if quantized and not is_full else "none",
        target_names=() if is_full else tuple(linear.name for linear in model.linears),
        rank=0 if is_full else 4,
        has_dropout=False,
        batch=1,
        length=length,
        dtype_bytes=4 if autocast and is_full else 2,
        adapter_bytes=4 if autocast else 2,
        activation_bytes=2,
        stream_bytes=4 if autocast and is_full else 2,
        is_autocast=autocast,
        attention=attention,  # pyright: ignore[reportArgumentType] - one of the three
        expands_kv=attention == "efficient",
        keeps_quantized_input=False,
        keeps_outputs=False,
        loss="standard",
        rest_bytes=0,
        quantized_head=False,
    )
    cost = measure_layer(LAYERS[recipe.stack], recipe)
    assert cost.saved > 0
    assert cost.forward_peak > cost.saved
    assert cost.backward_peak > cost.saved
    assert cost.left_over == cost.input_size + cost.gradients
