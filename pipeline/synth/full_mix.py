"""The fuller mix: cells of the coverage matrix, worded by the program, three sides that share nothing.

Training and validation differ in formulations and values, test in both and in people, days and task numbers; only test
has the combinations of :data:`COMPOSITIONAL`. More rows can be made than are kept: the most repetitive ones go.
"""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from pipeline.core.errors import OperationFailedError
from pipeline.core.extras import require
from pipeline.core.messages import Example
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.synth.cells import COMPOSITIONAL, SHAPES, Cell, Matrix, choose_cells, possible_cells
from pipeline.synth.check import find_personal_data
from pipeline.synth.checks import find_faults
from pipeline.synth.diversity import find_repetitive
from pipeline.synth.formulations import Bank, hold_back, load_bank, without
from pipeline.synth.plans import make_scenario
from pipeline.synth.program_writer import ProgramWriter
from pipeline.synth.scenario import Scenario, realise
from pipeline.synth.scene import RejectedError, Supply
from pipeline.synth.sides import Side, without_names

MAX_TEMPLATE_SHARE = 0.03
"""No formulation makes more than this share of a side."""
_HELD_VALUES_RATIO = 0.12
_MAX_DRAWS = 60
_MAX_CELLS = 40
KINDS = {
    "change": "update", "close": "close", "missing": "close", "lookup": "by_title", "no_title": "by_title",
    "ambiguous": "by_title", "from_list": "followup", "correction": "followup", "long": "followup",
    "parallel": "multi", "parallel_missing": "multi", "missing_title": "ask", "missing_id": "ask",
    "missing_change": "ask", "invalid_priority": "ask", "empty_title": "ask", "talk_after_list": "talk",
}  # fmt: skip
"""Shape -> kind of conversation in reports and evaluations; a missing one is its own name or the intent."""


class MadeSide(NamedTuple):
    """One finished side."""

    rows: list[Example]
    bank: Bank
    matrix: Matrix
    rejections: Counter[str]
    num_made: int


def make_sides(
    seed: int, num_rows: dict[str, int], made_ratio: float, run: Run | None = None
) -> dict[str, MadeSide]:
    """Make the rows of all sides; ``made_ratio`` rows are made for each one kept."""
    require("phonenumbers", "python-stdnum", extra="data")
    sides = full_sides(seed)
    total = sum(round(count * made_ratio) for count in num_rows.values())
    made: dict[str, MadeSide] = {}
    with Progress("synth", total, unit="rows", run=run) as progress:
        for name, count in num_rows.items():
            rng = random.Random(f"{seed}:full:{name}")
            made[name] = _make_side(sides[name], count, made_ratio, rng, progress)
    return made


@cache
def full_sides(seed: int) -> dict[str, Side]:
    """Return the three sides and what each may use."""
    train_bank = load_bank("train")
    test_bank, _ = without(load_bank("test", more=True), train_bank)
    kept, held = hold_back(without_names(train_bank, [test_bank]), random.Random(f"{seed}:hold back"))
    rng = random.Random(f"{seed}:hold back values")
    kept_values: dict[str, tuple[str, ...]] = {}
    held_values: dict[str, tuple[str, ...]] = {}
    for file, lines in kept.values.items():
        chosen = set(rng.sample(lines, round(len(lines) * _HELD_VALUES_RATIO)))
        kept_values[file] = tuple(line for line in lines if line not in chosen)
        held_values[file] = tuple(line for line in lines if line in chosen)
    held_bank = Bank(held.formulations, held_values)
    kept_bank = without_names(Bank(kept.formulations, kept_values), [held_bank])
    return {
        "train": Side("train", kept_bank),
        "validation": Side("validation", held_bank),
        "test": Side("test", test_bank),
    }


def usable_cells(side: Side, personas: Sequence[str] = ("neutral",)) -> list[Cell]:
    """Return the cells that a side may have and its bank can word."""
    paired = {line.constants["calls"] for line in side.bank.formulations["multi"]}

    def accept(cell: Cell) -> bool:
        is_wordable = "+" not in cell.intent or cell.intent in paired
        return is_wordable and (side.name == "test" or (cell.intent, cell.slots) not in COMPOSITIONAL)

    return possible_cells(accept, personas)


