"""train.presets: what it prints is what training uses, and every reason is the one in the source."""

import pytest

from pipeline.render import render_result
from pipeline.train.presets import TRAIN_PRESETS, read_reasons
from pipeline.train.recipe import PRESETS, TrainRecipe, cpu_smoke


def test_every_preset_is_listed_with_the_values_that_training_takes() -> None:
    result = TRAIN_PRESETS.call({})
    assert [preset.name for preset in result.presets] == list(PRESETS)
    for preset in result.presets:
        values = PRESETS[preset.name]().model_dump(mode="json")
        assert all(values[value.field] == value.value for value in preset.values)


def test_every_value_of_every_preset_has_a_reason() -> None:
    without = [
        (preset.name, value.field)
        for preset in TRAIN_PRESETS.call({}).presets
        for value in preset.values
        if not value.reason
    ]
    assert without == []


def test_the_reason_is_the_comment_beside_the_value() -> None:
    # Read in recipe.py by eye.
    assert "gate rightly refuses" in read_reasons()["cpu_smoke"]["max_steps"]
    assert "decision 0008" in read_reasons()["cpu_quality"]["method"]


def test_one_preset_is_shown_with_its_defaults_too() -> None:
    (preset,) = TRAIN_PRESETS.call({"preset": "cpu-smoke"}).presets
    assert [value.field for value in preset.values] == list(TrainRecipe.model_fields)
    assert preset.global_batch_size == cpu_smoke().micro_batch_size
    assert {value.field: value.is_default for value in preset.values}["weight_decay"]


def test_a_terminal_shows_value_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    render_result(TRAIN_PRESETS.call({"preset": "cpu-smoke"}))
    shown = capsys.readouterr().out
    assert "max_steps = 40" in shown
    assert "gate" in shown
