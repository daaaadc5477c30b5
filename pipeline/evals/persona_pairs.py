"""Replies of two systems, pair by pair: preferred by items, or by a model as judge with its calibration."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message
from pipeline.core.operation import Part
from pipeline.core.progress import Progress
from pipeline.evals.agreement import Agreement
from pipeline.evals.persona_cases import Reply
from pipeline.evals.preference import (
    MIN_KAPPA,
    Preference,
    calibrate,
    prefer_by_items,
    prefer_by_judge,
    summarise_preference,
)
from pipeline.inference.client import ChatClient
from pipeline.personas.items import judge_reply
from pipeline.personas.spec import Persona

ReplyPair = tuple[Reply, str]
"""A reply of this system, and what the other one said to the same prompt."""
Prefer = Callable[[Reply, str], float]
_LABELS = {"first", "second", "tie"}


class JudgeSource(NamedTuple):
    """Where the judge answers, and what people said."""

    url: str
    model: str
    labels: Path | None
    seed: int


class JudgeReport(Part):
    """What a model preferred, and whether that counts."""

    preference: Preference
    """Both orders asked; where they contradict it is a tie."""
    calibration: Agreement
    """With the human labels."""
    usable: bool
    """Kappa with people is at least 0.6."""


def by_items(personas: Mapping[str, Persona]) -> Prefer:
    """Return a preference by the personas' own items."""

    def prefer(reply: Reply, other: str) -> float:
        persona = personas[reply.case.persona]
        return prefer_by_items(judge_reply(persona, reply.text), judge_reply(persona, other))

    return prefer


def prefer_all(pairs: Sequence[ReplyPair], prefer: Prefer, seed: int) -> Preference:
    """Return wins, ties and losses over all pairs."""
    outcomes = [(reply.case.group or reply.case.id, prefer(reply, other)) for reply, other in pairs]
    return summarise_preference(outcomes, [len(reply.text) - len(other) for reply, other in pairs], seed)


def judge_pairs(
    pairs: Sequence[ReplyPair], personas: Mapping[str, Persona], source: JudgeSource
) -> JudgeReport:
    """Let a model judge every pair in both orders.

    Raises:
        InvalidInputError: If the labels are broken.
        MissingDependencyError: If the judge cannot be reached.
    """
    human = _read_labels(source.labels) if source.labels else {}
    judged: dict[str, float] = {}
    with (
        ChatClient(source.url, source.model) as client,
        Progress("judge", len(pairs), unit="pairs") as progress,
    ):

        def ask(question: str) -> str:
            answer = client.complete((Message(role="user", content=question),), max_tokens=8)
            return answer.message.content or ""

        def prefer(reply: Reply, other: str) -> float:
            prompt = str(reply.case.messages[-1].get("content") or "")
            found = prefer_by_judge(ask, personas[reply.case.persona], prompt, reply.text, other)
            judged[reply.case.id] = found
            progress.advance()
            return found

        preference = prefer_all(pairs, prefer, source.seed)
    calibration = calibrate(judged, human, source.seed)
    usable = calibration.kappa is not None and calibration.kappa >= MIN_KAPPA
    return JudgeReport(preference=preference, calibration=calibration, usable=usable)


def _read_labels(path: Path) -> dict[str, str]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        labels = {str(row["id"]): str(row["label"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"cannot read labels from {path}: {error}", hint="A line is {id, label}."
        ) from error
    if unknown := set(labels.values()) - _LABELS:
        raise InvalidInputError(
            f"{path.name}: unknown label {min(unknown)!r}", hint="Use first, second or tie."
        )
    return labels
