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


def read_cell(path: Path, starts_with: str) -> str:
    sources = ["".join(cell["source"]) for cell in read_notebook(path)["cells"]]
    [found] = [source for source in sources if source.startswith(starts_with)]
    return found


def read_digest(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read("digest.txt").decode().strip()


def run_start_cell(workspace: Path, digest: str, *, state: str) -> list[list[str]]:
    """Run the cell that starts or finds the run, with commands that are only noted; return them."""
    called: list[list[str]] = []

    def llmops(*arguments: str) -> dict[str, str]:
        called.append(list(arguments[:2]))
        return {"run_id": f"run-of-{digest}", "state": state}

    source = read_cell(workspace / "reports" / "notebook" / "train.ipynb", "# Start, or find the run")
    names = {"HOME": workspace, "CODE": workspace, "DIGEST": digest, "llmops": llmops}
    exec(source, names)
    assert names["RUN"] == f"run-of-{digest}"
    return called


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


def test_bundles_with_another_recipe_or_other_rows_have_another_digest(workspace: Path) -> None:
    def digest(**values: Any) -> str:
        return read_digest(workspace / TRAIN_NOTEBOOK.call({"data": "rows", **values}).bundle)

    first = digest()
    assert digest() == first
    assert digest(recipe={"rank": 4}) != first
    assert digest(preset="l4-lora") != first
    assert digest(model="smollm2-135m") != first
    write_jsonl(workspace / "rows" / "validation.jsonl", [ROW, ROW])
    assert digest() != first


def test_another_bundle_in_the_same_folder_starts_a_run_of_its_own(workspace: Path) -> None:
    TRAIN_NOTEBOOK.call({"data": "rows"})
    assert run_start_cell(workspace, "a", state="succeeded") == [["train", "run"]]
    assert run_start_cell(workspace, "b", state="succeeded") == [["train", "run"]]
    assert run_start_cell(workspace, "a", state="succeeded") == [["jobs", "status"]]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_running_the_cells_again_resumes_what_failed_or_was_cancelled(workspace: Path, state: str) -> None:
    TRAIN_NOTEBOOK.call({"data": "rows"})
    run_start_cell(workspace, "a", state=state)
    assert run_start_cell(workspace, "a", state=state) == [["jobs", "status"], ["jobs", "resume"]]


def test_rows_of_two_bundles_lie_apart(workspace: Path) -> None:
    def pull(*_arguments: str) -> dict[str, str]:
        return {"path": "there"}

    result = TRAIN_NOTEBOOK.call({"data": "rows", "model": "smollm2-135m"})
    with zipfile.ZipFile(workspace / result.bundle) as archive:
        archive.extractall(workspace / "code")
    source = read_cell(workspace / result.notebook, "# Rows and base model")
    for digest in ("a", "b"):
        names: dict[str, Any] = {
            "HOME": workspace,
            "CODE": workspace / "code",
            "DIGEST": digest,
            "json": json,
        }
        exec(source, names | {"llmops": pull})
        assert json.loads((workspace / "code" / "request.json").read_text())["data"] == f"data-{digest}"
        assert (workspace / f"data-{digest}" / "train.jsonl").is_file()
