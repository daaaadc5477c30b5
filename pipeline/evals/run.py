"""``evals.run``: every assistant turn of every case, asked of a served model with the true history before it.

Answers are appended to ``details.jsonl`` as they come, so that a resumed run asks only what is missing. Does not
start a server: give it the URL of one.
"""

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import sha256_file
from pipeline.core.messages import Example
from pipeline.core.operation import Operation, Result
from pipeline.core.paths import resolve_path, shown_path
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.evals.case_run import evaluate_cases, holds_neutral_cases
from pipeline.evals.engines import open_clients, open_url
from pipeline.evals.intervals import Interval, Rate
from pipeline.evals.predictions import ask_model
from pipeline.evals.records import DETAILS_FILE, TurnRecord, judge, read_finished, write_details
from pipeline.evals.report_files import REPORT_PAGE, copy_reports, write_reports
from pipeline.evals.run_request import EvalRunRequest, Evaluated, choose_cases
from pipeline.evals.scorers import find_reference_errors
from pipeline.evals.summary import LatencySummary, summarise
from pipeline.evals.turns import Turn, cut_turns, read_cases
from pipeline.inference.client import ChatClient
from pipeline.task_api.tools import load_tools

_REPORT_FILES = ("eval.json", REPORT_PAGE, DETAILS_FILE)
_MAX_NAMED = 5


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
    if holds_neutral_cases(cases_path):
        found = evaluate_cases(request, run)
    else:
        found = _evaluate_conversations(request, run)
    records, model, warnings = found.records, found.model, found.warnings
    summary = summarise(records, request.seed)
    label = request.label or model
    facts: dict[str, object] = {
        "label": label,
        "model": model,
        "answers_from": request.serve or request.base_url or request.replay or request.transformers,
        "cases": shown_path(cases_path),
        "cases_sha256": sha256_file(cases_path),
        "num_cases": found.num_cases,
        "num_turns": len(records),
        "seed": request.seed,
        "concurrency": request.concurrency,
    }
    warnings = [*warnings, *write_reports(run.artifacts, facts, summary, records)]
    if request.out is not None:
        copy_reports(run.artifacts, resolve_path(request.out))
    return EvalRunResult(
        run_id=run.id,
        label=label,
        model=model,
        num_cases=found.num_cases,
        num_turns=len(records),
        whole_turn_by_formulation=summary.whole_turn_by_formulation,
        errors=summary.errors,
        latency=summary.latency,
        report=shown_path(run.artifacts / REPORT_PAGE),
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


def _evaluate_conversations(request: EvalRunRequest, run: Run) -> Evaluated:
    if request.replay or request.transformers or request.constrained or request.stream or request.repeats > 1:
        raise InvalidInputError(
            "conversations are evaluated on a server, freely and once",
            hint="Make neutral cases of them with `llmops evals import`.",
        )
    cases = choose_cases(read_cases(resolve_path(request.cases)), request.limit, request.seed)
    turns, warnings = _find_sound_turns(cases)
    source = request.source()
    with open_url(source) as url, open_clients(url, source) as (model, clients):
        records = _evaluate(turns, request, run, clients)
    return Evaluated(records, model, len(cases), warnings)


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


def _evaluate(
    turns: Sequence[Turn], request: EvalRunRequest, run: Run, clients: "queue.SimpleQueue[ChatClient]"
) -> list[TurnRecord]:
    """Ask and judge what an earlier attempt left open; return all records in case order."""
    path = run.artifacts / DETAILS_FILE
    finished = read_finished(path)
    done = {t.key: finished[t.key] for t in turns if t.key in finished and finished[t.key].digest == t.digest}
    write_details(path, list(done.values()))
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
    write_details(path, records)
    return records
