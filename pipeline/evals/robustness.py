"""``evals.robustness``: the same cases asked in other ways, each slice against the original, paired.

All slices are judged by one rule, the end state included: calls of renamed tools are executed under their old names.
"""

from collections.abc import Sequence

from pydantic import Field, field_validator

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_atomic, write_json
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.pages import render_html
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path, shown_path
from pipeline.core.runs import Run
from pipeline.evals.answers import Decoding
from pipeline.evals.asking import Asking, Question, ask_all
from pipeline.evals.case_judge import CaseJudge
from pipeline.evals.case_run import judge_all, keep_sound
from pipeline.evals.cases import Case, read_case_file
from pipeline.evals.engines import Engine, Source, open_engine
from pipeline.evals.intervals import Interval, Rate, cluster_bootstrap, mcnemar_exact
from pipeline.evals.records import TurnRecord, write_details
from pipeline.evals.renaming import Renaming
from pipeline.evals.report import rate_table
from pipeline.evals.run_request import choose_cases
from pipeline.evals.slices import SLICES, find_renaming
from pipeline.evals.summary import hide_empty_interval
from pipeline.evals.tool_calls.execution import check_executor

ORIGINAL, STREAMING = "original", "streaming"


class RobustnessRequest(Request):
    """What to ask in other ways, and where it answers."""

    cases: WorkspacePath = Field(min_length=1)
    """File of neutral cases."""
    base_url: str | None = None
    """OpenAI-compatible server; give one of base_url, serve, transformers."""
    model: str = ""
    """Name of the model on that server."""
    serve: WorkspaceRef | None = None
    """Model folder or GGUF to serve for the duration, or `ollama:NAME`."""
    transformers: WorkspaceRef | None = None
    """Model folder to run with transformers."""
    slices: list[str] = []
    """Only these; default all that apply."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many cases, drawn with the seed."""
    seed: int = 0
    """For drawing, shuffling and resampling."""
    concurrency: int = Field(default=2, ge=1, le=64)
    """Requests at the same time."""
    max_tokens: int = Field(default=160, ge=1)
    """Longest answer."""
    executor: str | None = None
    """What runs the calls, as in `evals score`; default `task_api` where a case names it."""

    _check_executor = field_validator("executor")(check_executor)


class SliceResult(Part):
    """One way of asking."""

    rate: Rate
    """Cases with everything right."""
    original: Rate
    """The same cases as they are."""
    delta: Interval
    """Slice minus original, pairs kept together, formulations resampled."""
    p_value: float
    """McNemar's exact test, two-sided."""


class RobustnessResult(Result):
    """How much the way of asking matters."""

    run_id: str
    """Run directory."""
    model: str
    """Name of what answered."""
    original: Rate
    """Cases as they are."""
    slices: dict[str, SliceResult]
    """By name; slices that apply to no case are missing."""
    worst_slice: str
    """The one with the lowest delta."""
    max_drop: float
    """How much that one loses; 0 when nothing does."""
    report: str
    """Readable report."""


def measure_robustness(request: RobustnessRequest, run: Run) -> RobustnessResult:
    """Ask cases in other ways, such as renamed or more tools, and report the worst slice and its loss.

    Raises:
        InvalidInputError: If the file is broken, a slice is unknown, or none applies.
        MissingDependencyError: If the server cannot be reached.
    """
    chosen = _choose_slices(request.slices)
    read = choose_cases(read_case_file(resolve_path(request.cases)), request.limit, request.seed)
    sound, warnings = keep_sound(read, "strict")
    judges = [_ask_inline(CaseJudge(case, "strict", request.executor)) for case in sound]
    source = Source(
        **{name: getattr(request, name) for name in Source.model_fields if hasattr(request, name)}
    )
    with open_engine(source) as engine:
        base = _ask(engine, judges, request, run, ORIGINAL)
        results: dict[str, SliceResult] = {}
        for name in chosen:
            changed, kept = _change(judges, name, request.seed)
            if not changed:
                continue
            records = _ask(engine, changed, request, run, name)
            results[name] = _compare([base[i] for i in kept], records, request.seed)
    if not results:
        raise InvalidInputError(
            "no slice applies to these cases", hint=f"There are {', '.join([*SLICES, STREAMING])}."
        )
    worst = min(results, key=lambda name: results[name].delta.value)
    result = RobustnessResult(
        run_id=run.id,
        model=engine.name,
        original=Rate.of(record.correct for record in base),
        slices=results,
        worst_slice=worst,
        max_drop=max(0.0, -results[worst].delta.value),
        report=shown_path(run.artifacts / "robustness.md"),
        warnings=warnings,
        next_step="Add cases like the worst slice to the training data, or rename tools there.",
    )
    _write(run, result)
    return result


