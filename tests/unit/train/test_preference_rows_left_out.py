"""What a preference training says about rows that no pair can be made of; the backend is made by hand."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_jsonl
from pipeline.train import run as train_run
from pipeline.train.job import TrainJob, TrainOutcome
from pipeline.train.run import TRAIN_RUN

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
PLAIN: dict[str, Any] = {"messages": CHAT}
PAIR: dict[str, Any] = {"messages": CHAT, "rejected": {"role": "assistant", "content": "go away"}}


def outcome_of(_backend: str, job: TrainJob) -> TrainOutcome:
    return TrainOutcome(
        num_steps=1,
        num_steps_planned=1,
        best_step=None,
        train_loss=0.5,
        eval_loss=None,
        num_rows=len(job.train_examples),
        num_rows_too_long=0,
        num_tokens=10,
        num_trained_tokens=5,
        num_trainable_parameters=1,
        dtype="float32",
        num_processes=1,
        resumed_from_step=None,
    )


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    monkeypatch.setattr(train_run, "train_with_backend", outcome_of)
    (tmp_path / "tiny").mkdir()
    return tmp_path


def train(workspace: Path, rows: list[dict[str, Any]], validation: list[dict[str, Any]]) -> list[str]:
    write_jsonl(workspace / "rows" / "train.jsonl", rows)
    write_jsonl(workspace / "rows" / "validation.jsonl", validation)
    recipe: dict[str, Any] = {"objective": "dpo", "report_to": []}
    request = {"model": "file:tiny", "data": "rows", "recipe": recipe, "backend": "trl"}
    return TRAIN_RUN.call(request).warnings


def test_rows_that_no_pair_can_be_made_of_are_counted_in_the_warnings(workspace: Path) -> None:
    (warning,) = train(workspace, [PAIR, PLAIN, PLAIN], [PAIR])
    assert warning.startswith("2 of 3 training rows were left out: rows without a `rejected` message")


def test_validation_rows_that_all_fall_away_are_said_to_leave_nothing_to_evaluate(workspace: Path) -> None:
    (warning,) = train(workspace, [PAIR], [PLAIN])
    assert warning.startswith("1 of 1 validation rows were left out")
    assert "nothing was evaluated" in warning


def test_pairs_that_are_all_kept_need_no_warning(workspace: Path) -> None:
    assert train(workspace, [PAIR], [PAIR]) == []


def test_when_no_row_gives_a_pair_that_is_the_reason_of_the_refusal(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no preference pair can be made of train\.jsonl") as caught:
        train(workspace, [PLAIN, PLAIN], [PAIR])
    assert "objective=sft" in caught.value.hint
