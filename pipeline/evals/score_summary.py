"""Many scored answers in numbers, each with its interval; floors that any model must beat; gates on lower bounds."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.core.operation import Part
from pipeline.evals.case_judge import CaseJudge
from pipeline.evals.cases import Case
from pipeline.evals.intervals import Interval, Rate, cluster_bootstrap, pass_hat_k
from pipeline.evals.summary import find_slicing_tags
from pipeline.evals.tool_calls import CaseScore, Prediction, layer_of
from pipeline.evals.tool_calls.lint import build_reference
from pipeline.evals.tool_calls.values import fold

Decision = Literal["call", "ask", "decline"]
GateVerdict = Literal["passed", "failed", "not proven"]
_DECISIONS: dict[str, Decision] = {"calls": "call", "any_call": "call", "ask": "ask", "none": "decline"}


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer with its case and score."""

    case: Case
    prediction: Prediction
    score: CaseScore


class Gate(Part):
    """One bound and whether it is reached."""

    metric: str
    """Name of the rate."""
    bound: float
    """What the lower end of its interval must reach."""
    rate: Rate
    """As measured."""
    verdict: GateVerdict
    """`failed`: even the upper end is below; `not proven`: too few rows to tell."""


class ScoreSummary(Part):
    """Rates over all answers."""

    correct: Rate
    """Answers without any error."""
    correct_by_group: Interval | None
    """The same with groups, not rows, as the independent draws."""
    metrics: dict[str, Rate]
    """Rates: json, parse, tool, arg, no_call and ask accuracy, argument precision and recall."""
    macro_f1: float | None
    """Call, ask or decline: mean F1 of the kinds that occur; asking is seen only in text."""
    pass_k: dict[str, float]
    """With repeats: chance that k tries are all right."""
    slices: dict[str, Rate]
    """Correct by kind and by tag."""
    errors: dict[str, int]
    """Answers by error code."""
    layers: dict[str, int]
    """Wrong answers by the first layer that failed."""
    flags: dict[str, int]
    """`coercible`: right but for the type; `integer_as_float`: 5.0 for 5, accepted."""


def summarise_scores(scored: Sequence[Scored], seed: int) -> ScoreSummary:
    """Return the numbers of many answers."""
    clusters: dict[str, list[float]] = defaultdict(list)
    checks: dict[str, list[bool]] = defaultdict(list)
    for row in scored:
        clusters[row.case.cluster].append(float(row.score.correct))
        for name, outcome in row.score.checks.items():
            checks[name].append(outcome)
    counts = [row.score.arguments for row in scored]
    right = sum(count.right for count in counts)
    metrics = {name: Rate.of(outcomes) for name, outcomes in sorted(checks.items())}
    metrics["argument_precision"] = Rate.count(right, sum(count.given for count in counts))
    metrics["argument_recall"] = Rate.count(right, sum(count.wanted for count in counts))
    wrong = [row.score for row in scored if not row.score.correct]
    return ScoreSummary(
        correct=Rate.of(row.score.correct for row in scored),
        correct_by_group=cluster_bootstrap(clusters, seed),
        metrics=metrics,
        macro_f1=_macro_f1(scored),
        pass_k=_pass_k(scored),
        slices=_slices(scored),
        errors=dict(Counter(code for score in wrong for code in score.errors).most_common()),
        layers=dict(Counter(layer_of(score.errors[0]) for score in wrong).most_common()),
        flags=dict(Counter(flag for row in scored for flag in row.score.flags)),
    )


def judge_gates(rates: Mapping[str, Rate], bounds: Mapping[str, float]) -> list[Gate]:
    """Hold the lower ends of intervals against bounds; a rate over nothing proves nothing."""
    gates: list[Gate] = []
    for metric, bound in bounds.items():
        rate = rates.get(metric) or Rate.of([])
        verdict: GateVerdict = "not proven"
        if rate.low is not None and rate.low >= bound:
            verdict = "passed"
        elif rate.high is not None and rate.high < bound:
            verdict = "failed"
        gates.append(Gate(metric=metric, bound=bound, rate=rate, verdict=verdict))
    return gates


def measure_floors(judges: Mapping[str, CaseJudge], train: Sequence[Case]) -> dict[str, Rate]:
    """Return how often answers without any understanding are right: never calling, the most frequent call, copying."""
    cases = [judge.case for judge in judges.values()]
    floors = {"never_call": _measure(judges, lambda _: Prediction())}
    frequent = Counter(call.name for case in (train or cases) for call in case.expected.calls)
    if frequent:
        name = frequent.most_common(1)[0][0]
        example = next(c for case in (train or cases) for c in case.expected.calls if c.name == name)
        copied = Prediction(calls=(build_reference(example),), parser="calls")
        floors["most_frequent_tool"] = _measure(judges, lambda _: copied)
        right_tool = (tuple(call.name for call in case.expected.calls) == (name,) for case in cases)
        floors["most_frequent_tool_name_only"] = Rate.of(right_tool)
    if train:
        pool = [(_grams(case.user_text()), case) for case in train]
        floors["nearest_neighbour_copy"] = _measure(judges, lambda case: _copy_nearest(case, pool))
    return floors


def _measure(judges: Mapping[str, CaseJudge], answer: Callable[[Case], Prediction]) -> Rate:
    return Rate.of(judge.judge(answer(judge.case)).correct for judge in judges.values())


def _copy_nearest(case: Case, pool: Sequence[tuple[frozenset[str], Case]]) -> Prediction:
    """Answer as the most similar training case does (Jaccard of character 4-grams and words)."""
    asked = _grams(case.user_text())
    _, nearest = max(pool, key=lambda item: len(asked & item[0]) / (len(asked | item[0]) or 1))
    calls = tuple(build_reference(call) for call in nearest.expected.calls)
    return Prediction(calls=calls, parser="calls" if calls else None)


def _grams(text: str) -> frozenset[str]:
    words = fold(text)
    return frozenset(words.split()) | frozenset(words[i : i + 4] for i in range(len(words) - 3))


def _decide(prediction: Prediction) -> Decision:
    if prediction.attempted:
        return "call"
    return "ask" if "?" in (prediction.text or "") else "decline"


def _macro_f1(scored: Sequence[Scored]) -> float | None:
    pairs = Counter((_DECISIONS[row.case.expected.kind], _decide(row.prediction)) for row in scored)
    wanted = sorted({kind for kind, _ in pairs})
    if not wanted:
        return None
    scores: list[float] = []
    for kind in wanted:
        both = 2 * pairs[kind, kind]
        either = sum(count for pair, count in pairs.items() for side in pair if side == kind)
        scores.append(both / either)
    return round(sum(scores) / len(scores), 4)


def _pass_k(scored: Sequence[Scored]) -> dict[str, float]:
    tries: dict[str, list[bool]] = defaultdict(list)
    for row in scored:
        tries[row.case.id].append(row.score.correct)
    most = min((len(outcomes) for outcomes in tries.values()), default=0)
    found = {f"pass^{k}": pass_hat_k(tries.values(), k) for k in range(1, most + 1)} if most > 1 else {}
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def _slices(scored: Sequence[Scored]) -> dict[str, Rate]:
    outcomes: dict[str, list[bool]] = defaultdict(list)
    slicing = find_slicing_tags(row.case.tags for row in scored)
    for row in scored:
        outcomes[f"kind:{row.case.expected.kind}"].append(row.score.correct)
        for name in slicing & row.case.tags.keys():
            outcomes[f"{name}:{row.case.tags[name]}"].append(row.score.correct)
    return {name: Rate.of(found) for name, found in sorted(outcomes.items())}