def plan_scenarios(
    seed: int, name: str, num_rows: int, personas: Sequence[str] = ("neutral",)
) -> list[Scenario]:
    """Return the decided conversations of one side, not worded."""
    side = full_sides(seed)[name]
    rng = random.Random(f"{seed}:plan:{name}")
    supply = Supply(side.bank, rng, ())
    planned: list[Scenario] = []
    for number, cell in enumerate(choose_cells(usable_cells(side, personas), num_rows, rng).cells, start=1):
        for _ in range(_MAX_DRAWS):
            try:
                planned.append(make_scenario(cell, side, supply, f"{name}-{number:05d}"))
            except RejectedError:
                continue
            break
    return planned


def row_tags(scenario: Scenario) -> dict[str, str]:
    """Return the tags of a row beside its cell."""
    cell = Cell(**scenario.cell)
    kind = KINDS.get(cell.shape, cell.shape if cell.shape in {"create", "list", "talk"} else cell.intent)
    slice_name = "compositional" if (cell.intent, cell.slots) in COMPOSITIONAL else "ordinary"
    return {"kind": cell.intent if kind == "close" else kind, "category": cell.category, "slice": slice_name}


def _make_side(
    side: Side, num_rows: int, made_ratio: float, rng: random.Random, progress: Progress
) -> MadeSide:
    num_made = round(num_rows * made_ratio)
    cells = usable_cells(side)
    matrix = choose_cells(cells, num_made, rng)
    supply = Supply(side.bank, rng, ())
    writer = ProgramWriter(supply, max(1, int(num_rows * MAX_TEMPLATE_SHARE)))
    rejections: Counter[str] = Counter()
    by_category: dict[str, list[Cell]] = {}
    for cell in cells:
        by_category.setdefault(cell.category, []).append(cell)
    rows: list[Example] = []
    for number, cell in enumerate(matrix.cells, start=1):
        row = _make_row(cell, f"{side.name}-{number:05d}", side, writer, rejections)
        for _ in range(_MAX_CELLS):
            if row:
                break
            rejections["the bank cannot word the cell: another one was taken"] += 1
            other = rng.choice(by_category[cell.category])
            row = _make_row(other, f"{side.name}-{number:05d}", side, writer, rejections)
        if row is None:
            raise OperationFailedError(
                f"no sound conversation of category {cell.category} for {side.name}",
                hint="Ask for fewer rows, or add formulations to the phrase banks.",
                reasons=[f"{reason} ({count})" for reason, count in rejections.most_common(5)],
            )
        rows.append(row)
        progress.advance()
    dropped = set(find_repetitive([_user_text(row) for row in rows], num_made - num_rows))
    kept = [row for i, row in enumerate(rows) if i not in dropped]
    numbered = [row.model_copy(update={"id": f"{side.name}-{i:05d}"}) for i, row in enumerate(kept, start=1)]
    return MadeSide(numbered, side.bank, _covered_by(numbered, matrix), rejections, num_made)


def _make_row(
    cell: Cell, name: str, side: Side, writer: ProgramWriter, rejections: Counter[str]
) -> Example | None:
    for _ in range(_MAX_DRAWS):
        try:
            scenario = make_scenario(cell, side, writer.supply, name)
            texts, line = writer.write(scenario)
        except RejectedError as rejected:
            rejections[f"{cell.shape}: {rejected}"] += 1
            continue
        tags = {**row_tags(scenario), "formulation": line.text}
        made = realise(scenario, texts, line.id, tags)
        found = [*find_faults(made.row), *find_personal_data(made.row)] if made.row else made.repairs
        if made.row and not found:
            return made.row
        writer.rows_about[line.id] -= 1
        rejections[f"{cell.shape}: {found[0].kind}"] += 1
    return None


def _user_text(row: Example) -> str:
    return " ".join(message.content or "" for message in row.messages if message.role == "user")


def _covered_by(rows: Sequence[Example], planned: Matrix) -> Matrix:
    """Return the matrix of what was made in the end."""
    cells = [Cell(**{name: row.tags[name] for name in Cell._fields}) for row in rows]
    possible = planned.pairs
    held = {pair for cell in cells for pair in cell.pairs()}
    missing = sorted(possible - held)
    return planned._replace(cells=cells, missing=[f"{a}={x} with {b}={y}" for a, x, b, y in missing])


def describe_matrix(side: MadeSide) -> dict[str, Any]:
    """Return the numbers of the coverage matrix."""
    possible = len(side.matrix.pairs)
    return {
        "possible_pairs": possible,
        "covered_pairs": possible - len(side.matrix.missing),
        "missing_pairs": side.matrix.missing,
        "rows_by_category": dict(
            Counter(SHAPES[cell.shape].category for cell in side.matrix.cells).most_common()
        ),
        "rows_by_shape": dict(Counter(cell.shape for cell in side.matrix.cells).most_common()),
    }
