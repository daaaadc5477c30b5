"""Operation ``deploy.load``: many clients at once, each with a question that has one possible answer.

The answer is forced by a JSON schema that admits one text, so it shows nothing about the model and everything about the
server: an answer that another client should have had cannot pass. Works with every OpenAI-compatible server that honours
``response_format``.
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Literal

from pydantic import Field

from pipeline.core.errors import PipelineError
from pipeline.core.messages import Message
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.deploy.watch import find_server
from pipeline.inference.client import ChatClient
from pipeline.inference.request_log import LatencyFigures, measure_latency

_ANSWER_TOKENS = 64
Outcome = Literal["answered", "mixed_up", "lost"]


class DeployLoadRequest(Request):
    """Which server to load, and how much."""

    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """OpenAI base URL; default is the newest running server of this workspace."""
    model: str = ""
    """Model name there; default is the server's first."""
    num_requests: int = Field(default=50, ge=1, le=10_000)
    """Requests in all."""
    num_clients: int = Field(default=50, ge=1, le=200)
    """Clients that ask at the same time, each on a connection of its own."""


class DeployLoadResult(Result):
    """How the server did."""

    base_url: str
    """OpenAI base URL."""
    model: str
    """Model name."""
    num_requests: int
    """Requests sent."""
    num_clients: int
    """How many at a time."""
    num_answered: int
    """Requests that got the answer they must get."""
    num_mixed_up: int
    """Requests that got something else."""
    num_lost: int
    """Requests that got an error, or nothing."""
    errors: dict[str, int]
    """What the lost ones were told."""
    latency: LatencyFigures | None
    """From sending to the whole answer, waiting included; null when nothing was answered."""
    seconds: float
    """From the first request to the last answer."""
    requests_per_second: float
    """Answered requests by that time."""

    def is_negative(self) -> bool:
        """Some request was lost or mixed up."""
        return self.num_answered < self.num_requests


def load_server(request: DeployLoadRequest, run: Run) -> DeployLoadResult:
    """Ask a server many things at once and check that no answer is lost or mixed up.

    Raises:
        InvalidInputError: If no server is running.
        MissingDependencyError: If the server does not answer.
    """
    base_url = request.base_url or find_server("")[1].base_url
    with ChatClient(base_url, request.model) as client:
        model = request.model or client.list_models()[0]
    errors: Counter[str] = Counter()
    outcomes: Counter[Outcome] = Counter()
    seconds: list[float] = []
    started = time.monotonic()
    with (
        Progress("load", request.num_requests, unit="requests", run=run) as progress,
        ThreadPoolExecutor(request.num_clients) as pool,
    ):
        asked = [pool.submit(_ask, base_url, model, number) for number in range(request.num_requests)]
        for future in as_completed(asked):
            outcome, took, error = future.result()
            outcomes[outcome] += 1
            errors.update([error] if error else [])
            seconds += [took] if outcome == "answered" else []
            progress.advance(1)
    took = time.monotonic() - started
    return DeployLoadResult(
        base_url=base_url,
        model=model,
        num_requests=request.num_requests,
        num_clients=min(request.num_clients, request.num_requests),
        num_answered=outcomes["answered"],
        num_mixed_up=outcomes["mixed_up"],
        num_lost=outcomes["lost"],
        errors=dict(errors.most_common()),
        latency=measure_latency(seconds),
        seconds=round(took, 3),
        requests_per_second=round(outcomes["answered"] / took, 2),
        next_step="llmops deploy logs",
    )


def _ask(base_url: str, model: str, number: int) -> tuple[Outcome, float, str]:
    """Return what became of one request, how long it took, and the error if there was one."""
    text = f"request-{number}"
    shape = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "string", "enum": [text]}},
    }
    question = [Message(role="user", content=f"Repeat: {text}")]
    started = time.monotonic()
    try:
        # A client of its own, and so a connection of its own, as separate people have.
        with ChatClient(base_url, model) as client:
            answer = client.complete(question, max_tokens=_ANSWER_TOKENS, extra={"response_format": shape})
    except PipelineError as error:
        return "lost", time.monotonic() - started, str(error)[:200]
    outcome: Outcome = "answered" if answer.message.content == f'"{text}"' else "mixed_up"
    return outcome, time.monotonic() - started, ""


DEPLOY_LOAD = Operation(
    name="deploy.load",
    request=DeployLoadRequest,
    result=DeployLoadResult,
    run=load_server,
    long_running=True,
)
