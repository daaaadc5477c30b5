"""Judge one answer to one case: pure functions, nothing is executed (see :mod:`pipeline.evals.tool_calls.state`).

An answer is right when it has no error code. Layers and codes: :mod:`pipeline.evals.tool_calls.codes`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from pipeline.evals.cases import Case, ExpectedCall
from pipeline.evals.tool_calls.arguments import ArgumentJudge
from pipeline.evals.tool_calls.bfcl import find_call_error
from pipeline.evals.tool_calls.codes import LAYERS, has_layer, sort_codes
from pipeline.evals.tool_calls.matching import match_all
from pipeline.evals.tool_calls.prediction import PredictedCall, Prediction, read_calls
from pipeline.evals.tool_calls.replies import judge_text
from pipeline.evals.tool_calls.schema import ToolSchema
from pipeline.evals.tool_calls.values import is_equal

Profile = Literal["strict", "bfcl"]


@dataclass(frozen=True, slots=True)
class ArgumentCount:
    """Arguments that were wanted, given, and right among both."""

    wanted: int = 0
    given: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class CaseScore:
    """What is right and wrong about one answer."""

    errors: tuple[str, ...]
    """Codes, the cause first."""
    checks: Mapping[str, bool]
    """By name, those that apply to the case; see `evals score`."""
    flags: tuple[str, ...] = ()
    """``coercible``: would be right after turning texts into numbers; ``integer_as_float``: 5.0 for 5."""
    arguments: ArgumentCount = ArgumentCount()
    """For precision and recall of arguments."""

    @property
    def correct(self) -> bool:
        """Nothing is wrong."""
        return not self.errors

    def with_errors(self, codes: Iterable[str]) -> "CaseScore":
        """Return the score with codes of a later layer."""
        return replace(self, errors=sort_codes((*self.errors, *codes)))


def score_case(
    case: Case | Mapping[str, Any],
    calls: Iterable[Any],
    *,
    profile: Profile = "strict",
    text: str | None = None,
) -> CaseScore:
    """Judge calls (``{name, arguments}``, or models of that shape) and, if given, the text beside them.

    Raises:
        ValueError: If the case is not of the format, or the profile is unknown.
    """
    parsed = case if isinstance(case, Case) else Case.model_validate(case)
    return CaseScorer(parsed, profile).score(read_calls(calls, text))


class CaseScorer:
    """One case, ready to judge any number of answers."""

    def __init__(self, case: Case, profile: Profile = "strict") -> None:
        if profile not in {"strict", "bfcl"}:
            raise ValueError(f"unknown profile {profile!r}: use strict or bfcl")
        self.case, self.profile = case, profile
        self._schemas: dict[str, ToolSchema] = {}

    def score(self, prediction: Prediction) -> CaseScore:
        """Judge an answer by everything but execution."""
        wanted, codes = self.case.expected, list(prediction.errors)
        if self.profile == "strict":
            codes += [code for call in prediction.calls for code, _ in self.find_schema_errors(call)]
        is_sound = not codes
        matched = _Matched()
        if wanted.kind == "calls":
            matched = self._judge_calls(prediction)
            codes += matched.codes
        else:
            codes += self._judge_decision(prediction)
        codes += judge_text(self.case, prediction) if self.profile == "strict" else []
        checks = self._name_checks(prediction, codes, is_sound=is_sound)
        return CaseScore(sort_codes(codes), checks, self._find_flags(prediction, codes), matched.count)

    def find_schema_errors(self, call: PredictedCall) -> list[tuple[str, str]]:
        """Return (code, message) for each way in which a call does not fit the tools."""
        schema = self.schema(call.name)
        if schema is None:
            return [("unknown_tool", f"there is no tool {call.name!r}")]
        return schema.find_errors(call.arguments)

    def schema(self, name: str) -> ToolSchema | None:
        """Return the compiled schema of a tool, or None if there is no such tool."""
        if name not in self._schemas and name in self._tools:
            self._schemas[name] = ToolSchema.of(self._tools[name])
        return self._schemas.get(name)

    @cached_property
    def _tools(self) -> dict[str, dict[str, Any]]:
        # The first of two tools with one name counts, as in BFCL.
        return {tool["function"]["name"]: tool for tool in reversed(self.case.openai_tools)}

    @cached_property
    def _arguments(self) -> ArgumentJudge:
        return ArgumentJudge(self.case)

    def _judge_decision(self, prediction: Prediction) -> list[str]:
        if self.case.expected.kind == "any_call":
            return [] if prediction.calls or prediction.errors else ["silent_when_call"]
        if not prediction.calls:
            return []  # broken call syntax has its own code
        return ["guessed_missing_argument" if self.case.expected.kind == "ask" else "called_when_none"]

    def _judge_calls(self, prediction: Prediction) -> "_Matched":
        wanted, made = self.case.expected.calls, prediction.calls
        count = ArgumentCount(sum(len(call.args) for call in wanted), sum(len(c.arguments) for c in made), 0)
        if not made:
            asks = "?" in (prediction.text or "")
            silent = [] if prediction.errors else ["asked_when_answerable" if asks else "silent_when_call"]
            return _Matched(codes=silent, count=count)
        table = [[self._judge_pair(call, other) for other in made] for call in wanted]
        pairs = self._assign(table)
        codes, leftover_pairs = self._judge_selection(prediction, table, pairs)
        codes += [code for i, j in leftover_pairs for code in table[i][j] or ()]
        both = [*pairs.items(), *leftover_pairs]
        right = sum(
            self._arguments.count_right(wanted[i], made[j], self.schema(made[j].name)) for i, j in both
        )
        return _Matched(codes=codes, count=replace(count, right=right))

    def _judge_pair(self, wanted: ExpectedCall, made: PredictedCall) -> list[str] | None:
        """Return what is wrong with a call in the place of a wanted one; None when it is another tool."""
        if wanted.name != made.name:
            return None
        schema = self.schema(made.name)
        if schema is None:
            return ["unknown_tool"]
        if self.profile == "bfcl":
            code = find_call_error(schema, wanted, made.arguments)
            return [code] if code else []
        return self._arguments.find_errors(wanted, made, schema)

    def _assign(self, table: list[list[list[str] | None]]) -> dict[int, int]:
        """Return which made call stands for which wanted one, as far as the order allows it."""
        fits = [[j for j, codes in enumerate(row) if codes == []] for row in table]
        order = self.case.expected.order
        if order == "any":
            return match_all(fits)
        if order == "strict":
            return {i: i for i, row in enumerate(fits) if i in row}
        found: dict[int, int] = {}
        position = -1
        for i, row in enumerate(fits):  # the earliest place is never worse than a later one
            place = next((j for j in row if j > position), None)
            if place is not None:
                found[i] = position = place
        return found

    def _judge_selection(
        self, prediction: Prediction, table: list[list[list[str] | None]], pairs: dict[int, int]
    ) -> tuple[list[str], list[tuple[int, int]]]:
        """Return selection codes, and which of the remaining calls were meant for which wanted ones."""
        wanted, made, order = self.case.expected.calls, prediction.calls, self.case.expected.order
        if len(pairs) == len(wanted) and (order == "partial" or len(made) == len(wanted)):
            return [], []
        if order != "any":
            fits = [[j for j, codes in enumerate(row) if codes == []] for row in table]
            unordered = match_all(fits)
            if len(unordered) == len(wanted) and (order == "partial" or len(made) == len(wanted)):
                return ["wrong_order"], []
        missing = Counter(call.name for call in wanted) - Counter(call.name for call in made)
        extra = Counter(call.name for call in made) - Counter(call.name for call in wanted)
        codes = _name_selection(missing.total(), extra.total(), made, may_have_more=order == "partial")
        return codes, _pair_leftovers(table, pairs)

    def _name_checks(self, prediction: Prediction, codes: list[str], *, is_sound: bool) -> dict[str, bool]:
        kind = self.case.expected.kind
        checks: dict[str, bool] = {}
        if kind in {"calls", "any_call"} or prediction.attempted:
            checks["json_accuracy"] = is_sound
            checks["parse_accuracy"] = not has_layer(prediction.errors, "parse")
        if kind == "calls":
            wanted = Counter(call.name for call in self.case.expected.calls)
            has_tools = wanted == Counter(call.name for call in prediction.calls)
            if self.case.expected.order == "partial":
                has_tools = wanted <= Counter(call.name for call in prediction.calls)
            checks["tool_accuracy"] = has_tools
            checks["arg_accuracy"] = not set(codes) - set(LAYERS["reply"])
        if kind in {"none", "ask"}:
            checks["no_call_accuracy"] = not prediction.attempted and "no_output" not in codes
        if kind == "ask":
            checks["ask_accuracy"] = checks["no_call_accuracy"] and "no_question" not in codes
        return checks

    def _find_flags(self, prediction: Prediction, codes: list[str]) -> tuple[str, ...]:
        flags = ["integer_as_float"] if any(map(self._has_whole_float, prediction.calls)) else []
        if self.profile == "strict" and "type_error" in codes:
            calls = tuple(self._coerce(call) for call in prediction.calls)
            if calls != prediction.calls and not self.score(replace(prediction, calls=calls)).errors:
                flags.append("coercible")
        return tuple(flags)

    def _has_whole_float(self, call: PredictedCall) -> bool:
        schema = self.schema(call.name)
        properties = schema.properties if schema else {}
        return any(
            isinstance(value, float) and properties.get(name, {}).get("type") == "integer"
            for name, value in call.arguments.items()
        )

    def _coerce(self, call: PredictedCall) -> PredictedCall:
        schema = self.schema(call.name)
        properties = schema.properties if schema else {}
        arguments = {k: coerce(v, properties.get(k, {}).get("type")) for k, v in call.arguments.items()}
        return PredictedCall(call.name, arguments)


@dataclass(frozen=True, slots=True)
class _Matched:
    codes: list[str] | tuple[()] = ()
    count: ArgumentCount = ArgumentCount()


def coerce(value: Any, kind: Any) -> Any:
    """Return a value as the declared type where the text says just that; else as it is."""
    if kind == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return value
    if kind == "boolean" and value.casefold() in {"true", "false"}:
        return value.casefold() == "true"
    try:
        if kind == "integer":
            return int(value)
        return float(value) if kind == "number" else value
    except ValueError:
        return value


def _name_selection(
    num_missing: int, num_extra: int, made: tuple[PredictedCall, ...], *, may_have_more: bool
) -> list[str]:
    codes = ["wrong_tool"] if num_missing and num_extra and not may_have_more else []
    if num_missing > num_extra or (num_missing and may_have_more):
        codes.append("missing_call")
    if num_extra > num_missing and not may_have_more:
        is_repeated = any(_is_same_call(one, other) for i, one in enumerate(made) for other in made[:i])
        codes.append("duplicate_call" if is_repeated else "extra_call")
    return codes


def _is_same_call(one: PredictedCall, other: PredictedCall) -> bool:
    return one.name == other.name and is_equal(one.arguments, other.arguments)


def _pair_leftovers(table: list[list[list[str] | None]], pairs: dict[int, int]) -> list[tuple[int, int]]:
    """Pair what is left of the same tool, the least wrong first."""
    taken = set(pairs.values())
    options = sorted(
        (len(codes), i, j)
        for i, row in enumerate(table)
        if i not in pairs
        for j, codes in enumerate(row)
        if codes is not None and j not in taken
    )
    found: dict[int, int] = {}
    for _, i, j in options:
        if i not in found and j not in found.values():
            found[i] = j
    return list(found.items())
