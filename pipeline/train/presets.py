"""``train.presets``: every preset with its values and the reason for each.

The reason is the comment beside the value in ``recipe.py``, so that it is written once, where the value is changed. A
value without one is the field's default or explained by the field's own text.
"""

import ast
import inspect
import io
import tokenize
from typing import Any

from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.train import recipe as recipes
from pipeline.train.recipe import PRESETS, PresetName, TrainRecipe


class TrainPresetsRequest(Request):
    """Which presets to list."""

    preset: PresetName | None = None
    """Only this one, with the fields it leaves at their default too."""


class PresetValue(Part):
    """One value of a preset."""

    field: str
    """Field of the recipe."""
    value: Any
    """Its value."""
    reason: str
    """Why."""
    is_default: bool
    """True when the preset leaves it as the recipe has it."""


class Preset(Part):
    """One preset."""

    name: str
    """For `train run --preset`."""
    summary: str
    """What it is for."""
    global_batch_size: int
    """Rows an optimizer step on one device."""
    values: list[PresetValue]
    """Values and reasons."""


class TrainPresetsResult(Result):
    """Presets in reading order."""

    presets: list[Preset]
    """What there is."""

    def styled_text(self) -> list[tuple[str, str]]:
        """Show each preset as a block: value and reason side by side."""
        pieces: list[tuple[str, str]] = []
        for preset in self.presets:
            pieces += [(f"{preset.name}\n", "bold"), (f"  {preset.summary}\n", "")]
            for value in preset.values:
                pieces.append((f"  {value.field} = {_show(value.value)}", "cyan"))
                pieces.append((f"\n      {value.reason}\n" if value.reason else "\n", "dim"))
        return pieces


def list_presets(request: TrainPresetsRequest) -> TrainPresetsResult:
    """List the training presets with the reason for each value."""
    names = [request.preset] if request.preset else list(PRESETS)
    reasons = read_reasons()
    return TrainPresetsResult(
        presets=[_describe(name, reasons, with_defaults=request.preset is not None) for name in names],
        next_step=f"llmops train run DATA --preset {names[0]}",
    )


def read_reasons() -> dict[str, dict[str, str]]:
    """Return, by preset function and field, the comments in the source of ``recipe.py``."""
    source = inspect.getsource(recipes)
    comments = {
        token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        function.name: {
            keyword.arg: _comment_at(keyword, comments)
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg
        }
        for function in ast.parse(source).body
        if isinstance(function, ast.FunctionDef)
    }


def _comment_at(keyword: ast.keyword, comments: dict[int, tuple[str, bool]]) -> str:
    """Return the comment lines above a keyword and the one at its end."""
    above: list[str] = []
    line = keyword.lineno - 1
    while (found := comments.get(line)) is not None and found[1]:
        above.insert(0, found[0])
        line -= 1
    beside = comments.get(keyword.end_lineno or keyword.lineno)
    return " ".join([*above, *([beside[0]] if beside and not beside[1] else [])])


def _describe(name: PresetName | str, reasons: dict[str, dict[str, str]], *, with_defaults: bool) -> Preset:
    make = PRESETS[name]
    recipe = make()
    given = reasons[make.__name__]
    fields = [field for field in TrainRecipe.model_fields if with_defaults or field in given]
    return Preset(
        name=name,
        summary=(inspect.getdoc(make) or "").split("\n")[0],
        global_batch_size=recipe.micro_batch_size * recipe.gradient_accumulation_steps,
        values=[
            PresetValue(
                field=field,
                value=recipe.model_dump(mode="json")[field],
                reason=given.get(field) or (TrainRecipe.model_fields[field].description or ""),
                is_default=field not in given,
            )
            for field in fields
        ],
    )


def _show(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - JSON


TRAIN_PRESETS = Operation(
    name="train.presets",
    request=TrainPresetsRequest,
    result=TrainPresetsResult,
    run=list_presets,
    read_only=True,
    positional=("preset",),
)
