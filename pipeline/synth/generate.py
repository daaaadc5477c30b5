"""``synth.generate``: program-made conversations, every call executed, split by formulation.

Train and validation use different formulations of the train bank; test uses the test bank only (other formulations,
titles, dates). The writer ``program`` needs no model: the words come from the phrase banks.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Literal, NamedTuple

from pydantic import Field

from pipeline.core.errors import OperationFailedError
from pipeline.core.files import sha256_file, write_atomic, write_json, write_jsonl
from pipeline.core.messages import Example
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.synth.dialogues import make_ask, make_by_title, make_followup
from pipeline.synth.formulations import Bank, Formulation, load_bank, without
from pipeline.synth.report import describe_rows, render_report
from pipeline.synth.scene import RejectedError, Scene, Supply
from pipeline.synth.single_turns import make_by_id, make_create, make_list, make_multi, make_talk

SPLITS = ("train", "validation", "test")
_VALIDATION_RATIO = 0.06  # share of the formulations of each file
_MAX_REJECTED_IN_A_ROW = 500
_DAY_STEP = timedelta(days=17)  # coprime to 7, so the days spread over all weekdays
_DOCUMENTED_DAY = date(2026, 3, 11)
_TRAIN_DAYS = tuple(_DOCUMENTED_DAY + _DAY_STEP * step for step in range(-3, 37))
_TEST_DAYS = (_DOCUMENTED_DAY, *(_TRAIN_DAYS[0] + timedelta(days=8) + _DAY_STEP * step for step in range(39)))

_MAKERS: dict[str, Callable[[Scene], Example]] = {
    "create": make_create,
    "update": lambda scene: make_by_id(scene, "update"),
    "complete": lambda scene: make_by_id(scene, "complete"),
    "delete": lambda scene: make_by_id(scene, "delete"),
    "list": make_list,
    "multi": make_multi,
    "by_title": make_by_title,
    "followup": make_followup,
    "ask": make_ask,
    "talk": make_talk,
}
# Kinds in the order of _MAKERS. Tests have what users ask for in the shares in which they might ask it; training has
# more of what is hard to learn (several arguments, two calls, asking back) and less of what a few rows teach.
_TEST_MIX = (0.24, 0.11, 0.06, 0.06, 0.13, 0.08, 0.09, 0.08, 0.07, 0.08)
_TRAIN_MIX = (0.25, 0.13, 0.04, 0.04, 0.14, 0.11, 0.09, 0.05, 0.10, 0.05)
_SHORTENED_KINDS = frozenset({"create", "update", "complete", "delete", "list", "multi"})


class SynthGenerateRequest(Request):
    """What data set to make."""

    out: WorkspacePath = Field(min_length=1)
    """Folder for the three JSON Lines files and the report; files of these names are replaced."""
    num_rows: int = Field(default=5000, gt=0)
    """Training rows."""
    validation_rows: int = Field(default=200, ge=0)
    """Rows from formulations of the train bank that training does not see."""
    test_rows: int = Field(default=500, ge=0)
    """Rows from the test bank: other formulations, titles and days."""
    call_only_ratio: float = Field(default=0.7, ge=0, le=1)
    """Share of single-action training rows that end with the call: the reply after it is learnt from the others,
    and a row costs half the tokens."""
    seed: int = 0
    """Same seed, same bytes."""
    writer: Literal["program"] = "program"
    """Who words the conversations."""


class SynthGenerateResult(Result):
    """What was made."""

    out: str
    """The folder."""
    num_rows: int
    """Training rows."""
    validation_rows: int
    """Validation rows."""
    test_rows: int
    """Test rows."""
    num_formulations: int
    """Formulations that training rows are about."""
    rejected: int
    """Draws thrown away because they made no sound conversation."""
    sha256: dict[str, str]
    """Digest of each file."""


class _Side(NamedTuple):
    """One split to be made."""

    name: str
    num_rows: int
    bank: Bank
    days: Sequence[date]
    mix: Sequence[float]


def generate_conversations(request: SynthGenerateRequest, run: Run | None = None) -> SynthGenerateResult:
    """Make training, validation and test conversations with exact ground truth.

    Raises:
        InvalidInputError: If a phrase bank has a bad line.
        OperationFailedError: If the banks are too small to draw a conversation of some kind.
    """
    train_bank, held_back = _hold_back(load_bank("train"), random.Random(f"{request.seed}:hold back"))
    test_bank, removed = without(load_bank("test"), load_bank("train"))
    sides = (
        _Side("train", request.num_rows, train_bank, _TRAIN_DAYS, _TRAIN_MIX),
        _Side("validation", request.validation_rows, held_back, _TRAIN_DAYS, _TEST_MIX),
        _Side("test", request.test_rows, test_bank, _TEST_DAYS, _TEST_MIX),
    )
    rejections: Counter[str] = Counter()
    rows: dict[str, list[Example]] = {}
    with Progress("synth", sum(side.num_rows for side in sides), unit="rows", run=run) as progress:
        for side in sides:
            rng = random.Random(f"{request.seed}:{side.name}")
            rows[side.name] = _make_rows(side, rng, rejections, progress)
    shorten = random.Random(f"{request.seed}:call only")
    rows["train"] = [_shorten(row, shorten, request.call_only_ratio) for row in rows["train"]]
    return _write(request, rows, {side.name: side.bank for side in sides}, rejections, removed)


def _hold_back(bank: Bank, rng: random.Random) -> tuple[Bank, Bank]:
    kept: dict[str, tuple[Formulation, ...]] = {}
    held: dict[str, tuple[Formulation, ...]] = {}
    for name, lines in bank.formulations.items():
        chosen = set(rng.sample(range(len(lines)), max(1, round(len(lines) * _VALIDATION_RATIO))))
        kept[name] = tuple(line for i, line in enumerate(lines) if i not in chosen)
        held[name] = tuple(line for i, line in enumerate(lines) if i in chosen)
    # An answer only ends a row about another formulation, so all splits of the train bank may share the answers.
    held["answers"] = bank.formulations["answers"]
    return Bank(kept, bank.values), Bank(held, bank.values)


def _make_rows(
    side: _Side, rng: random.Random, rejections: Counter[str], progress: Progress
) -> list[Example]:
    supply = Supply(side.bank, rng, side.days)
    made: list[Example] = []
    for kind, make in _plan(side, rng):
        made.append(_make_row(kind, make, supply, rejections))
        progress.advance()
    return [row.model_copy(update={"id": f"{side.name}-{i:05d}"}) for i, row in enumerate(made, start=1)]


def _shorten(row: Example, rng: random.Random, ratio: float) -> Example:
    if row.tags["kind"] not in _SHORTENED_KINDS or rng.random() >= ratio:
        return row
    first_call = next(i for i, message in enumerate(row.messages) if message.tool_calls)
    return row.model_copy(update={"messages": row.messages[: first_call + 1]})


def _plan(side: _Side, rng: random.Random) -> list[tuple[str, Callable[[Scene], Example]]]:
    """Return the kinds of all rows, in the shares of the mix, shuffled."""
    plan: list[tuple[str, Callable[[Scene], Example]]] = []
    reached = 0.0
    for (kind, make), ratio in zip(_MAKERS.items(), side.mix, strict=True):
        reached += ratio
        plan += [(kind, make)] * (round(reached * side.num_rows) - len(plan))
    rng.shuffle(plan)
    return plan


def _make_row(
    kind: str, make: Callable[[Scene], Example], supply: Supply, rejections: Counter[str]
) -> Example:
    for _ in range(_MAX_REJECTED_IN_A_ROW):
        try:
            with Scene(supply) as scene:
                return make(scene)
        except RejectedError as rejected:
            rejections[f"{kind}: {rejected}"] += 1
    raise OperationFailedError(
        f"no sound conversation of kind {kind} in {_MAX_REJECTED_IN_A_ROW} draws",
        hint="Add formulations to its phrase bank.",
        reasons=[f"{reason} ({count})" for reason, count in rejections.most_common(5)],
    )


def _write(
    request: SynthGenerateRequest,
    rows: dict[str, list[Example]],
    banks: dict[str, Bank],
    rejections: Counter[str],
    removed: int,
) -> SynthGenerateResult:
    out = resolve_path(request.out)
    digests: dict[str, str] = {}
    for split in SPLITS:
        path = out / f"{split}.jsonl"
        write_jsonl(path, (row.to_row() for row in rows[split]))
        digests[path.name] = sha256_file(path)
    report = {
        "seed": request.seed,
        "writer": request.writer,
        "sha256": digests,
        "removed_from_test": removed,
        "rejected": dict(rejections.most_common()),
        "splits": {split: describe_rows(rows[split], banks[split]) for split in SPLITS},
    }
    write_json(out / "data_report.json", report)
    write_atomic(out / "data_report.md", render_report(report))
    return SynthGenerateResult(
        out=request.out,
        num_rows=len(rows["train"]),
        validation_rows=len(rows["validation"]),
        test_rows=len(rows["test"]),
        num_formulations=len({row.group for row in rows["train"]}),
        rejected=rejections.total(),
        sha256=digests,
        next_step=f"llmops train run {request.out}",
    )


SYNTH_GENERATE = Operation(
    name="synth.generate",
    request=SynthGenerateRequest,
    result=SynthGenerateResult,
    run=generate_conversations,
    long_running=True,
    destructive=True,
)
