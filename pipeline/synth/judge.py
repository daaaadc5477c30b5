"""``synth.judge``: an LLM judge for rows that passed the gates, and for which of two wordings sounds more like a person.

The judge sees the conversation only: not who wrote it, nor its id or tags. The mean is computed here, never by the judge. In pairs
both orders are asked; verdicts that disagree are a tie. A judge says nothing until ``synth calibrate`` has held it
against human labels.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_jsonl
from pipeline.core.messages import Example
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.prices import ModelPrice
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.inference.metered import MeteredClient, Prompt
from pipeline.synth.checks import find_faults
from pipeline.synth.endpoint import Endpoint, Money, Pace, known_price
from pipeline.synth.judge_prompts import CRITERIA, ITEMS, judge_prompt, pair_prompt
from pipeline.synth.replay import read_rows

KEEP_MEAN = 4.0
"""Mean of the four criteria from which a row is kept (chapter 63)."""
_SCALE = range(1, 6)


class SynthJudgeRequest(Request):
    """What to judge, and who judges."""

    file: WorkspacePath = Field(min_length=1)
    """JSON Lines file of conversations."""
    against: WorkspacePath | None = None
    """Second file with rows of the same ids: judge pairs instead, in both orders."""
    out: WorkspacePath = Field(min_length=1)
    """Folder for verdicts.jsonl, kept.jsonl and the ledger."""
    base_url: str = Field(min_length=1)
    """OpenAI base URL of the judge; take another family than the writer's."""
    model: str = Field(min_length=1)
    """Model that judges."""
    max_rows: int | None = Field(default=None, gt=0)
    """Judge only the first so many rows."""
    max_cost_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Stop before the request that could exceed it."""
    prices: list[ModelPrice] = []
    """Price rows that come before those of this package."""
    pace: Pace = Pace()
    """How requests are sent."""


class SynthJudgeResult(Result):
    """What the judge said."""

    num_rows: int
    """Rows, or pairs, judged."""
    num_kept: int
    """Rows that passed the gates, with a mean of at least 4 and every item answered yes; with pairs 0."""
    num_gated: int
    """Rows that failed a programmatic gate: the judge was not asked."""
    num_unreadable: int
    """Verdicts that were none."""
    mean_by_criterion: dict[str, float]
    """Criterion -> mean grade."""
    no_by_item: dict[str, int]
    """Item -> rows answered with no."""
    pairs: dict[str, int]
    """With pairs: wins of file, wins of against, ties, and of those the verdicts that changed with the order."""
    verdicts: str
    """File with all verdicts."""
    money: Money
    """What it cost."""


def judge_rows(request: SynthJudgeRequest, run: Run | None = None) -> SynthJudgeResult:
    """Grade rows by anchored criteria and items, or compare two wordings in both orders, with a model that sees no origin.

    Raises:
        InvalidInputError: If a file is no data file, or the endpoint refuses.
        CostLimitError: If the next request could exceed the limit.
    """
    rows = read_rows(request.file)[: request.max_rows]
    others = {row.id: row for row in read_rows(request.against)} if request.against else {}
    price = known_price(request.model, request.prices)
    endpoint = Endpoint(request.base_url, request.model, price, request.max_cost_usd, request.pace)
    out = resolve_path(request.out)
    with endpoint.open(out / "judge_ledger.jsonl") as client:
        judged = (
            _judge_pairs(rows, others, client, request, run)
            if request.against
            else _judge_each(rows, client, request, run)
        )
        money = Money.of(client.spending())
    verdicts_file = f"{request.out}/{'pairs' if request.against else 'verdicts'}.jsonl"
    write_jsonl(resolve_path(verdicts_file), judged)
    kept = {verdict["id"] for verdict in judged if verdict.get("keep")}
    if not request.against:
        write_jsonl(out / "kept.jsonl", (row.to_row() for row in rows if row.id in kept))
    graded = [verdict for verdict in judged if verdict.get("grades")]
    return SynthJudgeResult(
        num_rows=len(judged),
        num_kept=len(kept),
        num_gated=sum(bool(verdict.get("faults")) for verdict in judged),
        num_unreadable=sum(bool(verdict.get("unreadable")) for verdict in judged),
        mean_by_criterion={
            name: round(sum(v["grades"][name] for v in graded) / len(graded), 4)
            for name in CRITERIA
            if graded
        },
        no_by_item={name: sum(not v["items"][name] for v in graded) for name in ITEMS if graded},
        pairs=dict(Counter(v["winner"] for v in judged if "winner" in v)),
        verdicts=verdicts_file,
        money=money,
        warnings=[
            "hold the judge against human labels first: `llmops synth calibrate`",
            *money.warnings(request.model),
        ],
        next_step=f"llmops synth calibrate {verdicts_file} LABELS",
    )


def _judge_each(
    rows: Sequence[Example], client: MeteredClient, request: SynthJudgeRequest, run: Run | None
) -> list[dict[str, Any]]:
    faults = {row.id: [fault.kind for fault in find_faults(row)] for row in rows}
    asked = [row for row in rows if not faults[row.id]]
    answers = _ask([judge_prompt(row, request.pace.extra) for row in asked], client, request, run)
    read = {row.id: read_verdict(answer) for row, answer in zip(asked, answers, strict=True)}
    return [
        {"id": row.id, "keep": False, "faults": faults[row.id]}
        if faults[row.id]
        else {"id": row.id, **read[row.id]}
        for row in rows
    ]


def _judge_pairs(
    rows: Sequence[Example],
    others: dict[str, Example],
    client: MeteredClient,
    request: SynthJudgeRequest,
    run: Run | None,
) -> list[dict[str, Any]]:
    pairs = [(row, others[row.id]) for row in rows if row.id in others]
    if not pairs:
        raise InvalidInputError(
            "the two files share no id", hint="Compare two wordings of the same conversations."
        )
    extra = request.pace.extra
    prompts = [prompt for a, b in pairs for prompt in (pair_prompt(a, b, extra), pair_prompt(b, a, extra))]
    answers = _ask(prompts, client, request, run)
    judged: list[dict[str, Any]] = []
    for i, (row, _) in enumerate(pairs):
        forward, backward = (_winner(answer) for answer in answers[2 * i : 2 * i + 2])
        judged.append(
            {"id": row.id, "winner": decide_pair(forward, backward), "verdicts": [forward, backward]}
        )
    return judged


def decide_pair(forward: str, backward: str) -> str:
    """Return who won: ``file`` or ``against`` when both orders agree, else a tie of one kind or the other."""
    if "" in {forward, backward}:
        return "unreadable"
    if (forward, backward) == ("first", "second"):
        return "file"
    if (forward, backward) == ("second", "first"):
        return "against"
    return "tie" if forward == backward == "tie" else "tie_by_order"


def read_verdict(answer: dict[str, Any] | None) -> dict[str, Any]:
    """Return grades, items, mean and keep of a judge's answer, or that it is unreadable."""
    found = _read_object(answer)
    grades = {name: found.get(name) for name in CRITERIA}
    items = {name: found.get(name) for name in ITEMS}
    is_readable = all(type(grade) is int and grade in _SCALE for grade in grades.values()) and all(
        isinstance(item, bool) for item in items.values()
    )
    if not is_readable:
        return {"keep": False, "unreadable": True}
    mean = sum(cast("dict[str, int]", grades).values()) / len(grades)
    return {"keep": mean >= KEEP_MEAN and all(items.values()), "mean": mean, "grades": grades, "items": items}


def _winner(answer: dict[str, Any] | None) -> str:
    winner = str(_read_object(answer).get("winner", "")).lower()
    return winner if winner in {"first", "second", "tie"} else ""


def _read_object(answer: dict[str, Any] | None) -> dict[str, Any]:
    text = str((answer or {}).get("content") or "")
    try:
        value: Any = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _ask(
    prompts: Sequence[Prompt], client: MeteredClient, request: SynthJudgeRequest, run: Run | None
) -> list[dict[str, Any] | None]:
    with Progress("judge", len(prompts), unit="requests", run=run) as progress:
        return client.ask_all(prompts, request.pace.concurrency, progress.advance)


SYNTH_JUDGE = Operation(
    name="synth.judge",
    request=SynthJudgeRequest,
    result=SynthJudgeResult,
    run=judge_rows,
    long_running=True,
    destructive=True,
    positional=("file",),
)
