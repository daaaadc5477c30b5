"""Stepping down when memory runs out keeps the global batch, and the estimate says where to begin."""

from pathlib import Path

import pytest

from pipeline.core.errors import DoesNotFitError
from pipeline.core.files import write_json
from pipeline.train.ladder import Rung, first_rung, next_rung
from pipeline.train.memory import choose_rung
from pipeline.train.recipe import TrainRecipe

RECIPE = TrainRecipe(micro_batch_size=6, gradient_accumulation_steps=2, max_length=400)


def test_the_steps_are_micro_batch_then_checkpointing_then_length() -> None:
    rungs: list[Rung] = []
    rung: Rung | None = first_rung(RECIPE)
    while rung is not None:
        rungs.append(rung)
        rung = next_rung(rung, [320, 240, 180, 135, 60, 60, 60, 60], RECIPE)
    assert rungs == [
        Rung(6, 2, False, 400),
        Rung(3, 4, False, 400),
        Rung(1, 12, False, 400),
        Rung(1, 12, True, 400),
        Rung(1, 12, True, 240),  # three quarters of 320, of 240, of 180; 101 would be the next
        Rung(1, 12, True, 180),
        Rung(1, 12, True, 135),
        Rung(1, 12, True, 101),
    ]  # 75 would be below a quarter of what the recipe asks for


def test_every_step_keeps_the_global_batch() -> None:
    recipe = TrainRecipe(micro_batch_size=20, gradient_accumulation_steps=3)
    rung: Rung | None = first_rung(recipe)
    while rung is not None:
        assert rung.micro_batch_size * rung.gradient_accumulation_steps == 60
        rung = next_rung(rung, [100], recipe)


def test_no_step_leaves_out_more_than_half_of_the_rows() -> None:
    foot = Rung(1, 12, True, 400)
    assert next_rung(foot, [320, 320, 240, 240], RECIPE) == Rung(1, 12, True, 240)
    assert next_rung(foot, [320, 320, 320, 240, 240], RECIPE) is None


@pytest.fixture
def facts(tmp_path: Path) -> dict[str, object]:
    """A 1.1 B Llama in 16 bits: 2.05 GiB of weights."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }
    write_json(tmp_path / "config.json", config)
    return {"model": tmp_path, "device_type": "cpu", "dtype": "bfloat16"}


def test_a_recipe_that_fits_begins_as_it_is(facts: dict[str, object]) -> None:
    assert choose_rung(RECIPE, first_rung(RECIPE), [320], 64 << 30, facts) == first_rung(RECIPE)


def test_a_recipe_that_is_too_large_begins_lower(facts: dict[str, object]) -> None:
    recipe = TrainRecipe(micro_batch_size=64, max_length=1024)
    rung = choose_rung(recipe, first_rung(recipe), [1024], 8 << 30, facts)
    assert rung.micro_batch_size < 64
    assert rung.max_length == 1024


def test_a_recipe_that_cannot_fit_is_refused_with_numbers(facts: dict[str, object]) -> None:
    # The weights alone take 1.1e9 x 2 bytes.
    with pytest.raises(DoesNotFitError, match="free") as caught:
        choose_rung(RECIPE, first_rung(RECIPE), [320], 1 << 30, facts)
    needed = caught.value.details["needed_bytes"]
    assert isinstance(needed, int)
    assert needed > 2.0e9


def test_the_estimate_does_not_begin_without_most_of_the_rows(facts: dict[str, object]) -> None:
    with pytest.raises(DoesNotFitError, match="rows up to 400 tokens"):  # of 135 tokens they might fit
        choose_rung(RECIPE, first_rung(RECIPE), [320] * 10, 2350 << 20, facts)


def test_a_model_that_the_estimate_does_not_know_is_tried(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "unheard-of"})
    facts: dict[str, object] = {"model": tmp_path, "device_type": "cpu", "dtype": "float32"}
    assert choose_rung(RECIPE, first_rung(RECIPE), [320], 1, facts) == first_rung(RECIPE)
