"""``evals.score``: stored answers held against cases, without a model; the same files give the same numbers.

Defective cases (the reference breaks its own schema) are reported and not scored under ``strict``. BFCL's own rules
accept such references, so that ``bfcl`` scores them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_jsonl
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.progress import Progress
from pipeline.evals.case_judge import CaseJudge, choose_sound, describe_defects, find_defective
from pipeline.evals.cases import Case, read_case_file
from pipeline.evals.intervals import Interval, Rate, advise_rows
from pipeline.evals.score_summary import Gate, Scored, judge_gates, measure_floors, summarise_scores
from pipeline.evals.tool_calls import CaseScore, Prediction, Profile
from pipeline.evals.tool_calls.execution import check_executor
from pipeline.evals.tool_calls.lint import Finding
from pipeline.evals.tool_calls.parsers import Format
from pipeline.evals.tool_calls.prediction_file import Row, parse_prediction, read_prediction_rows

_MAX_NAMED = 5
_DEFECT = "reference_defect"


class EvalScoreRequest(Request):
    """What to score."""

    cases: WorkspacePath = Field(min_length=1)
    """JSON Lines of neutral cases; `evals import` writes them."""
    predictions: WorkspacePath = Field(min_length=1)
    """JSON Lines of `{id, calls}`, `{id, text}` or `{id, message}`; lines of one id are repeats."""
    profile: Profile = "strict"
    """`bfcl` follows the rules of the Berkeley leaderboard."""
    format: Format | None = None
    """Call format that the chat template prescribes; any is accepted without it."""
    details: WorkspacePath | None = None
    """File that gets one line per answer: id, correct, errors."""
    executor: str | None = None
    """What runs the calls: `task_api`, `python:MODULE:FUNCTION` or `mcp[STATE]:COMMAND`; default as the case says."""
    train: WorkspacePath | None = None
    """Training cases, for the copying floor."""
    gates: dict[str, float] = {}
    """Bounds on lower ends of intervals, such as `{"correct": 0.95}`; exit status 1 unless all pass."""
    seed: int = 0
    """For resampling."""

    _check_executor = field_validator("executor")(check_executor)


class Defect(Part):
    """What is wrong with a case."""

    id: str
    """Case id."""
    code: str
    """Kind of defect."""
    message: str
    """In words."""
    scored: bool
    """The case was scored all the same."""


class EvalScoreResult(Result):
    """How many answers are right, and what is wrong with the others."""

    profile: Profile
    """As asked."""
    num_cases: int
    """Cases in the file."""
    num_scored: int
    """Answers scored, a missing one counted as wrong."""
    num_defective: int
    """Cases left out because no answer could be right."""
    num_missing: int
    """Cases without an answer."""
    num_unknown: int
    """Answers to ids that no case has."""
    correct: Rate
    """Answers without any error."""
    correct_by_group: Interval | None
    """The same with groups, not rows, as the independent draws."""
    metrics: dict[str, Rate]
    """json, parse, tool, arg, no_call and ask accuracy, end_to_end, argument precision and recall."""
    macro_f1: float | None
    """Call, ask or decline."""
    pass_k: dict[str, float]
    """With repeats: chance that k tries are all right."""
    floors: dict[str, Rate]
    """Right answers without understanding: what any model must beat."""
    slices: dict[str, Rate]
    """Correct by kind and tag."""
    errors: dict[str, int]
    """Wrong answers by code."""
    layers: dict[str, int]
    """Wrong answers by the first layer that failed."""
    flags: dict[str, int]
    """Remarks that are no errors."""
    parsers: dict[str, int]
    """Answers with calls, by the format they were in."""
    gates: list[Gate]
    """Bounds and verdicts."""
    defects: list[Defect]
    """At most 100 findings about the cases."""
    advice: str
    """How many rows a claim needs."""

    def is_negative(self) -> bool:
        """A gate that is not passed."""
        return any(gate.verdict != "passed" for gate in self.gates)


def score_predictions(request: EvalScoreRequest) -> EvalScoreResult:
    """Score stored tool calls against cases, with intervals, floors and gates.

    Raises:
        InvalidInputError: If a file is missing, empty or broken, no case is sound, or no answer fits a case.
    """
    cases = read_case_file(resolve_path(request.cases))
    answers, num_unknown = _match_answers(cases, resolve_path(request.predictions))
    sound, findings = choose_sound(cases, request.profile)
    defective = find_defective(findings, request.profile)
    judges = {case.id: CaseJudge(case, request.profile, request.executor) for case in sound}
    scored = _score_all(judges, answers, request.format)
    if request.details is not None:
        _write_details(resolve_path(request.details), cases, scored, findings)
    summary = summarise_scores(scored, request.seed)
    train = read_case_file(resolve_path(request.train)) if request.train else []
    bounds = request.gates
    missing = [case.id for case in sound if case.id not in answers]
    return EvalScoreResult(
        profile=request.profile,
        num_cases=len(cases),
        num_scored=len(scored),
        num_defective=len(defective),
        num_missing=len(missing),
        num_unknown=num_unknown,
        floors=measure_floors(judges, train),
        parsers=_count_parsers(scored),
        gates=judge_gates({"correct": summary.correct, **summary.metrics}, bounds),
        defects=[
            Defect(id=f.id, code=f.code, message=f.message, scored=f.id not in defective)
            for f in findings[:100]
        ],
        advice=advise_rows(max([*(b for b in bounds.values() if 0 < b < 1), 0.0]) or 0.95),
        warnings=_warn(defective, describe_defects(findings, request.profile), missing, num_unknown),
        next_step="" if request.details else "Add --details FILE to see each answer's errors.",
        **dict(summary),
    )


EVALS_SCORE = Operation(
    name="evals.score",
    request=EvalScoreRequest,
    result=EvalScoreResult,
    run=score_predictions,
)


def _match_answers(cases: Sequence[Case], path: Path) -> tuple[dict[str, list[Row]], int]:
    """Return the answers by case, and how many belong to none."""
    known = {case.id for case in cases}
    answers: dict[str, list[Row]] = defaultdict(list)
    num_unknown = 0
    for row in read_prediction_rows(path):
        if row["id"] in known:
            answers[row["id"]].append(row)
        else:
            num_unknown += 1
    if not answers:
        raise InvalidInputError(
            f"no prediction in {path.name} has the id of a case", hint="Use the ids of the case file."
        )
    return dict(answers), num_unknown


def _score_all(
    judges: Mapping[str, CaseJudge], answers: Mapping[str, Sequence[Row]], prescribed: Format | None
) -> list[Scored]:
    scored: list[Scored] = []
    with Progress("score", len(judges), unit="cases") as progress:
        for identity, judge in judges.items():
            names = [tool["function"]["name"] for tool in judge.case.openai_tools]
            for row in answers.get(identity, [{"id": identity, "text": ""}]):
                prediction = parse_prediction(row, names, prescribed)
                scored.append(Scored(judge.case, prediction, judge.judge(prediction)))
            progress.advance()
    return scored


def _write_details(
    path: Path, cases: Sequence[Case], scored: Sequence[Scored], findings: Sequence[Finding]
) -> None:
    """Write a line per answer in case order; a defective case has ``correct: null``."""
    by_case: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in scored:
        by_case[row.case.id].append(_describe(row.case, row.prediction, row.score))
    messages: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        messages[finding.id].append(f"{finding.code}: {finding.message}")
    rows: list[dict[str, Any]] = []
    for case in cases:
        defect = {"id": case.id, "correct": None, "errors": [_DEFECT], "defects": messages[case.id]}
        rows += by_case.get(case.id) or [defect]
    write_jsonl(path, rows)


def _describe(case: Case, prediction: Prediction, score: CaseScore) -> dict[str, Any]:
    return {
        "id": case.id,
        "correct": score.correct,
        "errors": list(score.errors),
        "flags": list(score.flags),
        "checks": dict(score.checks),
        "group": case.cluster,
        "parser": prediction.parser,
        "calls": [{"name": call.name, "arguments": call.arguments} for call in prediction.calls],
    }


def _count_parsers(scored: Sequence[Scored]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for row in scored:
        if row.prediction.parser:
            counts[row.prediction.parser] += 1
    return dict(counts)


def _warn(defective: Sequence[str], named: str, missing: Sequence[str], num_unknown: int) -> list[str]:
    warnings: list[str] = []
    if defective:
        warnings.append(f"{len(defective)} cases were not scored because no answer could be right: {named}")
    if missing:
        warnings.append(
            f"{len(missing)} cases have no answer and count as wrong: {', '.join(missing[:_MAX_NAMED])}"
        )
    if num_unknown:
        warnings.append(f"{num_unknown} answers belong to no case and were ignored")
    return warnings
