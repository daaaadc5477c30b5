"""A recipe inside other requests: checked like the one of ``train run``, described once, there.

The whole schema of a recipe in every tool would cost an MCP client five times its context.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from pipeline.train.recipe import PRESETS, TrainRecipe


def _check(values: dict[str, Any]) -> dict[str, Any]:
    try:
        TrainRecipe.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ValueError("; ".join(problems)) from error
    return values


RecipeValues = Annotated[dict[str, Any], AfterValidator(_check)]
"""Fields of a recipe, as `train run` takes them."""


def choose_recipe(values: dict[str, Any] | None, preset: str) -> TrainRecipe:
    """Return the recipe of a request: its own, or that of the preset."""
    return PRESETS[preset]() if values is None else TrainRecipe.model_validate(values)