EVALS_ROBUSTNESS = Operation(
    name="evals.robustness",
    request=RobustnessRequest,
    result=RobustnessResult,
    run=measure_robustness,
    long_running=True,
)


def _choose_slices(wanted: Sequence[str]) -> list[str]:
    known = [*SLICES, STREAMING]
    if unknown := [name for name in wanted if name not in known]:
        raise InvalidInputError(f"unknown slice {unknown[0]!r}", hint=f"There are {', '.join(known)}.")
    return list(wanted) or known


def _ask_inline(judge: CaseJudge) -> CaseJudge:
    """Return the judge of a case that carries its tools itself."""
    row = {key: value for key, value in judge.case.to_row().items() if key != "tool_set"}
    case = Case.model_validate({**row, "tools": list(judge.case.openai_tools)})
    return judge.asked_as(case, Renaming())


def _change(judges: Sequence[CaseJudge], name: str, seed: int) -> tuple[list[CaseJudge], list[int]]:
    """Return the changed cases of a slice, and which of the originals they are."""
    if name == STREAMING:
        return list(judges), list(range(len(judges)))
    changed: dict[int, CaseJudge] = {}
    for i, judge in enumerate(judges):
        row = judge.case.to_row()
        asked = SLICES[name](row, seed)
        if asked is not None:
            changed[i] = judge.asked_as(Case.model_validate(asked), find_renaming(name, row))
    return list(changed.values()), list(changed)


def _ask(
    engine: Engine, judges: Sequence[CaseJudge], request: RobustnessRequest, run: Run, name: str
) -> list[TurnRecord]:
    how = Decoding(max_tokens=request.max_tokens, seed=request.seed, stream=name == STREAMING)
    asking = Asking(how, request.concurrency, run.artifacts / f"predictions-{name}.jsonl", name, run)
    cases = [judge.case for judge in judges]
    questions = [Question(case.id, case.messages, case.openai_tools) for case in cases]
    records = judge_all(judges, ask_all(engine, questions, asking))
    write_details(run.artifacts / f"details-{name}.jsonl", records)
    return records


def _compare(before: Sequence[TurnRecord], after: Sequence[TurnRecord], seed: int) -> SliceResult:
    changes: dict[str, list[float]] = {}
    for old, new in zip(before, after, strict=True):
        changes.setdefault(new.group, []).append(float(new.correct) - float(old.correct))
    delta = hide_empty_interval(cluster_bootstrap(changes, seed))
    assert delta is not None  # a slice without cases was left out
    pairs = list(zip(before, after, strict=True))
    num_lost = sum(old.correct and not new.correct for old, new in pairs)
    num_gained = sum(new.correct and not old.correct for old, new in pairs)
    return SliceResult(
        rate=Rate.of(record.correct for record in after),
        original=Rate.of(record.correct for record in before),
        delta=delta,
        p_value=mcnemar_exact(num_lost, num_gained),
    )


def _write(run: Run, result: RobustnessResult) -> None:
    from pipeline.core.extras import installed_version

    write_json(run.artifacts / "robustness.json", result.model_dump(mode="json"))
    columns: dict[str, dict[str, Rate]] = {
        "as it is": {name: found.original for name, found in result.slices.items()},
        "asked otherwise": {name: found.rate for name, found in result.slices.items()},
    }
    lines = [
        f"# Robustness of {result.model}",
        "",
        f"- worst slice: {result.worst_slice}, which loses {result.max_drop:.3f}",
        *(f"- {warning}" for warning in result.warnings),
        "",
        *rate_table(columns),
        "",
        "| slice | delta | p |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {_show(found.delta)} | {found.p_value:.3g} |"
            for name, found in result.slices.items()
        ),
    ]
    if installed_version("matplotlib") is not None:
        from pipeline.evals.backends.charts import draw_rates

        draw_rates(columns, run.artifacts / "slices.png")
        lines += ["", "![Slices with 95 % intervals](slices.png)"]
    page = "\n".join(lines) + "\n"
    write_atomic(run.artifacts / "robustness.md", page)
    write_atomic(run.artifacts / "robustness.html", render_html(page, run.artifacts))


def _show(delta: Interval) -> str:
    if delta.low is None or delta.high is None:
        return f"{delta.value:+.3f} (no interval)"
    return f"{delta.value:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}]"
