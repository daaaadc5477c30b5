"""Prompts for a persona evaluation, and the replies to them: read, asked, and asked again after another persona spoke."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Tool
from pipeline.core.operation import Part
from pipeline.evals.asking import Question
from pipeline.evals.cases import TASK_API, describe_error, to_openai_tool
from pipeline.task_api.tools import load_tools

_HINT = (
    "A line is {id, persona, messages} with the last turn the user's, or a conversation with tag `persona`."
)
_SWITCH = "after:"


class PersonaCase(Part):
    """One prompt to one persona."""

    id: str = Field(min_length=1)
    """Unique inside the file."""
    persona: str
    """Who should answer."""
    messages: tuple[dict[str, Any], ...]
    """The conversation up to the reply, in OpenAI form."""
    reference: str = ""
    """A reply in the persona's voice, if the file has one."""
    group: str = ""
    """Prompts of one group are not independent."""
    tools: tuple[Tool, ...] = ()
    """The tools the row declares: a persona is served with them, so it is asked with them."""


class Reply(NamedTuple):
    """What a system said to a prompt."""

    case: PersonaCase
    text: str
    calls: str
    """Tool calls it made, as JSON text; a persona must not show there."""


def read_persona_cases(path: Path, known: Sequence[str]) -> list[PersonaCase]:
    """Read prompts.

    Raises:
        InvalidInputError: If the file is missing or empty, a line is no prompt, or names an unknown persona.
    """
    cases: dict[str, PersonaCase] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read prompts from {path}: {error}", hint=_HINT) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path.name}:{number}"
        try:
            case = _parse(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InvalidInputError(f"{place} is no prompt: {describe_error(error)}", hint=_HINT) from error
        if case.persona not in known:
            raise InvalidInputError(
                f"{place}: there is no spec of persona {case.persona!r}",
                hint=f"Specs given: {', '.join(known)}; pass another one.",
            )
        if case.id in cases:
            raise InvalidInputError(f"{place}: id {case.id!r} occurs twice", hint="Give each prompt its own.")
        cases[case.id] = case
    if not cases:
        raise InvalidInputError(f"{path} holds no prompt", hint=_HINT)
    return list(cases.values())


def _parse(row: dict[str, Any]) -> PersonaCase:
    messages: list[dict[str, Any]] = row["messages"]
    last_user = max(i for i, message in enumerate(messages) if message["role"] == "user")
    # The reply to judge is the one that ends the exchange: what is between, such as tool results, is shown.
    end = (
        max((i for i, message in enumerate(messages) if message["role"] != "assistant"), default=last_user)
        + 1
    )
    tags: dict[str, Any] = row.get("tags") or {}
    reference = messages[end].get("content") or "" if end < len(messages) else ""
    return PersonaCase(
        id=row["id"],
        persona=row.get("persona") or tags["persona"],
        messages=tuple(messages[:end]),
        reference=reference,
        group=row.get("group") or row["id"],
        tools=_read_tools(row),
    )


def _read_tools(row: dict[str, Any]) -> tuple[Tool, ...]:
    if row.get("tool_set") == TASK_API:
        return tuple(load_tools())
    if row.get("tool_set"):
        raise ValueError(
            f"unknown tool_set {row['tool_set']!r}; there is {TASK_API!r}; others: write their tools"
        )
    return tuple(to_openai_tool(tool) for tool in row.get("tools") or ())


def to_questions(cases: Sequence[PersonaCase], prompts: Mapping[str, str]) -> list[Question]:
    """Return what to ask: the persona's system prompt comes first where the case has none."""
    return [Question(case.id, _with_system(case, prompts[case.persona]), case.tools) for case in cases]


def make_switches(replies: Sequence[Reply], prompts: Mapping[str, str]) -> list[PersonaCase]:
    """Return prompts that follow, in one conversation, an exchange in another persona's voice.

    The system prompt is the wanted persona's, so any trace of the other voice is bleed.
    """
    by_persona: dict[str, list[Reply]] = {}
    for reply in replies:
        by_persona.setdefault(reply.case.persona, []).append(reply)
    if len(by_persona) < 2:
        return []
    names = sorted(by_persona)
    switched: list[PersonaCase] = []
    for position, name in enumerate(names):
        others = by_persona[names[(position + 1) % len(names)]]
        for number, reply in enumerate(by_persona[name]):
            before = others[number % len(others)]
            earlier = [m for m in before.case.messages if m["role"] == "user"][-1:]
            spoken = {"role": "assistant", "content": before.text or before.case.reference or "Done."}
            own = [m for m in reply.case.messages if m["role"] != "system"]
            system = [m for m in _with_system(reply.case, prompts[name]) if m["role"] == "system"]
            messages = (*system, *earlier, spoken, *own)
            case_id = f"{_SWITCH}{before.case.persona}:{reply.case.id}"
            switched.append(reply.case.model_copy(update={"id": case_id, "messages": messages}))
    return switched


def _with_system(case: PersonaCase, prompt: str) -> list[dict[str, Any]]:
    messages = list(case.messages)
    if prompt and messages[0]["role"] != "system":
        return [{"role": "system", "content": prompt}, *messages]
    return messages
