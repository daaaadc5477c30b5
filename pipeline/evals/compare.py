"""``evals.compare``: two evaluations of the same turns, paired. "not proven" is an answer too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import installed_version
from pipeline.core.files import write_atomic, write_json
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.pages import render_html
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path
from pipeline.evals.intervals import Interval, Rate, cluster_bootstrap, mcnemar_exact
from pipeline.evals.records import TurnRecord, find_details, read_details
from pipeline.evals.report import describe_answer, describe_prediction, rate_table
from pipeline.evals.summary import summarise

Verdict = Literal["better", "worse", "not proven"]
SIGNIFICANCE = 0.05
_MAX_REGRESSIONS = 20


class EvalCompareRequest(Request):
    """Which evaluations to compare."""

    before: WorkspaceRef = Field(min_length=1)
    """Run id of `evals run`, its folder, or a details.jsonl."""
    after: WorkspaceRef = Field(min_length=1)
    """The same for the other model."""
    seed: int = 0
    """For resampling."""
    out: WorkspacePath | None = None
    """Folder that gets compare.json, compare.md, compare.html and compare.png."""


class Regression(Part):
    """A turn that was right before and is wrong after."""

    id: str
    """Case id."""
    turn: int
    """Assistant turn in the case."""
    user: str
    """Last user message."""
    expected: str
    """Right answer."""
    got: str
    """Answer of the model after."""
    errors: list[str]
    """Codes, the cause first."""


class RatePair(Part):
    """One rate on both sides."""

    before: Rate
    """Before."""
    after: Rate
    """After."""


class EvalCompareResult(Result):
    """Is it better?"""

    verdict: Verdict
    """`better` or `worse` when p is below 0.05 and the interval of the difference excludes 0, else `not proven`."""
    num_turns: int
    """Turns judged on both sides."""
    difference: Interval
    """Whole turns right, after minus before; formulations are resampled, pairs kept together."""
    p_value: float
    """McNemar's exact test on whole turns right, two-sided."""
    num_fixed: int
    """Wrong before, right after."""
    num_broken: int
    """Right before, wrong after."""
    rates: dict[str, RatePair]
    """All rates of `evals run` on the common turns, and whole turns by kind and tag as `kind:...`, `tag:...`."""
    regressions: list[Regression]
    """At most 20 turns that were right before and are wrong after."""


def compare_evaluations(request: EvalCompareRequest) -> EvalCompareResult:
    """Compare two evaluations of the same cases: paired test, difference with interval, regressions.

    Raises:
        InvalidInputError: If a file is missing or broken, or the two share no turn.
    """
    before = read_details(find_details(request.before))
    after = read_details(find_details(request.after))
    pairs, warnings = pair_turns(before, after)
    changes: dict[str, list[float]] = {}
    for old, new in pairs:
        changes.setdefault(new.group, []).append(float(new.correct) - float(old.correct))
    difference = cluster_bootstrap(changes, request.seed)
    assert difference is not None  # there is at least one pair
    broken = [(old, new) for old, new in pairs if old.correct and not new.correct]
    num_fixed = sum(new.correct and not old.correct for old, new in pairs)
    p_value = mcnemar_exact(len(broken), num_fixed)
    result = EvalCompareResult(
        verdict=decide(difference, p_value),
        num_turns=len(pairs),
        difference=difference,
        p_value=p_value,
        num_fixed=num_fixed,
        num_broken=len(broken),
        rates=_pair_rates(pairs, request.seed),
        regressions=[_describe_regression(new) for _, new in broken[:_MAX_REGRESSIONS]],
        warnings=warnings,
    )
    if request.out is not None:
        _write_comparison(resolve_path(request.out), request, result)
    return result


EVALS_COMPARE = Operation(
    name="evals.compare",
    request=EvalCompareRequest,
    result=EvalCompareResult,
    run=compare_evaluations,
    positional=("before", "after"),
)


