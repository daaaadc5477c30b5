"""``synth.personas``: the same executed conversations in three voices.

The neutral conversations come from the full mix of ``synth.generate``; a persona replaces the system prompt and the
wording of the assistant's texts, nothing else. Every reply has to pass the persona's items, every row the gates.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from pipeline.core.errors import OperationFailedError
from pipeline.core.files import sha256_file, write_atomic, write_jsonl
from pipeline.core.messages import Example, Message
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.runs import Run
from pipeline.personas.items import ReplySetVerdict, judge_replies, judge_reply, passes
from pipeline.personas.spec import PERSONAS, Persona, load_persona
from pipeline.synth.checks import find_faults
from pipeline.synth.diversity import distinct_ratio, self_bleu
from pipeline.synth.full_mix import make_sides
from pipeline.synth.persona_report import PersonaSplit, render_persona_report
from pipeline.synth.persona_voice import PersonaVoice, load_lines

SHORT_NAMES = {"train": "train", "validation": "val", "test": "test"}
"""Split -> its part of the file name."""


class SynthPersonasRequest(Request):
    """What to make."""

    out: WorkspacePath = Field(min_length=1)
    """Folder for the files of all personas and the report; files of these names are replaced."""
    num_rows: int = Field(default=240, gt=0)
    """Training rows of each persona."""
    validation_rows: int = Field(default=60, gt=0)
    """Validation rows of each persona."""
    test_rows: int = Field(default=120, gt=0)
    """Test rows of each persona."""
    seed: int = 0
    """Same seed, same bytes."""


class SynthPersonasResult(Result):
    """What was made."""

    out: str
    """The folder."""
    num_rows: dict[str, int]
    """Rows by file."""
    num_replies: int
    """Replies worded."""
    num_lines: dict[str, int]
    """Hand-written lines by persona."""
    sha256: dict[str, str]
    """Digest of each file."""


def make_persona_rows(request: SynthPersonasRequest, run: Run | None = None) -> SynthPersonasResult:
    """Put executed conversations into the voices of the personas, calls and facts unchanged.

    Raises:
        OperationFailedError: If a reply does not sound like its persona, or a row does not pass the gates.
    """
    wanted = {
        "train": request.num_rows,
        "validation": request.validation_rows,
        "test": request.test_rows,
    }
    sides = make_sides(request.seed, wanted, 1.0, run)
    out = resolve_path(request.out)
    made: list[PersonaSplit] = []
    num_lines = Counter[str]()
    for name in PERSONAS:
        persona = load_persona(name)
        for split, side in sides.items():
            lines = load_lines(name, split)
            num_lines[name] += sum(map(len, lines.values()))
            voice = PersonaVoice(lines, random.Random(f"{request.seed}:{name}:{split}"))
            rows = [reword_row(row, persona, voice) for row in side.rows]
            path = out / f"{name}_{SHORT_NAMES[split]}.jsonl"
            write_jsonl(path, (row.to_row() for row in rows))
            made.append(_measure(persona, path.name, sha256_file(path), rows))
    report = render_persona_report(request.seed, [load_persona(name) for name in PERSONAS], made, num_lines)
    write_atomic(out / "data_report.md", report)
    return SynthPersonasResult(
        out=request.out,
        num_rows={part.file: part.num_rows for part in made},
        num_replies=sum(part.verdict.num_replies for part in made),
        num_lines=dict(num_lines),
        sha256={part.file: part.sha256 for part in made},
        warnings=[
            f"{part.file}: signature phrases in {part.verdict.vocabulary_rate:.0%} of replies, outside the band"
            for part in made
            if not part.verdict.vocabulary_in_band
        ],
        next_step=f"llmops train run {request.out}",
    )


def reword_row(row: Example, persona: Persona, voice: PersonaVoice) -> Example:
    """Return a neutral row in a persona's voice.

    Raises:
        OperationFailedError: If a reply does not sound like the persona, or the row does not pass the gates.
    """
    messages = [Message(role="system", content=persona.system_prompt(row.today)), *row.messages[1:]]
    for i, message in enumerate(row.messages):
        if message.role == "assistant" and message.content is not None:
            text = voice.reword(row.messages, i)
            if not passes(persona, text):
                missed = [f"{v.item} ({v.evidence})" for v in judge_reply(persona, text) if not v.passed]
                raise _refusal(persona, row, f"{text!r} misses {', '.join(missed)}")
            messages[i] = message.model_copy(update={"content": text})
    tags = {**row.tags, "persona": persona.name, "prompt_sha256": persona.prompt_sha256}
    made = row.model_copy(
        update={"id": f"{persona.name}-{row.id}", "messages": tuple(messages), "tags": tags}
    )
    if faults := find_faults(made):
        raise _refusal(persona, row, f"messages[{faults[0].message}]: {faults[0].problem}")
    return made


def replies_of(rows: Sequence[Example]) -> list[str]:
    """Return the assistant's texts."""
    return [
        m.content for row in rows for m in row.messages if m.role == "assistant" and m.content is not None
    ]


def _refusal(persona: Persona, row: Example, problem: str) -> OperationFailedError:
    return OperationFailedError(
        f"{row.id} in the voice of {persona.title}: {problem}",
        hint=f"Mend the line in pipeline/synth/personas/{persona.name}_*.txt.",
    )


def _measure(persona: Persona, file: str, digest: str, rows: Sequence[Example]) -> PersonaSplit:
    texts = replies_of(rows)
    verdict: ReplySetVerdict = judge_replies(persona, texts)
    groups = Counter(row.group for row in rows)
    users = [m.content or "" for row in rows for m in row.messages if m.role == "user"]
    numbers: dict[str, Any] = {
        "rows": len(rows),
        "calls": sum(len(message.tool_calls) for row in rows for message in row.messages),
        "replies": len(texts),
        "most frequent user formulation, share of rows": round(max(groups.values()) / len(rows), 4),
        "distinct-1 of user turns": distinct_ratio(users, 1),
        "distinct-2 of user turns": distinct_ratio(users, 2),
        "self-BLEU of user turns": self_bleu(users),
        "different replies": len(set(texts)),
        "most frequent reply": f"{max(Counter(texts).values()) / len(texts):.3f}",
        "distinct-1 of replies": distinct_ratio(texts, 1),
        "distinct-2 of replies": distinct_ratio(texts, 2),
        "self-BLEU of replies": self_bleu(texts),
        "words of a reply, mean": round(sum(len(text.split()) for text in texts) / len(texts), 1),
    }
    return PersonaSplit(file, persona.name, digest, len(rows), verdict, numbers)


SYNTH_PERSONAS = Operation(
    name="synth.personas",
    request=SynthPersonasRequest,
    result=SynthPersonasResult,
    run=make_persona_rows,
    long_running=True,
    destructive=True,
)
