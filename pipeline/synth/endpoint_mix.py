"""An OpenAI-compatible endpoint as the writer: it words the cells, the gates decide, what failed is asked again.

Requests go out in waves; the phrases to avoid and the order of acceptance depend on whole waves only, so that a killed
run, started again, forms the same requests and finds their answers in the ledger.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from pipeline.core.extras import require
from pipeline.core.messages import Example
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.inference.batch import ask_in_batch
from pipeline.inference.metered import MeteredClient, Prompt
from pipeline.synth.acceptance import Corpus, accept
from pipeline.synth.brief import RULES, make_item
from pipeline.synth.endpoint import Endpoint
from pipeline.synth.full_mix import plan_scenarios
from pipeline.synth.scenario import Repair, Scenario

_TOKENS_PER_TURN, _TOKENS_PER_ROW = 110, 40
_WAVE_FACTOR, _MAX_ATTEMPTS = 2, 2
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "wordings",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "rows": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "id": {"type": "string"},
                            "texts": {"type": "array", "items": {"type": "string"}},
                        },
                        "required": ["id", "texts"],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["rows"],
            "additionalProperties": False,
        },
    },
}
_FORM = 'Answer with JSON only: {"rows": [{"id": "...", "texts": ["first user turn", ...]}, ...]}, one row for each item.'


class Wave(Protocol):
    """Sends prompts and returns the messages, in order."""

    def __call__(self, prompts: Sequence[Prompt]) -> list[dict[str, Any] | None]:
        """Send them."""
        ...


class WordedSide(NamedTuple):
    """One side, worded."""

    rows: list[Example]
    num_planned: int
    refused: Counter[str]
    """Gates at which wordings were refused."""


def word_sides(
    endpoint: Endpoint, seed: int, num_rows: dict[str, int], ledger: Path, run: Run | None
) -> tuple[dict[str, WordedSide], MeteredClient]:
    """Let the endpoint word all sides, as far as its gates and the cost limit let it.

    Raises:
        CostLimitError: If the limit stops it before it is done; everything paid is in the ledger.
        OperationFailedError: If the endpoint gives no usable answer.
    """
    require("phonenumbers", "python-stdnum", extra="data")
    sides: dict[str, WordedSide] = {}
    with (
        endpoint.open(ledger) as client,
        Progress("write", sum(num_rows.values()), unit="rows", run=run) as progress,
    ):

        def send(prompts: Sequence[Prompt]) -> list[dict[str, Any] | None]:
            if endpoint.pace.batch:
                return ask_in_batch(client, prompts, endpoint.pace.poll_seconds)
            return client.ask_all(prompts, endpoint.pace.concurrency)

        for name, count in num_rows.items():
            planned = plan_scenarios(seed, name, round(count * endpoint.made_ratio))
            sides[name] = _word_side(planned, count, endpoint, send, progress)
        return sides, client


def make_prompt(
    scenarios: Sequence[Scenario],
    avoid: Sequence[str],
    repairs: dict[str, list[Repair]],
    extra: dict[str, Any],
) -> Prompt:
    """Return the request for the wording of some conversations."""
    items = [make_item(scenario).model_dump() for scenario in scenarios]
    for item in items:
        if item["id"] in repairs:
            item["refused_before_because"] = [f"turn {r.turn}: {r.problem}" for r in repairs[item["id"]]]
    task = {"avoid": list(avoid), "items": items}
    num_turns = sum(len(scenario.needs) for scenario in scenarios)
    return Prompt(
        messages=[
            {"role": "system", "content": " ".join([*RULES, _FORM])},
            {"role": "user", "content": json.dumps(task, ensure_ascii=False)},
        ],
        max_tokens=num_turns * _TOKENS_PER_TURN + len(scenarios) * _TOKENS_PER_ROW,
        parameters={"response_format": _SCHEMA, **extra},
    )


def _word_side(
    planned: Sequence[Scenario], count: int, endpoint: Endpoint, send: Wave, progress: Progress
) -> WordedSide:
    corpus = Corpus()
    accepted: dict[str, Example] = {}
    repairs: dict[str, list[Repair]] = {}
    refused: Counter[str] = Counter()
    attempts: Counter[str] = Counter()
    pace = endpoint.pace
    for _ in range(pace.max_rounds):
        # What failed twice waits behind conversations that were not asked for yet.
        left = sorted(
            (scenario for scenario in planned if scenario.id not in accepted),
            key=lambda scenario: attempts[scenario.id] >= _MAX_ATTEMPTS,
        )[: count - len(accepted)]
        attempts.update(scenario.id for scenario in left)
        groups = [left[i : i + pace.rows_per_request] for i in range(0, len(left), pace.rows_per_request)]
        size = len(groups) if pace.batch else pace.concurrency * _WAVE_FACTOR
        for start in range(0, len(groups), max(1, size)):
            wave = groups[start : start + size]
            avoid = corpus.overused()
            answers = send([make_prompt(group, avoid, repairs, pace.extra) for group in wave])
            for group, answer in zip(wave, answers, strict=True):
                wordings = read_wordings(str((answer or {}).get("content") or ""))
                for scenario in group:
                    texts = wordings.get(scenario.id)
                    if texts is None:
                        refused["no_wording"] += 1
                        continue
                    made = accept(scenario, texts, corpus, avoid)
                    if made.row is None:
                        repairs[scenario.id] = made.repairs
                        refused.update(repair.kind for repair in made.repairs)
                    else:
                        accepted[scenario.id] = made.row
                        corpus.add(scenario.needs, texts, scenario.id)
                        progress.advance()
    return WordedSide(list(accepted.values()), len(planned), refused)


def read_wordings(text: str) -> dict[str, list[str]]:
    """Return id -> texts of every whole row in an answer, also of one that is cut or wrapped in other words."""
    found: dict[str, list[str]] = {}
    decoder = json.JSONDecoder()
    position = 0
    while (position := text.find("{", position)) >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            position += 1  # the outer object of a cut answer: its rows may be whole
            continue
        for row in _rows_of(value):
            found.setdefault(row[0], row[1])
        position = end
    return found


def _rows_of(value: Any) -> list[tuple[str, list[str]]]:
    if not isinstance(value, dict):
        return []
    row = cast("dict[str, Any]", value)
    inner: Any = row.get("rows")
    if isinstance(inner, list):
        return [pair for part in cast("list[Any]", inner) for pair in _rows_of(part)]
    name, texts = row.get("id"), row.get("texts")
    if isinstance(name, str) and isinstance(texts, list):
        listed = cast("list[Any]", texts)
        if all(isinstance(text, str) for text in listed):
            return [(name, [str(text).strip() for text in listed])]
    return []
