from pathlib import Path

import pytest

from pipeline.evals.turns import Turn, cut_turns, read_cases

TurnsByKey = dict[tuple[str, int], Turn]


@pytest.fixture(scope="session")
def cases_path() -> Path:
    return Path(__file__).resolve().parents[2] / "assets" / "eval_cases.jsonl"


@pytest.fixture(scope="session")
def turns(cases_path: Path) -> TurnsByKey:
    """Hand-written conversations; tasks 1, 2 (open) and 4 (completed) are in the store, today is 2026-03-11."""
    return {turn.key: turn for case in read_cases(cases_path) for turn in cut_turns(case)}
