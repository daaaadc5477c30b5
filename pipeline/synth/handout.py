"""``synth.brief``, ``synth.submit``, ``synth.status``: the agent that uses this tool writes the wording.

Calls and states are decided before the first word; a row is accepted only when it executes as planned. All state is in
one folder: ``scenarios.jsonl`` (decided once), ``accepted.jsonl`` (finished rows, the truth about what is done) and
``handout.json`` (what was handed out and refused). Files are whole at any moment, and one caller writes at a time.
"""

import fcntl
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.files import read_json, read_jsonl, write_json, write_jsonl
from pipeline.core.messages import Example
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.synth.acceptance import Corpus, accept, wording_hash
from pipeline.synth.brief import RULES, BriefItem, make_item
from pipeline.synth.cells import DIMENSIONS, Cell
from pipeline.synth.full_mix import plan_scenarios
from pipeline.synth.scenario import Repair, Scenario

_MAX_MISSING_SHOWN = 30


class SynthBriefRequest(Request):
    """What to hand out."""

    work: WorkspacePath = Field(min_length=1)
    """Folder of this piece of work; a new one is planned at once."""
    num_rows: int = Field(default=10, gt=0, le=50)
    """Conversations to hand out; open ones are handed out again."""
    target_rows: int = Field(default=200, gt=0, le=20_000)
    """Conversations in the whole plan; counts only for a new folder."""
    side: Literal["train", "test"] = "train"
    """Whose titles, days and numbers to use; counts only for a new folder."""
    seed: int = 0
    """Same seed, same plan; counts only for a new folder."""


class SynthBriefResult(Result):
    """What to write."""

    rules: list[str]
    """How to write."""
    avoid: list[str]
    """Phrases that were used too often already."""
    items: list[BriefItem]
    """Conversations to word."""
    num_open: int
    """Conversations of the plan that are not accepted yet."""


class SubmittedRow(Part):
    """The wording of one conversation."""

    id: str
    """Name from the brief."""
    texts: list[str] = Field(min_length=1, max_length=20)
    """One text for each user turn."""


class SynthSubmitRequest(Request):
    """What was written."""

    work: WorkspacePath = Field(min_length=1)
    """Folder that the brief came from."""
    rows: list[SubmittedRow] = Field(min_length=1, max_length=200)
    """The wordings."""


class SubmitAnswer(Part):
    """What became of one row."""

    id: str
    """Its name."""
    status: Literal["accepted", "known", "repair", "taken", "unknown"]
    """`known`: the same row was accepted before; `taken`: the conversation has other words already."""
    repairs: list[Repair]
    """What to mend before it is submitted again."""


class SynthSubmitResult(Result):
    """What became of the rows."""

    answers: list[SubmitAnswer]
    """One for each row, in order."""
    num_accepted: int
    """Rows accepted so far, these included."""
    num_open: int
    """Conversations still to be worded."""
    file: str
    """The accepted rows."""

    def is_negative(self) -> bool:
        """True when any row has to be repaired."""
        return any(answer.status in {"repair", "unknown"} for answer in self.answers)


class SynthStatusRequest(Request):
    """Where the work is."""

    work: WorkspacePath = Field(min_length=1)
    """Its folder."""


class SynthStatusResult(Result):
    """How far the coverage matrix is filled."""

    num_planned: int
    """Conversations in the plan."""
    num_handed_out: int
    """Of those, handed out at least once."""
    num_accepted: int
    """Of those, accepted."""
    matrix: dict[str, dict[str, list[int]]]
    """Attribute -> value -> [accepted, planned]."""
    num_pairs: int
    """Pairs of values in the plan."""
    num_pairs_covered: int
    """Of those, pairs that an accepted row has."""
    missing_pairs: list[str]
    """The first 30 others."""
    refused_by_kind: dict[str, int]
    """Gates at which rows were refused, how often."""


