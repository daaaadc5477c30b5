"""Is a case itself sound? A case that no answer could satisfy is reported and not scored."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pipeline.evals.cases import Alternative, Case, ExpectedCall, Slot
from pipeline.evals.tool_calls.grounding import Ground
from pipeline.evals.tool_calls.prediction import PredictedCall
from pipeline.evals.tool_calls.schema import Schema, ToolSchema
from pipeline.evals.tool_calls.scoring import CaseScorer
from pipeline.evals.tool_calls.values import fold

_BY_VALUE = frozenset({None, "exact", "casefold", "text", "list", "set", "number"})


class Finding(NamedTuple):
    """One thing that is wrong with a case."""

    id: str
    """Case id."""
    code: str
    """``no_tools``, ``broken_schema``, ``duplicate_tool``, ``reference_*`` and the schema code, ``contradiction``,
    ``ungrounded_reference``."""
    message: str
    """In plain words."""
    is_fatal: bool
    """No answer could be right, so the case is not scored."""


def lint_cases(cases: Sequence[Case]) -> list[Finding]:
    """Return findings about cases one by one and against each other."""
    return [finding for case in cases for finding in lint_case(case)] + list(_find_contradictions(cases))


def lint_case(case: Case, scorer: CaseScorer | None = None) -> list[Finding]:
    """Return findings about one case."""
    scorer = scorer or CaseScorer(case)
    found: list[Finding] = []
    if not case.openai_tools and case.expected.kind in {"calls", "any_call", "ask"}:
        found.append(Finding(case.id, "no_tools", "calls are expected, but there is no tool", is_fatal=True))
        return found
    names = [tool["function"]["name"] for tool in case.openai_tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        found.append(Finding(case.id, "duplicate_tool", f"two tools are called {twice[0]!r}", is_fatal=False))
    for position, call in enumerate(case.expected.calls):
        schema = scorer.schema(call.name)
        if schema is None:
            message = f"call {position}: there is no tool {call.name!r}"
            found.append(Finding(case.id, "reference_unknown_tool", message, is_fatal=True))
        elif problem := schema.check():
            found.append(Finding(case.id, "broken_schema", f"{call.name}: {problem}", is_fatal=True))
        else:
            found += _lint_call(case.id, f"call {position}", call, schema)
    return found


def find_ungrounded(case: Case) -> Iterator[Finding]:
    """Find values of the right answer that nobody said; a warning, because an answer may be worked out."""
    ground, scorer = Ground(case), CaseScorer(case)
    for wanted in case.expected.calls:
        call, schema = build_reference(wanted), scorer.schema(wanted.name)
        for name, value in call.arguments.items():
            field = schema.properties.get(name, {}) if schema else {}
            if _must_be_said(value, field) and not ground.holds(value):
                message = f"{name} = {value!r} is nowhere in the messages"
                yield Finding(case.id, "ungrounded_reference", message, is_fatal=False)


def build_reference(call: ExpectedCall) -> PredictedCall:
    """Return the first right version of an expected call, optional arguments included where they have a value."""
    arguments = {name: materialise(slot.any_of[0]) for name, slot in call.args.items() if slot.any_of}
    return PredictedCall(call.name, arguments)


def materialise(alternative: Alternative) -> Any:
    """Return a value that an alternative accepts, the first of each choice."""
    if alternative.object is not None:
        return {k: materialise(slot.any_of[0]) for k, slot in alternative.object.items() if slot.any_of}
    if alternative.list is not None:
        return [materialise(part) for part in alternative.list]
    return alternative.value


def _must_be_said(value: Any, field: Schema) -> bool:
    """Numbers and free texts come from the user or a result; enums, booleans and dates may be inferred."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    return not field.get("enum") and field.get("format") not in {"date", "date-time", "time"}


def _lint_call(identity: str, place: str, call: ExpectedCall, schema: ToolSchema) -> Iterator[Finding]:
    for name in schema.required:
        if name not in call.args or (not call.args[name].any_of and call.args[name].match != "ignore"):
            message = f"{place}: the right answer lacks {name!r}, which {call.name} requires"
            yield Finding(identity, "reference_missing_required", message, is_fatal=True)
    for name, slot in call.args.items():
        yield from _lint_slot(identity, f"{place}, {name}", slot, _Argument(schema, name))


class _Argument(NamedTuple):
    tool: ToolSchema
    name: str

    def find_errors(self, value: Any) -> list[tuple[str, str]]:
        """Return what is wrong with the value of this argument alone."""
        found = self.tool.find_errors({self.name: value})
        missing = [("missing_required", f"{name!r} is a required property") for name in self.tool.required]
        return [error for error in found if error not in missing]


def _lint_slot(identity: str, place: str, slot: Slot, argument: _Argument) -> Iterator[Finding]:
    if not slot.any_of and not slot.optional and slot.match != "ignore":
        message = f"{place}: no value is right and it may not be left out"
        yield Finding(identity, "reference_unreachable", message, is_fatal=True)
    if slot.match not in _BY_VALUE and not str(slot.match).startswith("number"):
        return  # a pattern, or a date in any wording, is no value to check
    broken = [
        (materialise(alternative), errors[0])
        for alternative in slot.any_of
        if (errors := argument.find_errors(materialise(alternative)))
    ]
    may_be_left_out = slot.optional and argument.name not in argument.tool.required
    is_fatal = len(broken) == len(slot.any_of) and not may_be_left_out
    for value, (code, message) in broken:
        shown = json.dumps(value, ensure_ascii=False)[:80]
        yield Finding(identity, f"reference_{code}", f"{place}: {shown}: {message[:200]}", is_fatal=is_fatal)


def _find_contradictions(cases: Iterable[Case]) -> Iterator[Finding]:
    """Find cases that ask the same and expect something else."""
    seen: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        asked = [[message["role"], fold(json.dumps(message, sort_keys=True))] for message in case.messages]
        setting: Schema = {"tools": list(case.openai_tools), "state": case.initial_state, "today": case.today}
        seen[json.dumps([asked, setting], sort_keys=True)].append(case)
    for same in seen.values():
        for case in same[1:]:
            if case.expected != same[0].expected:
                message = f"asks what {same[0].id!r} asks and expects another answer"
                yield Finding(case.id, "contradiction", message, is_fatal=False)
