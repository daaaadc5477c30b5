"""``evals.run``: every assistant turn of every case, asked of a served model with the true history before it.

Answers are appended to ``details.jsonl`` as they come, so that a resumed run asks only what is missing. Does not
start a server: give it the URL of one.
"""

import queue
import random
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import sha256_file, write_atomic, write_json
from pipeline.core.messages import Example
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path, shown_path
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.evals.intervals import Interval, Rate
from pipeline.evals.predictions import ask_model
from pipeline.evals.records import DETAILS_FILE, TurnRecord, judge, read_finished
from pipeline.evals.report import choose_worst, describe_answer, describe_prediction, render_report
from pipeline.evals.scorers import find_reference_errors
from pipeline.evals.summary import LatencySummary, Summary, summarise
from pipeline.evals.turns import Turn, cut_turns, read_cases
from pipeline.inference.client import ChatClient
from pipeline.inference.model_folder import find_servable
from pipeline.inference.server import start_server
from pipeline.inference.server_spec import ServerSpec
from pipeline.task_api.tools import load_tools

_REPORT_FILES = ("eval.json", "eval.md", DETAILS_FILE)
_MAX_NAMED = 5


class EvalRunRequest(Request):
    """What to evaluate, and where it answers."""

    cases: WorkspacePath = Field(min_length=1)
    """JSONL file of conversations, as `synth generate` writes (`test.jsonl`)."""
    base_url: str | None = Field(default=None, min_length=1)
    """OpenAI-compatible server, such as http://127.0.0.1:8080/v1; give this or `serve`."""
    model: str = ""
    """Name of the model on that server; default is the only or first one it has."""
    serve: WorkspaceRef | None = None
    """Model folder or GGUF to serve for the duration, instead of a server that runs already."""
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
    """Folder that also gets eval.json, eval.md and details.jsonl."""

    @model_validator(mode="after")
    def _check_one_server(self) -> Self:
        if (self.base_url is None) == (self.serve is None):
            raise ValueError("give either base_url or serve")
        return self


class EvalRunResult(Result):
    """How good the model is, and how sure that is."""

    run_id: str
    """Run directory; `evals compare` takes it."""
    label: str
    """As asked."""
    model: str
    """Name on the server."""
    num_cases: int
    """Conversations."""
    num_turns: int
    """Assistant turns judged."""
    whole_turn: Rate
    """Turns with everything right."""
    whole_turn_by_formulation: Interval | None
    """The same with formulations, not rows, as the independent draws."""
    conversation: Rate
    """Conversations with all turns right."""
    well_formed: Rate
    """Of turns with an attempted call: every call parses and fits its schema."""
    right_tools: Rate
    """Of turns that need calls: right tools, right order."""
    right_arguments: Rate
    """Of turns that need calls: right tools and exactly the right arguments."""
    right_state: Rate
    """Of turns that need calls: the tasks are as they should be."""
    no_call: Rate
    """Of questions back and small talk: no call was made."""
    right_question: Rate
    """Of turns that need a question: asks for what is missing."""
    grounded: Rate
    """Of turns after a tool result: says what was returned and no more."""
    errors: dict[str, int]
    """Wrong turns by cause."""
    latency: LatencySummary
    """Speed."""
    report: str
    """Readable report."""
    details: str
    """One line per turn."""


def run_evaluation(request: EvalRunRequest, run: Run) -> EvalRunResult:
    """Evaluate a served model on conversations with exact ground truth, turn by turn.

    Raises:
        InvalidInputError: If the case file is broken or empty, or the server has no such model.
        MissingDependencyError: If the server cannot be reached.
    """
    cases_path = resolve_path(request.cases)
    cases = choose_cases(read_cases(cases_path), request.limit, request.seed)
    turns, warnings = _find_sound_turns(cases)
    with _open_endpoint(request) as base_url, _open_clients(request, base_url) as (model, clients):
        records = _evaluate(turns, request, run, clients)
    summary = summarise(records, request.seed)
    label = request.label or model
    facts: dict[str, object] = {
        "label": label,
        "model": model,
        "server": request.serve or base_url,
        "cases": shown_path(cases_path),
        "cases_sha256": sha256_file(cases_path),
        "num_cases": len(cases),
        "num_turns": len(records),
        "seed": request.seed,
        "concurrency": request.concurrency,
    }
    _write_reports(request, run, facts, summary, records)
    return EvalRunResult(
        run_id=run.id,
        label=label,
        model=model,
        num_cases=len(cases),
        num_turns=len(records),
        whole_turn_by_formulation=summary.whole_turn_by_formulation,
        errors=summary.errors,
        latency=summary.latency,
        report=shown_path(run.artifacts / "eval.md"),
        details=shown_path(run.artifacts / DETAILS_FILE),
        warnings=warnings,
        next_step=f"Compare with another run: llmops evals compare BEFORE_RUN {run.id}",
        **summary.rates,
    )


EVALS_RUN = Operation(
    name="evals.run",
    request=EvalRunRequest,
    result=EvalRunResult,
    run=run_evaluation,
    long_running=True,
)


