"""Evaluate neutral cases: ask, keep the raw answers, judge them.

The judged answers are the same records that conversations give, so that one report and one comparison serve both.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.paths import resolve_path
from pipeline.core.runs import Run
from pipeline.evals.answers import PREDICTIONS_FILE, Answer
from pipeline.evals.asking import Asking, Question, ask_all
from pipeline.evals.case_judge import CaseJudge, choose_sound, describe_defects, find_defective
from pipeline.evals.case_records import judge_answer
from pipeline.evals.cases import Case, read_case_file
from pipeline.evals.engines import open_engine
from pipeline.evals.records import DETAILS_FILE, TurnRecord, write_details
from pipeline.evals.run_request import EvalRunRequest, Evaluated, choose_cases
from pipeline.evals.tool_calls import Profile


def holds_neutral_cases(path: Path) -> bool:
    """True when the first line of a file is a neutral case: it says what is expected."""
    try:
        with path.open(encoding="utf-8") as file:
            first = next((line for line in file if line.strip()), "")
        row: Any = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return False  # the reader of conversations says what is wrong with it
    return isinstance(row, dict) and "expected" in row


def evaluate_cases(request: EvalRunRequest, run: Run) -> Evaluated:
    """Ask and judge every sound case.

    Raises:
        InvalidInputError: If the case file is broken, or no case in it is sound.
    """
    cases = choose_cases(read_case_file(resolve_path(request.cases)), request.limit, request.seed)
    sound, warnings = keep_sound(cases, request.profile)
    with open_engine(request.source()) as engine:
        how = request.decoding()
        label = f"evaluate {request.label or engine.name}".strip()
        asking = Asking(how, request.concurrency, run.artifacts / PREDICTIONS_FILE, label, run)
        questions = [
            Question(case.id, case.messages, case.openai_tools, repeat)
            for case in sound
            for repeat in range(request.repeats)
        ]
        answers = ask_all(engine, questions, asking)
    judges = [CaseJudge(case, request.profile, request.executor) for case in sound]
    records = judge_all(judges, answers)
    write_details(run.artifacts / DETAILS_FILE, records)
    return Evaluated(records, engine.name, len(sound), warnings)


def keep_sound(cases: Sequence[Case], profile: Profile) -> tuple[list[Case], list[str]]:
    """Return the cases that can be scored, and a warning about the others.

    Raises:
        InvalidInputError: If there is none.
    """
    sound, findings = choose_sound(cases, profile)
    num_defective = len(find_defective(findings, profile))
    if not num_defective:
        return sound, []
    named = describe_defects(findings, profile)
    return sound, [f"{num_defective} cases were left out because no answer could be right: {named}"]


def judge_all(judges: Iterable[CaseJudge], answers: Sequence[Answer]) -> list[TurnRecord]:
    """Return one record per answer."""
    by_id = {judge.case.id: judge for judge in judges}
    return [judge_answer(by_id[answer.id], answer) for answer in answers]
