"""``synth.generate``: conversations whose calls were executed, split so that the sides share no wording.

Two mixes (:mod:`quick_mix`, :mod:`full_mix`) and two writers: the program takes its words from the phrase banks and needs
no model; an OpenAI-compatible endpoint words the cells of the full mix (:mod:`endpoint_mix`).
"""

from collections import Counter
from typing import Any, Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import sha256_file, write_atomic, write_json, write_jsonl
from pipeline.core.messages import Example
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.prices import ModelPrice
from pipeline.core.runs import Run
from pipeline.synth.endpoint import Endpoint, Money, Pace, known_price
from pipeline.synth.endpoint_mix import word_sides
from pipeline.synth.full_mix import describe_matrix, make_sides
from pipeline.synth.quick_mix import make_quick_mix
from pipeline.synth.report import describe_rows, render_report

SPLITS = ("train", "validation", "test")
LEDGER = "ledger.jsonl"
_MIN_MADE_RATIO = 1.2


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
    mix: Literal["quickstart", "setbacks", "full"] = "quickstart"
    """`quickstart` is what a small model learns fastest; `setbacks` adds time-outs and unknown priorities to it; `full`
    fills the coverage matrix with errors and recovery."""
    made_ratio: float = Field(default=1.0, ge=1, le=5)
    """Rows made for each row kept, in the mix `full`: the most repetitive ones go."""
    writer: Literal["program", "endpoint"] = "program"
    """Who words the conversations: the phrase banks, or an OpenAI-compatible endpoint (always in the mix `full`)."""
    base_url: str = ""
    """OpenAI base URL of the endpoint; ends in /v1."""
    model: str = ""
    """Model to ask for there."""
    max_cost_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Stop before the request that could exceed it, earlier runs into the same folder included."""
    prices: list[ModelPrice] = []
    """Price rows that come before those of this package."""
    pace: Pace = Pace()
    """How requests are sent."""


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
    money: Money | None = None
    """What the endpoint cost; none for the program, which costs nothing."""


def generate_conversations(request: SynthGenerateRequest, run: Run | None = None) -> SynthGenerateResult:
    """Make training, validation and test conversations with exact ground truth.

    Raises:
        InvalidInputError: If a phrase bank has a bad line.
        OperationFailedError: If the banks are too small to draw a conversation of some kind.
    """
    num_rows = {"train": request.num_rows, "validation": request.validation_rows, "test": request.test_rows}
    if request.writer == "endpoint":
        return _generate_by_endpoint(request, num_rows, run)
    if request.mix == "full":
        made = make_sides(request.seed, num_rows, request.made_ratio, run)
        rejected = sum((side.rejections for side in made.values()), start=Counter[str]())
        report = {
            "made": {name: side.num_made for name, side in made.items()},
            "matrix": {name: describe_matrix(side) for name, side in made.items()},
            "splits": {name: describe_rows(side.rows, side.bank) for name, side in made.items()},
        }
        return _write(request, {name: side.rows for name, side in made.items()}, rejected, report)
    setbacks = request.mix == "setbacks"
    quick = make_quick_mix(request.seed, num_rows, request.call_only_ratio, run, setbacks=setbacks)
    report = {
        "removed_from_test": quick.removed,
        "splits": {name: describe_rows(quick.rows[name], quick.banks[name]) for name in SPLITS},
    }
    return _write(request, quick.rows, quick.rejections, report)


def _generate_by_endpoint(
    request: SynthGenerateRequest, num_rows: dict[str, int], run: Run | None
) -> SynthGenerateResult:
    if not request.base_url or not request.model:
        raise InvalidInputError(
            "the writer `endpoint` needs base_url and model",
            hint="Give --base-url http://HOST:PORT/v1 --model NAME.",
        )
    price = known_price(request.model, request.prices)
    ratio = max(request.made_ratio, _MIN_MADE_RATIO)
    endpoint = Endpoint(request.base_url, request.model, price, request.max_cost_usd, request.pace, ratio)
    ledger = resolve_path(request.out) / LEDGER
    sides, client = word_sides(endpoint, request.seed, num_rows, ledger, run)
    money = Money.of(client.spending())
    refused = sum((side.refused for side in sides.values()), start=Counter[str]())
    if not sides["train"].rows:
        raise OperationFailedError(
            f"no wording of {request.model} passed the gates",
            hint="Take a larger model: it has to follow the brief. What was paid is kept.",
            refused=[f"{kind} ({count})" for kind, count in refused.most_common(8)],
        )
    report = {
        "model": request.model,
        "money": money.model_dump(),
        "made": {name: side.num_planned for name, side in sides.items()},
        "splits": {name: describe_rows(side.rows, None) for name, side in sides.items()},
    }
    result = _write(request, {name: side.rows for name, side in sides.items()}, refused, report)
    missing = sum(num_rows.values()) - sum(len(side.rows) for side in sides.values())
    warnings = money.warnings(request.model)
    if missing:
        warnings.append(f"{missing} conversations got no wording that passed the gates")
    return result.model_copy(update={"money": money, "warnings": warnings})


def _write(
    request: SynthGenerateRequest,
    rows: dict[str, list[Example]],
    rejections: Counter[str],
    facts: dict[str, Any],
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
        "mix": "full" if request.writer == "endpoint" else request.mix,
        "sha256": digests,
        "rejected": dict(rejections.most_common()),
        **facts,
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
