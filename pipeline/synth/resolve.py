"""``synth.resolve``: solve the user's words again with a model, several times, and keep rows whose label most answers share.

Useful for rows that a model or an agent worded; pointless for the program's, whose calls follow from their words. Every
turn with calls is solved with the row's own history. Dates are compared as days, texts without case and spaces.
"""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

from pydantic import Field

from pipeline.core.files import write_jsonl
from pipeline.core.messages import Example, ToolCall
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.prices import ModelPrice
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.inference.metered import Prompt
from pipeline.synth.endpoint import Endpoint, Money, Pace, known_price
from pipeline.synth.grounding import fold
from pipeline.synth.replay import read_rows
from pipeline.task_api.due_dates import resolve_due_date
from pipeline.task_api.errors import TaskApiError
from pipeline.task_api.tools import load_tools

_MAX_TOKENS = 300


class SynthResolveRequest(Request):
    """What to solve again, and by whom."""

    file: WorkspacePath = Field(min_length=1)
    """JSON Lines file of conversations."""
    out: WorkspacePath = Field(min_length=1)
    """Folder for kept.jsonl, votes.jsonl and the ledger."""
    base_url: str = Field(min_length=1)
    """OpenAI base URL of the solver."""
    model: str = Field(min_length=1)
    """Model that solves; it must be able to call tools."""
    num_solutions: int = Field(default=3, ge=1, le=15)
    """Solutions of each turn."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Above 0, so that the solutions can differ."""
    max_cost_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Stop before the request that could exceed it."""
    prices: list[ModelPrice] = []
    """Price rows that come before those of this package."""
    pace: Pace = Pace()
    """How requests are sent."""


class SynthResolveResult(Result):
    """Which rows the solver agrees with."""

    num_rows: int
    """Rows solved again."""
    num_kept: int
    """Rows whose calls most solutions share, in every turn."""
    num_turns: int
    """Turns solved."""
    num_agreed_turns: int
    """Of those, turns with a majority for the label."""
    kept: str
    """File with the kept rows."""
    votes: str
    """File with the votes turn by turn."""
    money: Money
    """What it cost."""


def resolve_rows(request: SynthResolveRequest, run: Run | None = None) -> SynthResolveResult:
    """Solve each turn again several times and keep the rows whose calls the majority makes too.

    Raises:
        InvalidInputError: If the file is no data file, or the endpoint refuses.
        CostLimitError: If the next request could exceed the limit.
    """
    rows = read_rows(request.file)
    turns = [(row, i) for row in rows for i in range(len(row.messages)) if _is_decision(row, i)]
    prompts = [_prompt(row, i, k, request) for row, i in turns for k in range(request.num_solutions)]
    price = known_price(request.model, request.prices)
    endpoint = Endpoint(request.base_url, request.model, price, request.max_cost_usd, request.pace)
    out = resolve_path(request.out)
    with (
        endpoint.open(out / "resolve_ledger.jsonl") as client,
        Progress("resolve", len(prompts), unit="requests", run=run) as progress,
    ):
        answers = client.ask_all(prompts, request.pace.concurrency, progress.advance) if prompts else []
        money = Money.of(client.spending())
    votes: list[dict[str, Any]] = []
    for number, (row, i) in enumerate(turns):
        given = answers[number * request.num_solutions : (number + 1) * request.num_solutions]
        label = call_set(row.messages[i].tool_calls, date.fromisoformat(row.today))
        agreed = sum(_calls_of(answer, date.fromisoformat(row.today)) == label for answer in given)
        votes.append({"id": row.id, "message": i, "agreed": agreed, "solutions": len(given)})
    lost = Counter(vote["id"] for vote in votes if vote["agreed"] * 2 <= vote["solutions"])
    kept = [row for row in rows if row.id not in lost]
    write_jsonl(out / "votes.jsonl", votes)
    write_jsonl(out / "kept.jsonl", (row.to_row() for row in kept))
    return SynthResolveResult(
        num_rows=len(rows),
        num_kept=len(kept),
        num_turns=len(turns),
        num_agreed_turns=len(turns) - lost.total(),
        kept=f"{request.out}/kept.jsonl",
        votes=f"{request.out}/votes.jsonl",
        money=money,
        warnings=money.warnings(request.model),
    )


def call_set(calls: Sequence[ToolCall], today: date) -> Counter[str]:
    """Return the calls as a multiset in which equal meanings are equal."""
    return Counter(
        json.dumps(
            [call.name, {k: _normalise(k, v, today) for k, v in call.arguments.items()}], sort_keys=True
        )
        for call in calls
    )


def _normalise(name: str, value: Any, today: date) -> Any:
    if name in {"due_date", "due_before"} and isinstance(value, str):
        try:
            return resolve_due_date(value, today, allow_past=True).isoformat()
        except TaskApiError:
            return fold(value)
    return fold(value) if isinstance(value, str) else value


def _is_decision(row: Example, position: int) -> bool:
    """True for the assistant's first turn after a user turn: what it does next depends on results."""
    return row.messages[position].role == "assistant" and row.messages[position - 1].role == "user"


def _prompt(row: Example, position: int, number: int, request: SynthResolveRequest) -> Prompt:
    messages = [message.to_openai() for message in row.messages[:position]]
    return Prompt(
        messages,
        _MAX_TOKENS,
        {"tools": load_tools(), "temperature": request.temperature, "seed": number, **request.pace.extra},
    )


def _calls_of(answer: dict[str, Any] | None, today: date) -> Counter[str] | None:
    """Return the calls of an answer, or None when there is no answer or a call that is none."""
    if answer is None:
        return None
    try:
        return call_set([ToolCall.from_openai(call) for call in answer.get("tool_calls") or ()], today)
    except (ValueError, AttributeError, TypeError):
        return None


SYNTH_RESOLVE = Operation(
    name="synth.resolve",
    request=SynthResolveRequest,
    result=SynthResolveResult,
    run=resolve_rows,
    long_running=True,
    destructive=True,
    positional=("file",),
)