class Work:
    """The folder of one piece of work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenarios = {
            s.id: s for s in map(Scenario.model_validate, read_jsonl(folder / "scenarios.jsonl"))
        }
        self.accepted_file = folder / "accepted.jsonl"
        rows = read_jsonl(self.accepted_file) if self.accepted_file.exists() else []
        self.accepted = {row["id"]: row for row in rows}
        notes = folder / "handout.json"
        stored: dict[str, Any] = read_json(notes) if notes.exists() else {"handed_out": {}, "refused": {}}
        self.handed_out: dict[str, list[str]] = stored["handed_out"]
        """Id -> phrases to avoid that its brief named."""
        self.refused: Counter[str] = Counter(stored["refused"])
        self.corpus = Corpus()
        for row in self.accepted.values():
            example = Example.from_row(row)
            self.corpus.add(self.scenarios[example.id].needs, user_texts(example), example.id)

    @property
    def open(self) -> list[Scenario]:
        """Conversations that are not accepted, those never handed out first."""
        left = [scenario for scenario in self.scenarios.values() if scenario.id not in self.accepted]
        return sorted(left, key=lambda scenario: scenario.id in self.handed_out)

    def save(self) -> None:
        """Write the rows, then the notes."""
        write_jsonl(self.accepted_file, self.accepted.values())
        write_json(
            self.folder / "handout.json",
            {"handed_out": self.handed_out, "refused": dict(sorted(self.refused.items()))},
        )


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _open_work(work: str) -> Work:
    folder = resolve_path(work)
    if not (folder / "scenarios.jsonl").is_file():
        raise InvalidInputError(
            f"{work} holds no plan", hint="Start one with `llmops synth brief --work FOLDER`."
        )
    try:
        return Work(folder)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{work} is damaged: {str(error).splitlines()[0]}", hint="Start anew in another folder."
        ) from error


def make_brief(request: SynthBriefRequest) -> SynthBriefResult:
    """Hand out conversations with their calls decided, for the calling agent to word.

    Raises:
        InvalidInputError: If the folder is damaged.
    """
    folder = resolve_path(request.work)
    with _locked(folder):
        if not (folder / "scenarios.jsonl").exists():
            planned = plan_scenarios(request.seed, request.side, request.target_rows)
            write_jsonl(
                folder / "scenarios.jsonl", (scenario.model_dump(mode="json") for scenario in planned)
            )
        work = _open_work(request.work)
        avoid = work.corpus.overused()
        chosen = work.open[: request.num_rows]
        work.handed_out |= {scenario.id: avoid for scenario in chosen}
        work.save()
    return SynthBriefResult(
        rules=list(RULES),
        avoid=avoid,
        items=[make_item(scenario) for scenario in chosen],
        num_open=len(work.open),
        next_step=f'llmops synth submit --work {request.work} --rows \'[{{"id": ..., "texts": [...]}}]\'',
    )


def submit_rows(request: SynthSubmitRequest) -> SynthSubmitResult:
    """Execute and check wordings of handed out conversations, and say row by row what to repair.

    Raises:
        InvalidInputError: If the folder holds no plan.
        MissingDependencyError: If the libraries that find personal data are not installed.
    """
    require("phonenumbers", "python-stdnum", extra="data")
    _open_work(request.work)  # a mistyped folder must not be made
    with _locked(resolve_path(request.work)):
        work = _open_work(request.work)
        answers = [_answer(work, row) for row in request.rows]
        work.save()
    return SynthSubmitResult(
        answers=answers,
        num_accepted=len(work.accepted),
        num_open=len(work.open),
        file=f"{request.work}/accepted.jsonl",
        next_step=f"llmops synth brief --work {request.work}"
        if work.open
        else f"llmops synth check {request.work}/accepted.jsonl",
    )


def _answer(work: Work, submitted: SubmittedRow) -> SubmitAnswer:
    scenario = work.scenarios.get(submitted.id)
    if scenario is None:
        return SubmitAnswer(
            id=submitted.id,
            status="unknown",
            repairs=[Repair(kind="id", turn=0, problem="no brief has this id")],
        )
    known = work.accepted.get(submitted.id)
    if known is not None:
        is_same = known["tags"]["wording"] == wording_hash(submitted.id, submitted.texts)
        return SubmitAnswer(id=submitted.id, status="known" if is_same else "taken", repairs=[])
    made = accept(scenario, submitted.texts, work.corpus, work.handed_out.get(submitted.id, ()))
    if made.row is None:
        work.refused.update(repair.kind for repair in made.repairs)
        return SubmitAnswer(id=submitted.id, status="repair", repairs=made.repairs)
    work.accepted[submitted.id] = made.row.to_row()
    work.corpus.add(scenario.needs, submitted.texts, submitted.id)
    return SubmitAnswer(id=submitted.id, status="accepted", repairs=[])


def report_status(request: SynthStatusRequest) -> SynthStatusResult:
    """Show how far a piece of work has filled the coverage matrix.

    Raises:
        InvalidInputError: If the folder holds no plan.
    """
    work = _open_work(request.work)
    matrix: dict[str, dict[str, list[int]]] = {name: {} for name in ("shape", *DIMENSIONS)}
    pairs: set[tuple[str, str, str, str]] = set()
    covered: set[tuple[str, str, str, str]] = set()
    for scenario in work.scenarios.values():
        done = scenario.id in work.accepted
        own = Cell(**scenario.cell).pairs()
        pairs.update(own)
        covered.update(own if done else ())
        for name, values in matrix.items():
            counts = values.setdefault(scenario.cell[name], [0, 0])
            counts[0] += done
            counts[1] += 1
    missing = [f"{a}={x} with {b}={y}" for a, x, b, y in sorted(pairs - covered)]
    return SynthStatusResult(
        num_planned=len(work.scenarios),
        num_handed_out=len(work.handed_out),
        num_accepted=len(work.accepted),
        matrix=matrix,
        num_pairs=len(pairs),
        num_pairs_covered=len(covered),
        missing_pairs=missing[:_MAX_MISSING_SHOWN],
        refused_by_kind=dict(work.refused.most_common()),
    )


def user_texts(row: Example) -> list[str]:
    """Return what the user says, turn by turn."""
    return [message.content or "" for message in row.messages if message.role == "user"]


SYNTH_BRIEF = Operation(
    name="synth.brief",
    request=SynthBriefRequest,
    result=SynthBriefResult,
    run=make_brief,
    positional=("work",),
)
SYNTH_SUBMIT = Operation(
    name="synth.submit",
    request=SynthSubmitRequest,
    result=SynthSubmitResult,
    run=submit_rows,
    positional=("work",),
)
SYNTH_STATUS = Operation(
    name="synth.status",
    request=SynthStatusRequest,
    result=SynthStatusResult,
    run=report_status,
    read_only=True,
    positional=("work",),
)
