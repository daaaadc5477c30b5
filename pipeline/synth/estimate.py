"""``synth.estimate``: what a set worded by a paid endpoint will cost, before anything is sent.

Counts the requests that would really go out: the prompts are made, and four characters are taken for a token, as
providers advise for English. How long answers get is taken from what the program writes for the same cells. ``most_usd``
is what cannot be passed: one token a byte, every answer as long as it may be.
"""

import json
import math
import random
from datetime import datetime
from typing import NamedTuple

from pydantic import Field

from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.prices import ModelPrice, RequestTokens, find_price, find_price_warnings, usd_per_request
from pipeline.inference.metered import Prompt, most_input_tokens
from pipeline.synth.endpoint_mix import make_prompt
from pipeline.synth.full_mix import full_sides, plan_scenarios
from pipeline.synth.judge_prompts import ANSWER_TOKENS, judge_prompt
from pipeline.synth.program_writer import ProgramWriter
from pipeline.synth.scenario import realise
from pipeline.synth.scene import RejectedError, Supply

_CHARACTERS_PER_TOKEN = 4
_SAMPLE_ROWS = 60


class SynthEstimateRequest(Request):
    """Which set, worded and judged by which model."""

    model: str = Field(min_length=1)
    """Model that words the rows."""
    kept_rows: int = Field(default=500, gt=0, le=1_000_000)
    """Rows wanted in the end."""
    made_ratio: float = Field(default=1.2, ge=1, le=5)
    """Rows worded for each row kept."""
    rows_per_request: int = Field(default=10, ge=1, le=50)
    """Conversations in one request."""
    judge: bool = True
    """Every worded row is judged once by the same model."""
    batch: bool = False
    """At the price of the provider's batch interface."""
    prices: list[ModelPrice] = []
    """Price rows that come before those of this package."""
    seed: int = 0
    """Plan whose prompts are measured."""


class CostLine(Part):
    """One kind of request."""

    what: str
    """Writing or judging."""
    num_requests: int
    """Requests."""
    input_tokens: int
    """Their input tokens, all together."""
    output_tokens: int
    """Their output tokens, all together."""
    usd: float
    """Their price."""
    most_usd: float
    """What they cannot exceed."""


class SynthEstimateResult(Result):
    """The computed plan."""

    kept_rows: int
    """Rows in the end."""
    made_rows: int
    """Rows worded."""
    lines: list[CostLine]
    """By kind of request."""
    usd: float
    """Sum."""
    most_usd: float
    """What the plan cannot exceed; a limit for `max_cost_usd`."""
    usd_per_kept_row: float
    """Sum over rows kept."""
    price: ModelPrice
    """The price row that was used."""


class _Sample(NamedTuple):
    """Some requests of one kind, measured."""

    prompts: list[Prompt]
    output_characters: int
    num_rows: int


def estimate_cost(request: SynthEstimateRequest) -> SynthEstimateResult:
    """Estimate what a data set worded and judged by a paid model costs, from the requests that would be sent.

    Raises:
        InvalidInputError: If no price is known for the model.
    """
    price = find_price(request.model, request.prices)
    made_rows = math.ceil(request.kept_rows * request.made_ratio)
    writing, judging = _measure(request)
    lines = [_line("write", writing, math.ceil(made_rows / request.rows_per_request), made_rows, request)]
    if request.judge:
        lines.append(_line("judge", judging, made_rows, made_rows, request))
    usd = sum(line.usd for line in lines)
    warnings = find_price_warnings(price, datetime.now().astimezone().date())
    if request.batch and price.batch_ratio is None:
        warnings.append(f"no batch price is known for {request.model}: the full price was taken")
    return SynthEstimateResult(
        kept_rows=request.kept_rows,
        made_rows=made_rows,
        lines=lines,
        usd=round(usd, 6),
        most_usd=round(sum(line.most_usd for line in lines), 6),
        usd_per_kept_row=round(usd / request.kept_rows, 8),
        price=price,
        warnings=warnings,
        next_step="llmops synth generate --writer endpoint --mix full --max-cost-usd ...",
    )


def _measure(request: SynthEstimateRequest) -> tuple[_Sample, _Sample]:
    """Make the requests for a sample of the plan, and the answers of the program."""
    side = full_sides(request.seed)["train"]
    writer = ProgramWriter(Supply(side.bank, random.Random(request.seed), ()), _SAMPLE_ROWS)
    planned = plan_scenarios(request.seed, "train", max(_SAMPLE_ROWS, request.rows_per_request))
    judged: list[Prompt] = []
    characters = 0
    for scenario in planned:
        try:
            texts, line = writer.write(scenario)
        except RejectedError:
            continue
        characters += len(json.dumps({"id": scenario.id, "texts": texts}, ensure_ascii=False))
        made = realise(scenario, texts, line.id, {})
        judged += [judge_prompt(made.row, {})] if made.row else []
    size = request.rows_per_request
    groups = [planned[i : i + size] for i in range(0, len(planned) - size + 1, size)]
    writing = [make_prompt(group, [], {}, {}) for group in groups]
    return (
        _Sample(writing, characters * size * len(groups) // max(1, len(judged)), size * len(groups)),
        _Sample(judged, len(judged) * ANSWER_TOKENS * _CHARACTERS_PER_TOKEN, len(judged)),
    )


def _line(
    what: str, sample: _Sample, num_requests: int, num_rows: int, request: SynthEstimateRequest
) -> CostLine:
    price = find_price(request.model, request.prices)
    ratio = (price.batch_ratio or 1.0) if request.batch else 1.0
    scale = num_rows / sample.num_rows
    characters = sum(len(json.dumps([p.messages, p.parameters], ensure_ascii=False)) for p in sample.prompts)
    tokens = RequestTokens(
        num_input=math.ceil(characters / _CHARACTERS_PER_TOKEN * scale),
        num_cached_input=0,
        num_output=math.ceil(sample.output_characters / _CHARACTERS_PER_TOKEN * scale),
    )
    most = RequestTokens(
        num_input=math.ceil(sum(map(most_input_tokens, sample.prompts)) * scale),
        num_cached_input=0,
        num_output=math.ceil(sum(prompt.max_tokens for prompt in sample.prompts) * scale),
    )
    return CostLine(
        what=what,
        num_requests=num_requests,
        input_tokens=tokens.num_input,
        output_tokens=tokens.num_output,
        usd=round(usd_per_request(price, tokens) * ratio, 6),
        most_usd=round(usd_per_request(price, most) * ratio, 6),
    )


SYNTH_ESTIMATE = Operation(
    name="synth.estimate",
    request=SynthEstimateRequest,
    result=SynthEstimateResult,
    run=estimate_cost,
    read_only=True,
    positional=("model",),
)
