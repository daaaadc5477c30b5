"""The house rules that no linter knows: sizes, folders, light imports, a documented catalogue."""

import ast
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from pipeline.catalogue import GROUP_SUMMARIES, CatalogueEntry
from pipeline.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for folder in ("pipeline", "mcp_server", "tests", "tools", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
HEAVY = {
    "torch", "transformers", "datasets", "trl", "peft", "accelerate", "unsloth", "xllamacpp", "agents", "openai",
    "pandas", "numpy", "pyarrow", "gguf", "libgguf", "safetensors", "matplotlib", "huggingface_hub",
}  # fmt: skip
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7


def functions(path: Path) -> Generator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return len([name for name in names if name not in {"self", "cls"}])


def test_the_rules_look_at_real_files() -> None:
    assert ROOT / "pipeline" / "cli.py" in SOURCES
    assert Path(__file__).resolve() in SOURCES


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_60_lines_or_takes_more_than_7_parameters() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in SOURCES
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno + 1 > MAX_FUNCTION_LINES
        or num_parameters(function) > MAX_PARAMETERS
    ]
    assert offenders == []


def test_the_data_folder_holds_no_python_that_would_shadow_hugging_face_datasets() -> None:
    assert list((ROOT / "datasets").rglob("*.py")) == []


def test_the_tests_are_not_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_heavy_library_is_loaded_by_the_surfaces_and_all_operations() -> None:
    code = """
import sys
import pipeline.cli, pipeline.request_arguments, pipeline.render, mcp_server.server, mcp_server.__main__
from pipeline.catalogue import CatalogueEntry
from pipeline.operations import OPERATIONS
for entry in OPERATIONS:
    entry.load()
print("\\n".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pydantic" in loaded
    assert loaded & HEAVY == set()


def test_help_loads_no_operation_and_no_pydantic() -> None:
    code = """
import sys
import pipeline.cli
pipeline.cli.main(["--help"])
print("\\n".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "\npydantic\n" not in done.stdout
    assert "\npipeline.core.operation\n" not in done.stdout


@pytest.mark.parametrize("entry", OPERATIONS, ids=lambda entry: entry.name)
def test_a_catalogue_entry_says_what_the_operation_says(entry: CatalogueEntry) -> None:
    operation = entry.load()
    assert operation.name == entry.name
    assert operation.summary == entry.summary
    assert operation.summary.endswith(".")
    assert entry.name.split(".")[0] in GROUP_SUMMARIES
    assert set(operation.positional) <= operation.request.model_fields.keys()


@pytest.mark.parametrize("entry", OPERATIONS, ids=lambda entry: entry.name)
def test_every_field_of_a_request_and_a_result_is_documented_and_closed(entry: CatalogueEntry) -> None:
    operation = entry.load()
    models = {*nested_models(operation.request), *nested_models(operation.result)}
    undocumented = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not (field.description or "").strip()
    ]
    assert undocumented == []
    assert [m.__name__ for m in models if m.model_config.get("extra") != "forbid"] == []


def test_operation_names_are_unique() -> None:
    names = [entry.name for entry in OPERATIONS]
    assert len(names) == len(set(names))


def nested_models(annotation: Any) -> Generator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from nested_models(field.annotation)
    for part in get_args(annotation):
        yield from nested_models(part)
