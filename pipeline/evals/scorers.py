"""Judge one answer against the right one: pure functions, no network, no model.

An answer is right when it has no error code. Codes by layer; the first one names the cause, the others follow it:

| layer | codes |
| --- | --- |
| syntax | no_output, truncated, not_json, arguments_not_object, wrong_wrapper (call text outside a call), \
leaked_markup (tool results or turn marks in the text), retried |
| schema | unknown_tool, undeclared_argument, missing_required, type_error, enum_violation, range_violation |
| decision | silent_when_call, asked_when_answerable, called_when_none, guessed_missing_argument |
| selection | wrong_tool, missing_call, extra_call, duplicate_call, wrong_order |
| arguments | lost_constraint (left out), extra_argument, wrong_value, ungrounded_value (in neither conversation nor \
results, such as a default the user never said), date_resolution (another day), date_wording (same day, other words) |
| state | call_error (refused by the API, unlike the gold call), state_mismatch (other tasks afterwards, or not the list \
that the gold call returned), side_effect (wrote another task) |
| reply | claims_undone_action, no_question, wrong_question, missing_fact, wrong_fact |

Texts are compared without case and runs of spaces; numbers as numbers (5.0 is 5, JSON Schema 6.1.1), enums exactly.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pipeline.core.messages import ToolCall
from pipeline.evals.predictions import Reply
from pipeline.evals.replies import fold, is_grounded, judge_question, judge_reply, judge_talk
from pipeline.evals.turns import Turn
from pipeline.task_api.due_dates import resolve_due_date
from pipeline.task_api.errors import DueDateError
from pipeline.task_api.tools import find_problem, load_tools

LAYERS: dict[str, tuple[str, ...]] = {
    "syntax": (
        "no_output",
        "truncated",
        "not_json",
        "arguments_not_object",
        "wrong_wrapper",
        "leaked_markup",
        "retried",
    ),
    "schema": (
        "unknown_tool",
        "undeclared_argument",
        "missing_required",
        "type_error",
        "enum_violation",
        "range_violation",
    ),
    "decision": ("silent_when_call", "asked_when_answerable", "called_when_none", "guessed_missing_argument"),
    "selection": ("wrong_tool", "missing_call", "extra_call", "duplicate_call", "wrong_order"),
    "arguments": (
        "lost_constraint",
        "extra_argument",
        "wrong_value",
        "ungrounded_value",
        "date_resolution",
        "date_wording",
    ),
    "state": ("call_error", "state_mismatch", "side_effect"),
    "reply": ("claims_undone_action", "no_question", "wrong_question", "missing_fact", "wrong_fact"),
}
_ORDER = {code: rank for rank, code in enumerate(code for codes in LAYERS.values() for code in codes)}
_RULE_CODES = {
    "tool": "unknown_tool",
    "additionalProperties": "undeclared_argument",
    "required": "missing_required",
    "type": "type_error",
    "enum": "enum_violation",
    "minLength": "range_violation",
    "minimum": "range_violation",
}
_MARKUP = re.compile(r"</?tool_response|<\|im_|<\|endoftext")
_DATE_ARGUMENTS = frozenset({"due_date", "due_before"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is right and wrong about one answer."""

    errors: tuple[str, ...]
    """Codes, the cause first."""
    checks: dict[str, bool]
    """By name, those that apply: well_formed, right_tools, right_arguments, right_state, no_call, right_question, \
grounded."""

    @property
    def correct(self) -> bool:
        """The whole turn is right."""
        return not self.errors


def score_turn(turn: Turn, reply: Reply) -> Verdict:
    """Judge an answer."""
    syntax = find_syntax_errors(reply)
    attempted = bool(reply.tool_calls or reply.broken or reply.retried) or "wrong_wrapper" in syntax
    errors = set(syntax)
    checks: dict[str, bool] = {}
    if attempted:
        checks["well_formed"] = not errors - {"leaked_markup"}
    if turn.kind == "call":
        errors |= _judge_calls(turn, reply, attempted=attempted)
        selection = errors & {*LAYERS["decision"], *LAYERS["selection"]}
        checks["right_tools"] = not selection
        checks["right_arguments"] = not selection and not errors & set(LAYERS["arguments"])
        checks["right_state"] = not errors & {"state_mismatch", "side_effect"}
    elif attempted:
        errors.add("guessed_missing_argument" if turn.kind == "ask" else "called_when_none")
        checks |= _name_text_check(turn, right=False)
    else:
        judge = {"ask": judge_question, "talk": judge_talk, "reply": judge_reply}[turn.kind]
        found = [] if "no_output" in errors else judge(turn, reply.content)
        errors |= set(found)
        checks |= _name_text_check(turn, right=not errors)
    if turn.kind in {"ask", "talk"}:
        checks["no_call"] = not attempted
    return Verdict(tuple(sorted(errors, key=_ORDER.__getitem__)), checks)


def find_reference_errors(turn: Turn) -> tuple[str, ...]:
    """Return what is wrong with the right answer itself; a turn with such an answer cannot be scored."""
    gold = Reply(content=turn.gold.content or "", tool_calls=turn.gold.tool_calls, finish_reason="stop")
    errors = score_turn(turn, gold).errors
    return errors if errors or turn.kind != "reply" or is_grounded(turn) else ("wrong_fact",)


