"""Evaluate neutral cases: ask, keep the raw answers, judge them.

The judged answers are the same records that conversations give, so that one report and one comparison serve both.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.errors import InvalidInputError
from pipeline.core.paths import resolve_path
from pipeline.core.runs import Run
from pipeline.evals.answers import PREDICTIONS_FILE, Answer
from pipeline.evals.asking import Asking, Question, ask_all
from pipeline.evals.case_records import find_defects, judge_answer
from pipeline.evals.cases import Case, read_case_file
from pipeline.evals.engines import open_engine
from pipeline.evals.records import DETAILS_FILE, TurnRecord, write_details
from pipeline.evals.run_request import EvalRunRequest, Evaluated, choose_cases
from pipeline.evals.tool_calls import Profile

_MAX_NAMED = 5


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
    sound, warnings = keep_sound(cases)
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
    records = judge_all(sound, answers, request.profile)
    write_details(run.artifacts / DETAILS_FILE, records)
    return Evaluated(records, engine.name, len(sound), warnings)


def keep_sound(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """Return the cases whose reference fits its own schema, and a warning about the others.

    Raises:
        InvalidInputError: If there is none.
    """
    defects = {case.id: found for case in cases if (found := find_defects(case))}
    sound = [case for case in cases if case.id not in defects]
    if not sound:
        raise InvalidInputError(
            f"no case can be scored: {_name_defects(defects)}",
            hint="Run `llmops evals selftest` on the file.",
        )
    if not defects:
        return sound, []
    return sound, [
        f"{len(defects)} cases were left out because they break their own schema: {_name_defects(defects)}"
    ]


def judge_all(cases: Sequence[Case], answers: Sequence[Answer], profile: Profile) -> list[TurnRecord]:
    """Return one record per answer."""
    by_id = {case.id: case for case in cases}
    return [judge_answer(by_id[answer.id], answer, profile) for answer in answers]


def _name_defects(defects: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name} ({found[0]})" for name, found in list(defects.items())[:_MAX_NAMED])
