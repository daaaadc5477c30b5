"""The notebook is valid, names what it trains, and its bundle holds the whole request."""

import ast
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from pipeline.core.errors import DoesNotFitError, InvalidInputError
from pipeline.core.files import write_json, write_jsonl
from pipeline.train import bundle
from pipeline.train.bundle import is_pulled_there, list_requirements
from pipeline.train.notebook import TRAIN_NOTEBOOK

ROOT = Path(__file__).resolve().parents[3]
ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOPS_WORKSPACE", str(tmp_path))
    write_jsonl(tmp_path / "rows" / "train.jsonl", [ROW, ROW, ROW])
    write_jsonl(tmp_path / "rows" / "validation.jsonl", [ROW])
    return tmp_path.resolve()


def read_notebook(path: Path) -> Any:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(nbformat.from_dict(notebook))  # pyright: ignore[reportUnknownMemberType] - no types
    return notebook


def test_the_notebook_is_valid_and_asks_for_a_t4(workspace: Path) -> None:
    result = TRAIN_NOTEBOOK.call({"data": "rows", "model": "hf:Qwen/Qwen3-4B"})
    notebook = read_notebook(workspace / result.notebook)
    assert notebook["metadata"]["colab"]["gpuType"] == "T4"
    assert result.num_rows == 3
    text = "".join(notebook["cells"][0]["source"])
    assert "hf:Qwen/Qwen3-4B" in text
    assert "t4-qlora" in text
    assert not re.search(r"{{|}}", text)


def test_every_code_cell_is_python(workspace: Path) -> None:
    result = TRAIN_NOTEBOOK.call({"data": "rows"})
    cells = read_notebook(workspace / result.notebook)["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) == len(cells) - 1
    for source in sources:
        ast.parse(source)


def test_the_bundle_holds_code_rows_request_and_libraries(workspace: Path) -> None:
    recipe = {"rank": 4, "max_steps": 3}
    result = TRAIN_NOTEBOOK.call({"data": "rows", "model": "smollm2-135m", "recipe": recipe})
    with zipfile.ZipFile(workspace / result.bundle) as archive:
        names = set(archive.namelist())
        request = json.loads(archive.read("request.json"))
        requirements = archive.read("requirements.txt").decode().split()
        rows = archive.read("data/train.jsonl").decode()
    assert {"pipeline/__main__.py", "pipeline/task_api/tools.json", "data/validation.jsonl"} <= names
    assert not any("__pycache__" in name for name in names)
    assert (request["data"], request["model"], request["recipe"]["rank"]) == ("data", "smollm2-135m", 4)
    assert rows == (workspace / "rows" / "train.jsonl").read_text(encoding="utf-8")
    assert any(line.startswith("trl") for line in requirements)


def test_torch_is_left_to_the_machine_and_other_extras_stay_out() -> None:
    # Against pyproject.toml, which the installed metadata were made from.
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    names = {re.split(r"[<>=\[]", line)[0].lower() for line in wanted} - {"torch"}
    listed = {re.split(r"[<>=!\[ ]", line)[0].lower() for line in list_requirements()}
    assert listed <= names
    assert {"trl", "pydantic", "transformers"} <= listed
    assert "torch" not in listed


def test_a_model_of_the_users_own_travels_and_a_pulled_one_is_pulled_again(workspace: Path) -> None:
    for name, files in (("own", ["config.json"]), ("pulled", ["config.json", "source.json"])):
        for file in files:
            write_json(workspace / "models" / name / file, {})
    assert not is_pulled_there("own")
    assert not is_pulled_there("models/own")
    assert is_pulled_there("pulled")
    assert is_pulled_there("not-here-yet")
    assert is_pulled_there("hf:org/name")
    result = TRAIN_NOTEBOOK.call({"data": "rows", "model": "models/own"})
    with zipfile.ZipFile(workspace / result.bundle) as archive:
        assert "models/own/config.json" in archive.namelist()
        assert json.loads(archive.read("request.json"))["model"] == "own"


def test_a_model_that_is_too_large_to_travel_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 10)
    write_json(workspace / "models" / "own" / "config.json", {"as_long": "as that"})
    with pytest.raises(DoesNotFitError, match="own is too large"):
        TRAIN_NOTEBOOK.call({"data": "rows", "model": "own"})


def test_missing_rows_are_refused(workspace: Path) -> None:
    (workspace / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"no train\.jsonl"):
        TRAIN_NOTEBOOK.call({"data": "empty"})
