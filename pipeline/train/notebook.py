"""``train.notebook``: a ready Colab notebook for a recipe, and the bundle it works on.

The notebook contains no training code: it unpacks the bundle and runs the commands that run here. Nobody of this
project's machines has a T4; the notebook itself is executed in a test on a processor.
"""

import json
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_atomic
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path, shown_path
from pipeline.train.bundle import digest_bundle, write_bundle
from pipeline.train.recipe import PresetName
from pipeline.train.recipe_field import RecipeValues, choose_recipe
from pipeline.train.run import TRAIN_RUN

_CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


class TrainNotebookRequest(Request):
    """What the notebook trains."""

    model: WorkspaceRef = "hf:Qwen/Qwen3-4B-Instruct-2507"
    """Base model: hf:org/name or a starter, which the notebook pulls, or a small folder, which travels along."""
    data: WorkspaceRef = Field(min_length=1)
    """Folder with `train.jsonl` and optionally `validation.jsonl`, or one JSONL file."""
    preset: PresetName = "t4-qlora"
    """Named recipe; ignored when `recipe` is given."""
    recipe: RecipeValues | None = None
    """The whole recipe as JSON, with the fields of `train run`."""
    backend: Literal["auto", "trl", "unsloth"] = "auto"
    """As in `train run`."""
    out: WorkspacePath = "reports/notebook"
    """Folder for train.ipynb and bundle.zip."""
    drive_folder: str = Field(default="llmops", pattern=r"^[\w][\w -]*$")
    """Folder of Google Drive that both files will be put into."""
    check_every_seconds: int = Field(default=30, ge=1, le=50)
    """How often the notebook looks at the run."""


class TrainNotebookResult(Result):
    """Two files to put into Google Drive."""

    notebook: str
    """Notebook, nbformat 4."""
    bundle: str
    """Code, rows, request and list of libraries."""
    bundle_bytes: int
    """Size of the bundle."""
    num_rows: int
    """Training rows inside."""


def write_notebook(request: TrainNotebookRequest) -> TrainNotebookResult:
    """Write a Colab notebook that trains a recipe on a T4, resumes after a disconnect and saves to Google Drive.

    Raises:
        InvalidInputError: If there are no training rows or no such model.
        DoesNotFitError: If rows and model are too large for a bundle.
    """
    values = {
        "model": request.model,
        "data": request.data,
        "preset": request.preset,
        "recipe": request.recipe,
        "backend": request.backend,
    }
    TRAIN_RUN.parse(values)
    out = resolve_path(request.out)
    if out.is_file():
        raise InvalidInputError(f"{request.out} is a file", hint="Name a folder.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        write_bundle(bundle, values)
        # The notebook names its run by it: two bundles in one folder of the Drive are two trainings.
        digest = digest_bundle(bundle, choose_recipe(request.recipe, request.preset))
        write_atomic(bundle / "digest.txt", digest + "\n")
        rows = bundle / "data" / "train.jsonl"
        num_rows = sum(1 for line in rows.read_bytes().splitlines() if line.strip())
        archive = Path(shutil.make_archive(str(bundle), "zip", bundle))
        write_atomic(out / "bundle.zip", archive.read_bytes())
    facts: dict[str, object] = {
        "title": f"Fine-tune {request.model}",
        "model": request.model,
        "preset": "of your own" if request.recipe else request.preset,
        "num_rows": f"{num_rows:,}",
        "folder": request.drive_folder,
        "bundle": "bundle.zip",
        "check_every_seconds": request.check_every_seconds,
    }
    write_atomic(out / "train.ipynb", json.dumps(make_notebook(facts), indent=1, ensure_ascii=False) + "\n")
    return TrainNotebookResult(
        notebook=shown_path(out / "train.ipynb"),
        bundle=shown_path(out / "bundle.zip"),
        bundle_bytes=(out / "bundle.zip").stat().st_size,
        num_rows=num_rows,
        next_step=f"Put both files into MyDrive/{request.drive_folder}, open train.ipynb, choose a T4 GPU, Run all.",
    )


def make_notebook(facts: dict[str, object]) -> dict[str, Any]:
    """Return the notebook as nbformat 4.5 has it (https://nbformat.readthedocs.io/en/latest/format_description.html)."""
    import jinja2

    template = files("pipeline.train").joinpath("templates/colab.py.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    text = environment.from_string(template).render(**facts)
    pieces = _CELL.split(text)[1:]  # marker, source, marker, source, ...
    cells = [
        _make_cell(number, source.strip(), is_markdown=bool(marker))
        for number, (marker, source) in enumerate(zip(pieces[::2], pieces[1::2], strict=True))
    ]
    return {
        "cells": cells,
        "metadata": {
            "accelerator": "GPU",
            "colab": {"gpuType": "T4", "provenance": []},
            "kernelspec": {"display_name": "Python 3", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _make_cell(number: int, source: str, *, is_markdown: bool) -> dict[str, Any]:
    if is_markdown:
        source = "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.splitlines())
    lines = source.splitlines(keepends=True)
    cell: dict[str, Any] = {
        "id": f"cell-{number}",
        "cell_type": "markdown" if is_markdown else "code",
        "metadata": {},
        "source": lines,
    }
    return cell if is_markdown else {**cell, "execution_count": None, "outputs": []}


TRAIN_NOTEBOOK = Operation(
    name="train.notebook",
    request=TrainNotebookRequest,
    result=TrainNotebookResult,
    run=write_notebook,
    positional=("data",),
)
