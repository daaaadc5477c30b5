"""Judge the text of an answer without knowing the tools: what it must and must not say, and what it claims.

Facts in a reply after tool results are judged where calls are executed, because only then are the results known.
"""

import re

from pipeline.evals.cases import Case
from pipeline.evals.tool_calls.prediction import Prediction
from pipeline.evals.tool_calls.values import fold

_DEED = (
    r"(?:add|book|cancel|chang|complet|creat|delet|finish|mark|order|remov|renam|sav|schedul|send|sent|set|submit|"
    r"updat)\w*"
)
_CLAIM = re.compile(
    rf"\b(?:i|i've|i have|we|we've|we have)(?: just| now| already)? {_DEED.replace('send|', '')}(?<=ed|nt|et)\b"
    rf"|\b(?:has|have) been {_DEED}\b|^(?:done|all set|created|added|updated|deleted|completed|booked|cancelled)\b"
)
_DENIAL = re.compile(r"\b(?:not|no|nothing|never|cannot|can't|couldn't|haven't|once|if|when|after)\b[^.!?]*$")


def judge_text(case: Case, prediction: Prediction) -> list[str]:
    """Return the codes of the reply layer; none when only calls are known."""
    text = prediction.text
    if text is None or prediction.errors:
        return []
    codes: list[str] = []
    if case.expected.kind == "ask" and not prediction.calls and "?" not in text:
        codes.append("no_question")
    if not prediction.calls and claims_a_deed(text) and not _has_result(case):
        codes.append("claims_undone_action")
    words = fold(text)
    is_final = not prediction.calls
    if is_final and case.must_say and not words:
        codes.append("no_confirmation")
    elif is_final and any(fold(phrase) not in words for phrase in case.must_say):
        codes.append("missing_fact")
    if any(fold(phrase) in words for phrase in case.must_not_say):
        codes.append("wrong_fact")
    return codes


def claims_a_deed(text: str) -> bool:
    """True when a text says that something was done."""
    words = fold(text).replace("\u2019", "'")
    return any(_DENIAL.search(words[: found.start()]) is None for found in _CLAIM.finditer(words))


def _has_result(case: Case) -> bool:
    """True when the conversation already ran a tool after the last user message: then the claim may be true."""
    roles = [message["role"] for message in case.messages]
    last_user = max((i for i, role in enumerate(roles) if role == "user"), default=-1)
    return "tool" in roles[last_user + 1 :]
