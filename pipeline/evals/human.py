"""``evals sheet`` and ``evals agree``: two people judge replies blind, and their sheets are merged by command.

The sheet is CSV, sides are drawn per row, and the key that says which side was which stays in another file. Cells that
a spreadsheet would run as a formula are written as text.
"""

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json, write_atomic, write_json
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path, shown_path
from pipeline.evals.agreement import Agreement, measure_agreement
from pipeline.evals.persona import read_replies
from pipeline.evals.persona_cases import PersonaCase, read_persona_cases
from pipeline.evals.preference import MIN_KAPPA, Preference, summarise_preference
from pipeline.personas.spec import Persona, read_persona

SHEET, KEY, GUIDE = "sheet.csv", "key.json", "guidelines.md"
_ITEMS: tuple[str, ...] = ("in_character_1", "in_character_2", "rule_broken_1", "rule_broken_2")
_COLUMNS: tuple[str, ...] = ("row", "persona", "prompt", "reply_1", "reply_2", *_ITEMS, "more_like_persona")
_ANSWERS = {"yes", "no"}
_CHOICES = {"1", "2", "tie"}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class EvalSheetRequest(Request):
    """Which two runs people shall compare."""

    before: WorkspaceRef = Field(min_length=1)
    """Run id of `evals persona`, such as base + prompt."""
    after: WorkspaceRef = Field(min_length=1)
    """Run id of the other system."""
    cases: WorkspacePath = Field(min_length=1)
    """The prompts of both runs."""
    personas: list[WorkspacePath] = Field(min_length=1)
    """Specifications; the guidelines describe them."""
    out: WorkspacePath = Field(min_length=1)
    """Folder for sheet.csv, guidelines.md and key.json; keep the key from the raters."""
    num_rows: int = Field(default=50, ge=1)
    """Prompts to judge."""
    seed: int = 0
    """Draws prompts and sides."""


class EvalSheetResult(Result):
    """What to hand to the raters."""

    num_rows: int
    """Rows in the sheet."""
    sheet: str
    """CSV: one copy per rater."""
    guidelines: str
    """For the raters."""
    key: str
    """Which side was which; not for the raters."""


def make_sheet(request: EvalSheetRequest) -> EvalSheetResult:
    """Make a blind sheet for two raters: sides drawn per row, guidelines beside it, the key apart.

    Raises:
        InvalidInputError: If the runs share no prompt of the cases.
    """
    personas = {persona.name: persona for persona in map(read_persona, map(resolve_path, request.personas))}
    cases = read_persona_cases(resolve_path(request.cases), list(personas))
    before, after = read_replies(request.before), read_replies(request.after)
    shared = [case for case in cases if case.id in before and case.id in after]
    if not shared:
        raise InvalidInputError(
            "the two runs share no prompt of the cases", hint="Use the same cases in both."
        )
    source = random.Random(request.seed)
    chosen = source.sample(shared, min(request.num_rows, len(shared)))
    rows: list[dict[str, str]] = []
    key: dict[str, dict[str, str]] = {}
    for number, case in enumerate(chosen, 1):
        first_is_after = source.random() < 0.5
        first, second = (after, before) if first_is_after else (before, after)
        rows.append(_row(number, case, first[case.id], second[case.id]))
        sides = {"1": "after", "2": "before"} if first_is_after else {"1": "before", "2": "after"}
        key[str(number)] = {"id": case.id, "group": case.group or case.id, **sides}
    folder = resolve_path(request.out)
    write_atomic(folder / SHEET, _to_csv(rows))
    write_json(folder / KEY, key)
    write_atomic(folder / GUIDE, _write_guidelines(list(personas.values())))
    return EvalSheetResult(
        num_rows=len(rows),
        sheet=shown_path(folder / SHEET),
        guidelines=shown_path(folder / GUIDE),
        key=shown_path(folder / KEY),
        next_step="When both raters are done: llmops evals agree --first A.csv --second B.csv --key key.json",
    )


EVALS_SHEET = Operation(name="evals.sheet", request=EvalSheetRequest, result=EvalSheetResult, run=make_sheet)


class EvalAgreeRequest(Request):
    """Filled sheets of two raters."""

    first: WorkspacePath = Field(min_length=1)
    """Sheet of one rater."""
    second: WorkspacePath = Field(min_length=1)
    """Sheet of the other."""
    key: WorkspacePath = Field(min_length=1)
    """key.json of `evals sheet`."""
    seed: int = 0
    """For resampling."""
    out: WorkspacePath | None = None
    """Folder that gets adjudicate.csv: rows on which the raters differ."""


