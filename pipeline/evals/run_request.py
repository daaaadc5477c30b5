"""What `evals run` may be asked, and what the evaluation of either kind of case file hands back."""

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from pipeline.core.operation import Request
from pipeline.core.paths import WorkspacePath, WorkspaceRef
from pipeline.evals.answers import Decoding
from pipeline.evals.engines import Source
from pipeline.evals.records import TurnRecord
from pipeline.evals.tool_calls.execution import check_executor

CaseT = TypeVar("CaseT")


class Evaluated(NamedTuple):
    """The outcome of asking and judging."""

    records: Sequence[TurnRecord]
    """Judged answers in case order."""
    model: str
    """Name of what answered."""
    num_cases: int
    """Conversations or cases."""
    warnings: list[str]
    """About cases that were left out."""


class EvalRunRequest(Request):
    """What to evaluate, and where it answers."""

    cases: WorkspacePath = Field(min_length=1)
    """JSONL file of neutral cases, or of conversations as `synth generate` writes (`test.jsonl`)."""
    base_url: str | None = Field(default=None, min_length=1)
    """OpenAI-compatible server, such as http://127.0.0.1:8080/v1; give one of base_url, serve, replay, transformers."""
    model: str = ""
    """Name of the model on that server; default is the only or first one it has."""
    serve: WorkspaceRef | None = None
    """Model folder or GGUF to serve for the duration, or `ollama:NAME`."""
    adapter: WorkspacePath | None = None
    """LoRA adapter (GGUF) served beside `serve`; `--model adapter` asks it, the base's name asks the base."""
    replay: WorkspacePath | None = None
    """Predictions file to score instead of asking; neutral cases only."""
    transformers: WorkspaceRef | None = None
    """Model folder to run with transformers; neutral cases only."""
    constrained: bool = False
    """Decode under a grammar of the tools (llama.cpp servers); neutral cases only."""
    stream: bool = False
    """Ask for streamed answers; neutral cases only."""
    repeats: int = Field(default=1, ge=1, le=100)
    """Ask each neutral case so often; use a temperature above 0."""
    temperature: float = Field(default=0.0, ge=0)
    """Of neutral cases; 0 is greedy."""
    profile: Literal["strict", "bfcl"] = "strict"
    """Rules for neutral cases."""
    executor: str | None = None
    """What runs the calls of neutral cases, as in `evals score`; default `task_api` where a case names it."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate only so many cases, drawn with the seed; default all."""
    seed: int = 0
    """For drawing cases, resampling, and the server."""
    concurrency: int = Field(default=2, ge=1, le=64)
    """Requests at the same time; more than the server has slots only adds waiting to the latency."""
    max_tokens: int = Field(default=160, ge=1)
    """Longest answer; a cut answer is wrong."""
    label: str = Field(default="", max_length=80)
    """What the report calls this model, such as `base` or `tuned`; default is its name."""
    out: WorkspacePath | None = None
    """Folder that also gets the report files, predictions.jsonl and details.jsonl."""

    _check_executor = field_validator("executor")(check_executor)

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if sum(x is not None for x in (self.base_url, self.serve, self.replay, self.transformers)) != 1:
            raise ValueError("give either base_url or serve, or one of replay and transformers")
        return self

    def source(self) -> Source:
        """Where answers come from."""
        return Source(**{name: getattr(self, name) for name in Source.model_fields})

    def decoding(self) -> Decoding:
        """How answers are generated."""
        return Decoding(**{name: getattr(self, name) for name in Decoding.model_fields})


def choose_cases(cases: Sequence[CaseT], limit: int | None, seed: int) -> list[CaseT]:
    """Return at most ``limit`` cases: the same ones for the same seed, in file order."""
    if limit is None or limit >= len(cases):
        return list(cases)
    chosen = random.Random(seed).sample(range(len(cases)), limit)
    return [cases[i] for i in sorted(chosen)]
