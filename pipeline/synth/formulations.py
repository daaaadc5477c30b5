"""Phrase banks: what users say, one formulation a line with slots in braces, and the values for the slots.

Format: UTF-8, ``# `` starts a comment, blank lines do not count. The words must determine the call: an argument comes
from a slot, or from a suffix that the words imply.

- ``{title}`` (a lower-case imperative: "review the budget") or ``{noun}`` ("dentist appointment"): the title, verbatim.
- ``{due}``: a date expression after a word such as by or due; ``{when}``: the same, with its own preposition.
- ``{priority}``, ``{description}``, ``{search}`` verbatim; ``{id}`` a task number; ``{title2}`` ... for a second call.
- ``text => key=value, key=value``: ``priority`` (urgent => high), ``status``; ``action`` in by_title and followup,
  ``ask`` what is missing, ``reply`` the class of small talk, ``calls`` and ``shared`` in multi, ``to`` in answers.

This module reads and checks the files; it does not fill the slots.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from pipeline.core.errors import InvalidInputError

SLOT = re.compile(r"\{([^{}]*)\}")
_VALIDATION_RATIO = 0.06  # share of the formulations of each file
VALUE_FILES = ("titles", "nouns", "descriptions", "searches", "no_priorities")
ACTIONS = ("create", "update", "complete", "delete")
PRIORITIES = ("low", "medium", "high")

_CHANGES = frozenset({"title", "noun", "due", "when", "priority", "description"})
_ONE_OF = (("title", "noun"), ("due", "when"))
"""Slots that fill the same argument: a call takes one of each pair."""
_TOPICS = ("title", "task_id", "change")
_REPLIES = ("greeting", "thanks", "goodbye", "capability", "offtopic", "acknowledge")
_ANSWERS = ("title", "task_id", "due", "priority", "rename", "description")


@dataclass(frozen=True)
class _FileRules:
    """What a formulation of a file may and must hold."""

    slots: frozenset[str]
    needs: tuple[frozenset[str], ...] = ()
    """At least one slot of each set must occur."""
    constants: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    required_constants: tuple[str, ...] = ()


_TITLES = frozenset({"title", "noun"})
_ID = frozenset({"id"})
_PRIORITY = {"priority": PRIORITIES}
_RULES = {
    "create": _FileRules(_CHANGES, (_TITLES,), _PRIORITY),
    "update": _FileRules(_CHANGES | _ID, (_ID,), _PRIORITY),
    "complete": _FileRules(_ID, (_ID,)),
    "delete": _FileRules(_ID, (_ID,)),
    "list": _FileRules(
        frozenset({"priority", "due", "when", "search"}), (), {**_PRIORITY, "status": ("open", "completed")}
    ),
    "by_title": _FileRules(_CHANGES, (_TITLES,), {**_PRIORITY, "action": ACTIONS[1:]}, ("action",)),
    "followup": _FileRules(_CHANGES, (), {**_PRIORITY, "action": ACTIONS[1:]}, ("action",)),
    "ask": _FileRules(_CHANGES | _ID, (), {"ask": _TOPICS}, ("ask",)),
    "talk": _FileRules(frozenset(), (), {"reply": _REPLIES}, ("reply",)),
    "multi": _FileRules(
        frozenset(slot + number for slot in _CHANGES | _ID for number in ("", "2")),
        (),
        {"calls": tuple(f"{a}+{b}" for a in ACTIONS for b in ACTIONS), "shared": ("due", "priority")},
        ("calls",),
    ),
    "answers": _FileRules(_CHANGES | _ID, (), {"to": _ANSWERS}, ("to",)),
}
FORMULATION_FILES = tuple(_RULES)


@dataclass(frozen=True)
class Formulation:
    """One way to say something."""

    file: str
    """Bank it stands in, without ending."""
    text: str
    """Words with slots in braces."""
    constants: dict[str, str]
    """What the words say or imply beyond the slots."""

    @cached_property
    def id(self) -> str:
        """``file:hash``; stays the same when lines are moved."""
        return f"{self.file}:{hashlib.sha1(self.key.encode()).hexdigest()[:8]}"

    @cached_property
    def key(self) -> str:
        """The words alone: no case, punctuation or slot names, to find doubles."""
        if self.file == "answers":  # a word or two, where quotes and the slot's name make the difference
            return f"{self.text} {self.constants.get('to')}"
        words = SLOT.sub(" {} ", self.text.lower())
        return " ".join(re.findall(r"[\w{}]+", words))

    @cached_property
    def slots(self) -> frozenset[str]:
        """Names of the slots."""
        return frozenset(SLOT.findall(self.text))


@dataclass(frozen=True)
class Bank:
    """All formulations and values of one side of the split."""

    formulations: dict[str, tuple[Formulation, ...]]
    """By file."""
    values: dict[str, tuple[str, ...]]
    """By file."""


def load_bank(side: str, *, more: bool = False) -> Bank:
    """Return the shipped bank ``train`` or ``test``; ``more`` adds the files that only the fuller mix uses."""
    root = Path(str(files("pipeline.synth")))
    folder = root / "phrases" / side
    paths = {name: folder / f"{name}.txt" for name in (*FORMULATION_FILES, *VALUE_FILES)}
    bank = read_bank({**paths, "answers": root / "answers" / f"{side}.txt"})
    extra = root / "phrases" / f"{side}_more"
    return _extend(bank, extra) if more and extra.is_dir() else bank


def _extend(bank: Bank, folder: Path) -> Bank:
    problems: list[str] = []
    formulations = dict(bank.formulations)
    for name in FORMULATION_FILES:
        path = folder / f"{name}.txt"
        if path.is_file():
            known = {line.key for line in bank.formulations[name]}
            lines = _read_formulations(name, path, problems)
            formulations[name] += tuple(line for line in lines if line.key not in known)
    _require_none(problems)
    return Bank(formulations, bank.values)


def read_bank(paths: dict[str, Path]) -> Bank:
    """Read and check a bank.

    Raises:
        InvalidInputError: If any line breaks the format; the message lists every such line as ``file:line``.
    """
    problems: list[str] = []
    formulations: dict[str, tuple[Formulation, ...]] = {}
    for name in FORMULATION_FILES:
        formulations[name] = tuple(_read_formulations(name, paths[name], problems))
    values = {name: tuple(dict.fromkeys(line for _, line in _lines(paths[name]))) for name in VALUE_FILES}
    if not problems:
        problems += [
            f"{paths[name]}: no lines" for name, lines in {**formulations, **values}.items() if not lines
        ]
    _require_none(problems)
    return Bank(formulations, values)


def _require_none(problems: list[str]) -> None:
    if problems:
        raise InvalidInputError(
            f"{len(problems)} bad lines in the phrase banks: " + "; ".join(problems[:20]),
            hint="Mend these lines; pipeline/synth/formulations.py lists the slots and keys of each file.",
            problems=problems,
        )


def without(bank: Bank, other: Bank) -> tuple[Bank, int]:
    """Return the bank without what the other one also holds (normalised), and how many lines that removes."""
    removed = 0
    formulations: dict[str, tuple[Formulation, ...]] = {}
    taken = {(line.file, line.key) for lines in other.formulations.values() for line in lines}
    for name, lines in bank.formulations.items():
        formulations[name] = tuple(line for line in lines if (line.file, line.key) not in taken)
        removed += len(lines) - len(formulations[name])
    values: dict[str, tuple[str, ...]] = {}
    for name, lines in bank.values.items():
        known = {line.casefold() for line in other.values[name]}
        values[name] = tuple(line for line in lines if line.casefold() not in known)
        removed += len(lines) - len(values[name])
    return Bank(formulations, values), removed


def hold_back(bank: Bank, rng: random.Random) -> tuple[Bank, Bank]:
    """Return a bank in two parts that share no formulation: most of it, and a little of each file for validation."""
    kept: dict[str, tuple[Formulation, ...]] = {}
    held: dict[str, tuple[Formulation, ...]] = {}
    for name, lines in bank.formulations.items():
        chosen = set(rng.sample(range(len(lines)), max(1, round(len(lines) * _VALIDATION_RATIO))))
        kept[name] = tuple(line for i, line in enumerate(lines) if i not in chosen)
        held[name] = tuple(line for i, line in enumerate(lines) if i in chosen)
    # An answer only ends a row about another formulation, so all splits of the train bank may share the answers.
    held["answers"] = bank.formulations["answers"]
    return Bank(kept, bank.values), Bank(held, bank.values)


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(
            f"phrase bank {path} cannot be read: {error.strerror}", hint="Restore the file."
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("# ") and line.strip() != "#":
            yield number, line.strip()


def _read_formulations(name: str, path: Path, problems: list[str]) -> Iterable[Formulation]:
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        text, _, suffix = line.partition("=>")
        constants = dict(_parse_constant(part) for part in suffix.split(",") if part.strip())
        formulation = Formulation(name, text.strip(), constants)
        problem = _find_problem(formulation, _RULES[name])
        if problem is None and formulation.key in seen:
            problem = f"says the same as line {seen[formulation.key]}"
        seen.setdefault(formulation.key, number)
        if problem:
            problems.append(f"{path.parent.name}/{path.name}:{number}: {problem}")
        else:
            yield formulation


def _parse_constant(part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    return key.strip(), value.strip()


def _find_problem(line: Formulation, rules: _FileRules) -> str | None:
    if unknown := line.slots - rules.slots:
        return f"unknown slot {{{min(unknown)}}}"
    if line.text.count("{") != len(SLOT.findall(line.text)) or line.text.count("}") != line.text.count("{"):
        return "braces do not pair"
    if len(SLOT.findall(line.text)) != len(line.slots):
        return "a slot stands twice"
    for key, value in line.constants.items():
        if value not in rules.constants.get(key, ()):
            return f"unknown suffix {key}={value}"
    for key in rules.required_constants:
        if key not in line.constants:
            return f"the suffix {key}=... is missing"
    for needed in rules.needs:
        if not needed & line.slots:
            return f"needs one of the slots {', '.join(sorted(needed))}"
    return _find_conflict(line)


def _find_conflict(line: Formulation) -> str | None:
    for number in ("", "2"):
        for first, second in _ONE_OF:
            if {first + number, second + number} <= line.slots:
                return f"{{{first}{number}}} and {{{second}{number}}} fill the same argument"
    if "priority" in line.constants and "priority" in line.slots:
        return "priority is both a slot and a suffix"
    if line.file == "multi":
        return _find_incomplete_call(line)
    changes = line.slots - ({"title", "noun"} if line.file == "by_title" else set())
    action = line.constants.get("action", line.file)
    if action == "update" and not (changes & _CHANGES or "priority" in line.constants):
        return "an update that changes nothing"
    if action in {"complete", "delete"} and changes & _CHANGES:
        return f"{action} takes no {{{min(changes & _CHANGES)}}}"
    return None


def _find_incomplete_call(line: Formulation) -> str | None:
    shared = line.constants.get("shared")
    for action, number in zip(line.constants["calls"].split("+"), ("", "2"), strict=True):
        given = {slot.removesuffix("2") for slot in line.slots if slot.endswith("2") == bool(number)}
        given |= {shared} if shared else set()
        if action == "create" and not given & _TITLES:
            return f"call {number or '1'} has no title"
        if action != "create" and "id" not in given:
            return f"call {number or '1'} has no id"
        if action == "update" and not given & _CHANGES:
            return f"call {number or '1'} changes nothing"
        if action in {"complete", "delete"} and given & (_CHANGES - ({shared} if shared else set())):
            return f"call {number or '1'} takes no changes"
    return None
