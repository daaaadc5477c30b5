"""Judge the text of an answer: what it must and must not say, what it claims, what it states, and whose voice it has.

A text without calls is judged by the conversation alone; a text beside calls only where the calls are executed
(:func:`judge_executed_text`), because only then is it known what they returned.
"""

import re
from collections.abc import Sequence
from typing import Any

from pipeline.evals.cases import Case
from pipeline.evals.tool_calls.prediction import Prediction
from pipeline.evals.tool_calls.reply_facts import (
    Support,
    find_wrong_facts,
    is_refusal,
)
from pipeline.evals.tool_calls.values import fold
from pipeline.personas.items import passes
from pipeline.personas.spec import PERSONAS, load_persona

PERSONA_TAG = "persona"
_DEED = (
    r"(?:add|book|cancel|chang|complet|creat|delet|finish|mark|order|remov|renam|sav|schedul|send|sent|set|submit|"
    r"updat)\w*"
)
_CLAIM = re.compile(
    rf"\b(?:i|i've|i have|we|we've|we have)(?: just| now| already)? {_DEED.replace('send|', '')}(?<=ed|nt|et)\b"
    rf"|\b(?:has|have) been {_DEED}\b|^(?:done|all set|created|added|updated|deleted|completed|booked|cancelled)\b"
)
_DENIAL = re.compile(
    r"\b(?:not|no|nothing|never|cannot|can't|couldn't|haven't|once|if|when|after|before)\b[^.!?]*$"
    r"|\b(?:do|did|can|could|may|shall|should|will|would|must|then) $"
)


def judge_text(case: Case, prediction: Prediction) -> list[str]:
    """Return the codes of the reply layer; none when only calls are known."""
    text = prediction.text
    if text is None or prediction.errors:
        return []
    words = fold(text)
    codes = ["wrong_fact"] if any(fold(phrase) in words for phrase in case.must_not_say) else []
    return codes if prediction.calls else codes + _judge_final_text(case, text)


def judge_executed_text(case: Case, prediction: Prediction, results: Sequence[Any]) -> list[str]:
    """Return the codes of a text beside calls, given what the calls returned."""
    if not prediction.text or not prediction.calls:
        return []
    made = [call for call, result in zip(prediction.calls, results, strict=True) if not is_refusal(result)]
    support = Support.of(case, made, results)
    return _judge_claims(prediction.text, support) + _judge_facts(prediction.text, support)


def claims_a_deed(text: str, returned: str = "") -> bool:
    """True when a text says that something was done, in words that were not returned."""
    words = fold(text).replace("\u2019", "'")
    return any(
        _DENIAL.search(words[: found.start()]) is None and found[0].split()[-1] not in returned
        for found in _CLAIM.finditer(words)
    )


def _judge_final_text(case: Case, text: str) -> list[str]:
    words, codes = fold(text), list[str]()
    if case.expected.kind == "ask" and "?" not in text:
        codes.append("no_question")
    if case.must_say and not words:
        codes.append("no_confirmation")
    elif any(fold(phrase) not in words for phrase in case.must_say):
        codes.append("missing_fact")
    persona = case.tags.get(PERSONA_TAG)
    if words and persona in PERSONAS and not passes(load_persona(str(persona)), text):
        codes.append("persona")
    support = Support.of(case)
    return codes + _judge_claims(text, support) + _judge_facts(text, support)


def _judge_claims(text: str, support: Support) -> list[str]:
    """A claim may be true once any call of the exchange was accepted."""
    if any(not is_refusal(result) for result in support.results):
        return []
    returned = fold(" ".join(support.values))
    return ["claims_undone_action"] if claims_a_deed(text, returned) else []


def _judge_facts(text: str, support: Support) -> list[str]:
    return ["wrong_fact"] if find_wrong_facts(text, support) else []
