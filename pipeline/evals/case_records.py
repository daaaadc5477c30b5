"""From a raw answer to a neutral case to the judged record that reports and comparisons read."""

import hashlib
import json
from typing import Any

from pipeline.core.messages import ToolCall
from pipeline.evals.answers import Answer
from pipeline.evals.case_judge import CaseJudge
from pipeline.evals.cases import Case
from pipeline.evals.predictions import Breakage, Reply
from pipeline.evals.records import TurnRecord
from pipeline.evals.tool_calls import CaseScore, Prediction, parse_text, read_calls
from pipeline.evals.tool_calls.lint import build_reference
from pipeline.evals.turns import Kind

_ASKED = (
    "tools",
    "tool_set",
    "messages",
    "expected",
    "initial_state",
    "expected_state",
    "oracle_calls",
    "today",
)
_KINDS: dict[str, Kind] = {"calls": "call", "any_call": "call", "ask": "ask", "none": "talk"}


def judge_answer(judge: CaseJudge, answer: Answer) -> TurnRecord:
    """Parse, judge and keep one answer."""
    case = judge.case
    prediction = read_prediction(case, answer)
    score = judge.judge(prediction)
    return TurnRecord(
        id=case.id,
        turn=answer.repeat,
        kind=_KINDS[case.expected.kind],
        intent=str(case.tags.get("intent", "-")),
        group=case.cluster,
        digest=digest_case(case),
        user=case.user_text(),
        gold=describe_expected(case),
        predicted=_to_reply(answer, prediction),
        tags={str(name): str(value) for name, value in case.tags.items()},
        correct=score.correct,
        errors=score.errors,
        checks=_name_checks(case, prediction, score),
    )


def read_prediction(case: Case, answer: Answer) -> Prediction:
    """Return the calls and the text of an answer, and what is wrong with its form."""
    calls: list[Any] = (answer.message or {}).get("tool_calls") or []
    names = [tool["function"]["name"] for tool in case.openai_tools]
    text = answer.visible_text
    found = read_calls(calls, text) if calls else parse_text(text, names)
    errors = [*found.errors, *(["truncated"] if answer.finish_reason == "length" else [])]
    if answer.finish_reason == "unparsable" and not errors:
        errors.append("not_json")
    return Prediction(found.calls, found.text, tuple(dict.fromkeys(errors)), found.parser)


def describe_expected(case: Case) -> dict[str, Any]:
    """Return the right answer in OpenAI form: the first alternative of each argument, or what kind of text."""
    words = {"none": "(no call)", "ask": "(a question back)", "any_call": "(any call)", "calls": None}
    references = [build_reference(call) for call in case.expected.calls]
    calls = [ToolCall(name=call.name, arguments=call.arguments) for call in references]
    return {
        "role": "assistant",
        "content": words[case.expected.kind],
        "tool_calls": [call.to_openai(i) for i, call in enumerate(calls)],
    }


def digest_case(case: Case) -> str:
    """Change when what is asked or expected changes."""
    row = case.to_row()
    asked = [row.get(name) for name in _ASKED]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]


def _to_reply(answer: Answer, prediction: Prediction) -> Reply:
    calls = tuple(ToolCall(name=call.name, arguments=call.arguments) for call in prediction.calls)
    broken: Breakage | None = "not_json" if "not_json" in prediction.errors else None
    if broken is None and "arguments_not_object" in prediction.errors:
        broken = "arguments_not_object"
    return Reply(
        content=answer.visible_text if broken or not calls else (prediction.text or ""),
        tool_calls=calls,
        finish_reason=answer.finish_reason,
        broken=broken,
        retried=answer.retried,
        latency_ms=answer.latency_ms,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
    )


def _name_checks(case: Case, prediction: Prediction, score: CaseScore) -> dict[str, bool]:
    """Return the partial verdicts under the names that reports use."""
    checks: dict[str, bool] = {}
    if prediction.attempted:
        checks["well_formed"] = bool(score.checks.get("json_accuracy"))
    if case.expected.kind == "calls":
        checks["right_tools"] = score.checks["tool_accuracy"]
        checks["right_arguments"] = score.checks["arg_accuracy"]
    if _KINDS[case.expected.kind] == "call" and "state_accuracy" in score.checks:
        checks["right_state"] = score.checks["state_accuracy"]
    if "no_call_accuracy" in score.checks:
        checks["no_call"] = score.checks["no_call_accuracy"]
    if "ask_accuracy" in score.checks:
        checks["right_question"] = score.checks["ask_accuracy"]
    return checks
