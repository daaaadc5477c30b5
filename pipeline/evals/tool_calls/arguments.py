"""Compare the arguments of one call with the alternatives of the case, and name what is wrong."""

from functools import cached_property
from typing import Any

from pipeline.evals.cases import Case, ExpectedCall, Slot
from pipeline.evals.tool_calls.grounding import Ground
from pipeline.evals.tool_calls.prediction import PredictedCall
from pipeline.evals.tool_calls.schema import Schema, ToolSchema
from pipeline.evals.tool_calls.values import is_right, parse_date


class ArgumentJudge:
    """Judges calls of one case."""

    def __init__(self, case: Case) -> None:
        self._case = case

    @cached_property
    def _ground(self) -> Ground:
        return Ground(self._case)

    def find_errors(self, wanted: ExpectedCall, made: PredictedCall, schema: ToolSchema) -> list[str]:
        """Return the codes of a call of the right tool."""
        codes: list[str] = []
        for name, slot in wanted.args.items():
            if name not in made.arguments and not slot.optional:
                codes.append("missing_required" if name in schema.required else "lost_constraint")
        for name, value in made.arguments.items():
            slot = wanted.args.get(name)
            if slot is None:
                codes.append("extra_argument")
            elif not is_right(slot, value, schema.properties.get(name, {})):
                codes.append(_name_wrong_value(slot, value, schema.properties.get(name, {})))
            else:
                continue
            if not self._ground.holds(value):
                codes.append("ungrounded_value")
        return codes

    def count_right(self, wanted: ExpectedCall, made: PredictedCall, schema: ToolSchema | None) -> int:
        """Return how many arguments are right."""
        properties = schema.properties if schema else {}
        return sum(
            name in made.arguments and is_right(slot, made.arguments[name], properties.get(name, {}))
            for name, slot in wanted.args.items()
        )


def _name_wrong_value(slot: Slot, value: Any, schema: Schema) -> str:
    is_date = slot.match in {"date", "datetime"} or schema.get("format") in {"date", "date-time"}
    days = [parse_date(alternative.value) for alternative in slot.any_of]
    if parse_date(value) is not None and (is_date or any(days)):
        return "date_resolution"
    return "wrong_value"