def pair_turns(
    before: Sequence[TurnRecord], after: Sequence[TurnRecord]
) -> tuple[list[tuple[TurnRecord, TurnRecord]], list[str]]:
    """Return the turns that both sides judged, and a warning when some are on one side only.

    Raises:
        InvalidInputError: If there is none.
    """
    old = {(record.key, record.digest): record for record in before}
    pairs = [(old[key], record) for record in after if (key := (record.key, record.digest)) in old]
    if not pairs:
        raise InvalidInputError(
            "the two evaluations share no turn",
            hint="Evaluate both models on the same cases, limit and seed.",
        )
    left_out = len(before) + len(after) - 2 * len(pairs)
    warning = f"{left_out} turns are on one side only, or differ, and were left out"
    return pairs, [warning] if left_out else []


def decide(difference: Interval, p_value: float) -> Verdict:
    """Return the verdict. Both must agree: the test sees pairs, the interval sees that formulations cluster."""
    if difference.low is None or difference.high is None or p_value >= SIGNIFICANCE:
        return "not proven"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not proven"


def render_comparison(request: EvalCompareRequest, result: EvalCompareResult) -> str:
    """Return the comparison in Markdown."""
    shown = result.difference
    interval = (
        "no interval" if shown.low is None or shown.high is None else f"[{shown.low:+.3f}, {shown.high:+.3f}]"
    )
    columns = {
        "before": {name: pair.before for name, pair in result.rates.items()},
        "after": {name: pair.after for name, pair in result.rates.items()},
    }
    lines = [
        f"# After is {result.verdict}" if result.verdict != "not proven" else "# No difference is proven",
        "",
        f"- before: {request.before}",
        f"- after: {request.after}",
        f"- whole turns right: {shown.value:+.3f} {interval} on {result.num_turns} turns of {shown.num_clusters} "
        f"formulations; {result.num_fixed} fixed, {result.num_broken} broken, McNemar p = {result.p_value:.4g}",
        *(f"- {warning}" for warning in result.warnings),
        "",
        *rate_table(columns),
        "",
        "## Right before, wrong after",
        "",
    ]
    for case in result.regressions:
        lines += [f"- {case.id}, turn {case.turn}: {case.user!r}", f"  - expected: {case.expected}"]
        lines += [f"  - got: {case.got}", f"  - errors: {', '.join(case.errors)}"]
    return "\n".join(lines if result.regressions else [*lines, "None."]) + "\n"


def _write_comparison(folder: Path, request: EvalCompareRequest, result: EvalCompareResult) -> None:
    write_json(folder / "compare.json", result.model_dump(mode="json"))
    page = render_comparison(request, result)
    if installed_version("matplotlib") is not None:
        from pipeline.evals.backends.charts import draw_rates

        columns = {
            "before": {name: pair.before for name, pair in result.rates.items()},
            "after": {name: pair.after for name, pair in result.rates.items()},
        }
        draw_rates(columns, folder / "compare.png")
        head, mark, rest = page.partition("## Right before, wrong after")
        page = f"{head}![Rates before and after, with 95 % intervals](compare.png)\n\n{mark}{rest}"
    write_atomic(folder / "compare.md", page)
    write_atomic(folder / "compare.html", render_html(page, folder))


def _pair_rates(pairs: Sequence[tuple[TurnRecord, TurnRecord]], seed: int) -> dict[str, RatePair]:
    sides: list[dict[str, Rate]] = []
    for records in ([old for old, _ in pairs], [new for _, new in pairs]):
        summary = summarise(records, seed)
        sides.append(
            {
                **summary.rates,
                **{f"kind:{name}": rate for name, rate in summary.by_kind.items()},
                **{f"tag:{name}": rate for name, rate in summary.by_tag.items()},
            }
        )
    return {name: RatePair(before=sides[0][name], after=sides[1][name]) for name in sides[0]}


def _describe_regression(record: TurnRecord) -> Regression:
    return Regression(
        id=record.id,
        turn=record.turn,
        user=record.user,
        expected=describe_answer(record.gold),
        got=describe_prediction(record),
        errors=list(record.errors),
    )