class EvalAgreeResult(Result):
    """How far the raters agree, and what they say."""

    num_rows: int
    """Rows both filled."""
    agreement: dict[str, Agreement]
    """By question."""
    preference: Preference
    """System `after` against `before`; where the raters differ it is a tie."""
    num_to_adjudicate: int
    """Rows with different answers to which reply is more like the persona."""
    usable: Literal["yes", "no"]
    """`yes` when kappa of that question is at least 0.6."""


def merge_ratings(request: EvalAgreeRequest) -> EvalAgreeResult:
    """Merge the sheets of two raters: Cohen's kappa, Gwet's AC1, and which system won.

    Raises:
        InvalidInputError: If a sheet is not the one of the key, or an answer is none of the allowed ones.
    """
    key: dict[str, dict[str, str]] = read_json(resolve_path(request.key))
    first, second = (
        _read_sheet(resolve_path(request.first), key),
        _read_sheet(resolve_path(request.second), key),
    )
    both = [number for number in key if number in first and number in second]
    if not both:
        raise InvalidInputError("no row is filled by both raters", hint=f"Fill {', '.join(_COLUMNS[5:])}.")
    agreement = {
        item: measure_agreement([(first[n][item], second[n][item]) for n in both], request.seed)
        for item in (*_ITEMS, "more_like_persona")
    }
    outcomes: list[tuple[str, float]] = []
    differing: list[str] = []
    for number in both:
        one, two = first[number]["more_like_persona"], second[number]["more_like_persona"]
        side = key[number].get(one) if one == two else None
        outcomes.append((key[number]["group"], {"after": 1.0, "before": 0.0}.get(side or "", 0.5)))
        differing += [number] if one != two else []
    if request.out is not None:
        write_atomic(resolve_path(request.out) / "adjudicate.csv", _to_csv([first[n] for n in differing]))
    kappa = agreement["more_like_persona"].kappa
    return EvalAgreeResult(
        num_rows=len(both),
        agreement=agreement,
        preference=summarise_preference(outcomes, [], request.seed),
        num_to_adjudicate=len(differing),
        usable="yes" if kappa is not None and kappa >= MIN_KAPPA else "no",
        warnings=[] if kappa is not None else ["kappa is undefined: both raters gave one label only"],
    )


EVALS_AGREE = Operation(
    name="evals.agree", request=EvalAgreeRequest, result=EvalAgreeResult, run=merge_ratings
)


def _row(number: int, case: PersonaCase, first: str, second: str) -> dict[str, str]:
    prompt = next((m["content"] for m in reversed(case.messages) if m["role"] == "user"), "")
    shown = {
        "row": str(number),
        "persona": case.persona,
        "prompt": prompt,
        "reply_1": first,
        "reply_2": second,
    }
    return {name: _as_text(shown.get(name, "")) for name in _COLUMNS}


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def _to_csv(rows: Sequence[dict[str, str]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _read_sheet(path: Path, key: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return the filled rows by number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"cannot read {path}: {error}", hint="Name a filled sheet.csv.") from error
    filled: dict[str, dict[str, str]] = {}
    for row in rows:
        if missing := [name for name in _COLUMNS if row.get(name) is None]:
            raise InvalidInputError(
                f"{path.name} has no column {missing[0]!r}", hint="Keep the header as it was."
            )
        if row["row"] not in key:
            raise InvalidInputError(
                f"{path.name} is not the sheet of this key", hint="Name its own key.json."
            )
        answers = {name: row[name].strip().casefold() for name in _COLUMNS[5:]}
        if not any(answers.values()):
            continue
        wrong = [n for n in _ITEMS if answers[n] not in _ANSWERS]
        wrong += ["more_like_persona"] if answers["more_like_persona"] not in _CHOICES else []
        if wrong:
            raise InvalidInputError(
                f"{path.name}, row {row['row']}: {wrong[0]} is {answers[wrong[0]]!r}",
                hint="Answer yes or no; more_like_persona takes 1, 2 or tie.",
            )
        filled[row["row"]] = {**row, **answers}
    return filled


def _write_guidelines(personas: Sequence[Persona]) -> str:
    lines = [
        "# How to judge",
        "",
        "Work alone, without talking to the other rater. You do not know which system wrote which reply; do not guess.",
        "Judge the voice, not the task. A longer reply is not a better one.",
        "",
        "- `in_character_1`, `in_character_2`: yes if the reply shows the persona's traits, else no.",
        "- `rule_broken_1`, `rule_broken_2`: yes if it does anything the persona never does, else no.",
        "- `more_like_persona`: 1, 2, or tie if you cannot say in ten seconds.",
        "",
    ]
    for persona in personas:
        lines += [f"## {persona.title} (`{persona.name}`)", "", persona.prompt, ""]
        lines += [f"- shows: {trait.description}" for trait in persona.traits]
        lines += [f"- never: {rule.description}" for rule in persona.forbidden]
        lines.append("")
    return "\n".join(lines)
