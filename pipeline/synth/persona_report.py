"""``data_report.md`` of persona sets: what each file holds and how its replies fare with the persona's items."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.personas.items import PASS_RATIO, ReplySetVerdict
from pipeline.personas.spec import Persona


class PersonaSplit(NamedTuple):
    """One file that was made."""

    file: str
    persona: str
    sha256: str
    num_rows: int
    verdict: ReplySetVerdict
    """What the items say of its replies."""
    numbers: dict[str, Any]
    """Counts and diversity."""


def render_persona_report(
    seed: int, personas: Sequence[Persona], made: Sequence[PersonaSplit], num_lines: Mapping[str, int]
) -> str:
    """Return the report as Markdown."""
    lines = [
        "# Data report",
        "",
        f"Seed {seed}. The same executed conversations in each voice; calls, results and user turns are those of the neutral"
        " row, and every row passed the gates of `llmops synth check` that need no library.",
        "",
        "| persona | hand-written lines | sha256 of the system prompt without the day |",
        "| --- | ---: | --- |",
        *(
            f"| {persona.title} | {num_lines[persona.name]} | `{persona.prompt_sha256}` |"
            for persona in personas
        ),
        "",
        "| file | sha256 |",
        "| --- | --- |",
        *(f"| {part.file} | `{part.sha256}` |" for part in made),
        "",
    ]
    for persona in personas:
        lines += _render_persona(persona, [part for part in made if part.persona == persona.name])
    return "\n".join(lines).rstrip() + "\n"


def _render_persona(persona: Persona, parts: Sequence[PersonaSplit]) -> list[str]:
    header = " | ".join(part.file for part in parts)
    items = dict.fromkeys(item for part in parts for item in part.verdict.passed_by_item)
    band = persona.vocabulary
    return [
        f"## {persona.title}",
        "",
        f"| number | {header} |",
        f"| --- |{' ---: |' * len(parts)}",
        *(
            f"| {name} | {' | '.join(str(part.numbers[name]) for part in parts)} |"
            for name in parts[0].numbers
        ),
        f"| replies that pass (hard items, and {PASS_RATIO:.0%} of the style items) | "
        + " | ".join(f"{part.verdict.num_passed} of {part.verdict.num_replies}" for part in parts)
        + " |",
        f"| share with a signature phrase, band {band.min_rate} to {band.max_rate} | "
        + " | ".join(str(part.verdict.vocabulary_rate) for part in parts)
        + " |",
        "",
        f"| item | {header} |",
        f"| --- |{' ---: |' * len(parts)}",
        *(
            f"| {item} | "
            + " | ".join("{} of {}".format(*part.verdict.passed_by_item.get(item, (0, 0))) for part in parts)
            + " |"
            for item in items
        ),
        "",
    ]