def choose_cases(cases: Sequence[Example], limit: int | None, seed: int) -> list[Example]:
    """Return at most ``limit`` cases: the same ones for the same seed, in file order."""
    if limit is None or limit >= len(cases):
        return list(cases)
    chosen = random.Random(seed).sample(range(len(cases)), limit)
    return [cases[i] for i in sorted(chosen)]


def _find_sound_turns(cases: Sequence[Example]) -> tuple[list[Turn], list[str]]:
    """Return the turns whose own right answer passes the scorer, and a warning about the others."""
    turns = [turn for case in cases for turn in cut_turns(case)]
    broken = [turn for turn in turns if find_reference_errors(turn)]
    if len(broken) == len(turns):
        raise InvalidInputError(
            "no case passes its own check: the right answers are wrong by the scorer",
            hint="Run `llmops synth replay` on the file; its calls or replies do not fit the Task API.",
        )
    if not broken:
        return turns, []
    names = ", ".join(f"{turn.example.id} turn {turn.number}" for turn in broken[:_MAX_NAMED])
    warning = f"{len(broken)} turns were left out because their own right answer fails the scorer: {names}"
    keys = {turn.key for turn in broken}
    return [turn for turn in turns if turn.key not in keys], [warning]


@contextmanager
def _open_endpoint(request: EvalRunRequest) -> Generator[str]:
    """Yield the base URL to ask, of a server started for the duration when `serve` names a model."""
    if request.serve is None:
        url = request.base_url or ""
        yield url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1"
        return
    found = find_servable(request.serve)
    spec = ServerSpec(model_path=str(found.path), name=found.name, num_slots=request.concurrency)
    with start_server(spec) as handle:
        yield handle.base_url


@contextmanager
def _open_clients(
    request: EvalRunRequest, url: str
) -> Generator[tuple[str, "queue.SimpleQueue[ChatClient]"]]:
    """Yield the model name and one client per concurrent request, after a check that the server has the model."""
    clients: queue.SimpleQueue[ChatClient] = queue.SimpleQueue()
    with ChatClient(url, request.model) as scout:
        names = scout.list_models()
    model = request.model or (names[0] if names else "")
    if not {model, f"{model}:latest"} & set(names):
        raise InvalidInputError(
            f"{url} has no model {model!r}", hint=f"Use one of: {', '.join(names)}.", models=names
        )
    with ExitStack() as stack:
        for _ in range(request.concurrency):
            clients.put(stack.enter_context(ChatClient(url, model)))
        yield model, clients


def _evaluate(
    turns: Sequence[Turn], request: EvalRunRequest, run: Run, clients: "queue.SimpleQueue[ChatClient]"
) -> list[TurnRecord]:
    """Ask and judge what an earlier attempt left open; return all records in case order."""
    path = run.artifacts / DETAILS_FILE
    finished = read_finished(path)
    done = {t.key: finished[t.key] for t in turns if t.key in finished and finished[t.key].digest == t.digest}
    _write_details(path, list(done.values()))
    tools = load_tools()

    def answer(turn: Turn) -> TurnRecord:
        client = clients.get()
        try:
            reply = ask_model(client, turn.history, tools, max_tokens=request.max_tokens, seed=request.seed)
        finally:
            clients.put(client)
        return judge(turn, reply)

    pool = ThreadPoolExecutor(request.concurrency)
    with Progress(
        f"evaluate {request.label or request.model}".strip(), len(turns), unit="turns", run=run
    ) as progress:
        progress.done = len(done)
        try:
            waiting = [pool.submit(answer, turn) for turn in turns if turn.key not in done]
            with path.open("a", encoding="utf-8") as details:
                for future in as_completed(waiting):
                    record = future.result()
                    details.write(record.model_dump_json() + "\n")
                    details.flush()
                    done[record.key] = record
                    num_right = sum(r.correct for r in done.values())
                    progress.advance(note=f"{num_right}/{len(done)} right")
        finally:
            pool.shutdown(cancel_futures=True)
    records = [done[turn.key] for turn in turns]
    _write_details(path, records)
    return records


def _write_details(path: Path, records: Sequence[TurnRecord]) -> None:
    write_atomic(path, "".join(record.model_dump_json() + "\n" for record in records))


def _write_reports(
    request: EvalRunRequest,
    run: Run,
    facts: dict[str, object],
    summary: Summary,
    records: Sequence[TurnRecord],
) -> None:
    worst = [
        {
            "id": record.id,
            "turn": record.turn,
            "kind": record.kind,
            "user": record.user,
            "expected": describe_answer(record.gold),
            "got": describe_prediction(record),
            "errors": list(record.errors),
        }
        for record in choose_worst(records)
    ]
    write_json(run.artifacts / "eval.json", {**facts, **summary.model_dump(mode="json"), "worst": worst})
    lines = [f"{key}: {value}" for key, value in facts.items()]
    title = f"Evaluation of {facts['label']}"
    write_atomic(run.artifacts / "eval.md", render_report(title, lines, summary, records))
    if request.out is not None:
        for name in _REPORT_FILES:
            write_atomic(resolve_path(request.out) / name, (run.artifacts / name).read_bytes())