def _name_text_check(turn: Turn, *, right: bool) -> dict[str, bool]:
    names = {"ask": "right_question", "reply": "grounded"}
    return {names[turn.kind]: right} if turn.kind in names else {}


def find_syntax_errors(reply: Reply) -> list[str]:
    """Return the syntax and schema codes of an answer, whatever was expected."""
    codes: list[str] = []
    if reply.finish_reason == "length":
        codes.append("truncated")
    if reply.retried:
        codes.append("retried")
    if reply.broken:
        codes.append(reply.broken)
    elif not reply.tool_calls and not reply.content.strip():
        codes.append("no_output")
    elif looks_like_call(reply.content):
        codes.append("wrong_wrapper")
    if _MARKUP.search(reply.content):
        codes.append("leaked_markup")
    problems = (find_problem(call.name, call.arguments) for call in reply.tool_calls)
    return codes + [_RULE_CODES[problem.rule] for problem in problems if problem]


def looks_like_call(text: str) -> bool:
    """True when visible text holds what should have been a call: a tag, its JSON, or a tool name with a bracket."""
    names = "|".join(tool["function"]["name"] for tool in load_tools())
    pattern = (
        rf"</?tool_call|\"(?:name|arguments|function|parameters)\"\s*:|\b(?:{names})\s*[({{]"
        rf"|[\[{{]\s*\"(?:{names})\""
    )
    return re.search(pattern, text) is not None


def _judge_calls(turn: Turn, reply: Reply, *, attempted: bool) -> set[str]:
    gold, made = turn.gold.tool_calls, reply.tool_calls
    if not attempted:
        decision = {"asked_when_answerable" if "?" in reply.content else "silent_when_call"}
        return decision | _judge_state(turn, made)
    codes = set(judge_selection(gold, made))
    if not codes - {"wrong_order"}:
        # With the same tools in another order, the first create is held against the first create, and so on.
        pairs = zip(sorted(gold, key=lambda c: c.name), sorted(made, key=lambda c: c.name), strict=True)
        codes |= {code for right, call in pairs for code in judge_arguments(turn, right, call)}
    return codes | _judge_state(turn, made)


def judge_selection(gold: Sequence[ToolCall], made: Sequence[ToolCall]) -> list[str]:
    """Compare the sequences of tool names."""
    wanted, found = [call.name for call in gold], [call.name for call in made]
    if wanted == found:
        return []
    missing, extra = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    if not missing and not extra:
        return ["wrong_order"]
    if missing and extra:
        return ["wrong_tool"]
    if missing:
        return ["missing_call"]
    seen = [(call.name, _comparable(call.arguments)) for call in made]
    return ["duplicate_call" if any(seen.count(call) > 1 for call in seen) else "extra_call"]


def judge_arguments(turn: Turn, gold: ToolCall, made: ToolCall) -> list[str]:
    """Compare the arguments of two calls of one tool."""
    codes = ["lost_constraint" for key in gold.arguments if key not in made.arguments]
    for key, value in made.arguments.items():
        if key not in gold.arguments:
            codes.append("extra_argument" if _is_grounded(turn, value) else "ungrounded_value")
        elif _comparable(value) != _comparable(gold.arguments[key]):
            codes.append(_name_wrong_value(turn, key, gold.arguments[key], value))
    return codes


def _name_wrong_value(turn: Turn, key: str, gold: Any, made: Any) -> str:
    if key in _DATE_ARGUMENTS:
        day = _resolve(str(gold), turn.today)
        is_same = day is not None and day == _resolve(str(made), turn.today)
        return "date_wording" if is_same else "date_resolution"
    return "wrong_value" if _is_grounded(turn, made) else "ungrounded_value"


def _judge_state(turn: Turn, made: Sequence[ToolCall]) -> set[str]:
    wanted, got = turn.execute(turn.gold.tool_calls), turn.execute(made)
    codes: set[str] = set()
    returned = [_comparable(result) for result in got.results]
    lists = [_comparable(result) for result in wanted.results if "tasks" in result]
    if _comparable(got.tasks) != _comparable(wanted.tasks) or any(found not in returned for found in lists):
        codes.add("state_mismatch")
    if got.written_ids - wanted.written_ids:
        codes.add("side_effect")
    refused = {result["error"] for result in wanted.results if "error" in result}
    if any(result.get("error", "") not in {"", *refused} for result in got.results):
        codes.add("call_error")
    return codes


def _comparable(value: Any) -> Any:
    """Return a value in which equal means the same to the user: texts folded, true kept apart from 1."""
    if isinstance(value, str):
        return fold(value)
    if isinstance(value, dict):
        return {key: _comparable(part) for key, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_comparable(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    return (type(value).__name__, value) if isinstance(value, bool) else value


def _is_grounded(turn: Turn, value: Any) -> bool:
    words = fold(
        " ".join(message.content or "" for message in turn.history if message.role in {"user", "tool"})
    )
    if isinstance(value, str):
        return not value.strip() or fold(value) in words
    return str(value).removesuffix(".0") in re.findall(r"\d+", words)


def _resolve(words: str, today: date) -> date | None:
    try:
        return resolve_due_date(words, today, allow_past=True)
    except DueDateError:
        return None
