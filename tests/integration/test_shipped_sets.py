"""The sets in datasets/ are what they say: sizes, gates, leakage, and byte-equal when they are built again."""

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.files import read_jsonl
from pipeline.data.decontaminate import DATA_DECONTAMINATE
from pipeline.data.validate import DATA_VALIDATE
from pipeline.synth.check import SYNTH_CHECK
from pipeline.synth.replay import SYNTH_REPLAY

ROOT = Path(__file__).resolve().parents[2]
SETS = ROOT / "datasets"
SIZES = {
    "task_api/task_api_train.jsonl": 400,
    "task_api/task_api_val.jsonl": 50,
    "task_api/task_api_test.jsonl": 50,
    "tool_calls/train.jsonl": 2400,
    "tool_calls/val.jsonl": 200,
    "tool_calls/test.jsonl": 440,
    "tool_calls/handwritten.jsonl": 194,
    **{
        f"personas/{name}_{split}.jsonl": size
        for name in ("taskmaster", "analyst", "planner")
        for split, size in (("train", 240), ("val", 60), ("test", 120))
    },
}
PAIRS = (
    ("task_api/task_api_train.jsonl", "task_api/task_api_test.jsonl"),
    ("tool_calls/train.jsonl", "tool_calls/test.jsonl"),
    ("tool_calls/train.jsonl", "tool_calls/handwritten.jsonl"),
    *(
        (f"personas/{name}_train.jsonl", f"personas/{name}_test.jsonl")
        for name in ("taskmaster", "analyst", "planner")
    ),
    ("task_api/task_api_train.jsonl", "tool_calls/test.jsonl"),
    ("tool_calls/train.jsonl", "task_api/task_api_test.jsonl"),
)


def test_the_sets_are_as_large_as_promised_and_the_repository_stays_small() -> None:
    assert {name: len(read_jsonl(SETS / name)) for name in SIZES} == SIZES
    assert sum(path.stat().st_size for path in SETS.rglob("*") if path.is_file()) < 15_000_000
    for name in ("task_api", "tool_calls", "personas"):
        card = (SETS / name / "README.md").read_text(encoding="utf-8")
        assert "license: apache-2.0" in card
        assert "make datasets" in card
        assert (SETS / name / "data_report.md").is_file()


def test_no_template_makes_more_than_three_percent_of_a_large_file() -> None:
    for name, size in SIZES.items():
        most = max(Counter(row["group"] for row in read_jsonl(SETS / name)).values())
        assert most <= max(1, 0.03 * size), name


@pytest.mark.slow  # 4,994 rows through every gate
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.usefixtures("workspace")
def test_every_file_replays_passes_the_gates_and_is_valid(name: str) -> None:
    path = str(SETS / name)
    assert SYNTH_REPLAY.call({"file": path}).different_rows == 0
    assert SYNTH_CHECK.call({"file": path}).faults == []
    assert DATA_VALIDATE.call({"file": path}).num_invalid == 0


@pytest.mark.slow  # reads 2,400 rows several times
@pytest.mark.parametrize(("train", "test"), PAIRS)
@pytest.mark.usefixtures("workspace")
def test_no_test_row_is_in_training_and_copying_is_not_enough(train: str, test: str) -> None:
    leakage = DATA_DECONTAMINATE.call({"train": str(SETS / train), "test": str(SETS / test)}).leakage
    assert leakage.exact.num_test_rows == leakage.near.num_test_rows == leakage.same_prompt.num_test_rows == 0
    assert leakage.copier.num_right_tools <= 0.85 * leakage.copier.num_rows


def builder() -> Any:
    spec = importlib.util.spec_from_file_location("build_datasets", ROOT / "tools" / "build_datasets.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow  # makes 4,364 rows
@pytest.mark.parametrize(("name", "num_files"), [("task_api", 5), ("tool_calls", 6), ("personas", 11)])
def test_a_set_is_rebuilt_byte_by_byte(
    name: str, num_files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))  # the builder sets it; this puts it back afterwards
    builder().build(name, tmp_path / name)
    made = sorted((tmp_path / name).iterdir())
    assert len(made) == num_files
    for path in made:
        assert path.read_bytes() == (SETS / name / path.name).read_bytes(), path.name
