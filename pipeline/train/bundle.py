"""A bundle: one folder with everything that a training run needs on another machine, but the base model's weights.

It holds this package, the rows, the request and the list of libraries. The base model is pulled there by its name. Both
the notebook and the cluster job are made from it, so that they train what `train run` trains here.
"""

import re
import shutil
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pipeline
from pipeline.core.errors import InvalidInputError, MissingDependencyError
from pipeline.core.files import write_atomic, write_json
from pipeline.core.refs import resolve_path

_EXTRA = "train"
_NOT_INSTALLED_ANEW = frozenset({"torch"})
"""The machine's own torch fits its GPU and driver; another one may not."""


def write_bundle(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Fill a folder and return the request as it reads there.

    Args:
        folder: Made when absent; what it holds already of a bundle is replaced.
        request: Values of `train run`.

    Raises:
        InvalidInputError: If the base model is a folder of this machine, or there are no training rows.
    """
    values = {**request, "data": "data"}
    if not is_pullable(str(request["model"])):
        raise InvalidInputError(
            f"{request['model']} is a folder of this machine; its weights do not travel in a bundle",
            hint="Name a starter model (`smollm2-135m`) or hf:org/name, which is pulled where it is trained.",
        )
    _copy_rows(str(request["data"]), folder / "data")
    shutil.rmtree(folder / "pipeline", ignore_errors=True)
    shutil.copytree(
        Path(pipeline.__file__).parent, folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    write_json(folder / "request.json", values)
    write_atomic(folder / "requirements.txt", "\n".join(list_requirements()) + "\n")
    return values


def is_pullable(model: str) -> bool:
    """True for names that `models pull` understands: starters and hub repositories."""
    return model.startswith("hf:") or re.fullmatch(r"[a-z0-9][a-z0-9.-]*", model) is not None


def list_requirements() -> list[str]:
    """Return the libraries of the base install and the extra `train`, as pip reads them, without torch.

    Raises:
        MissingDependencyError: If llmops runs from a folder that was never installed.
    """
    try:
        declared = requires("llmops") or []
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            "llmops is not installed, so its libraries are not known",
            hint="Run `make setup`.",
            missing=["llmops"],
        ) from error
    found: list[str] = []
    for line in declared:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()
        is_wanted = not marker or f"extra == '{_EXTRA}'" in marker.replace('"', "'")
        if is_wanted and name not in _NOT_INSTALLED_ANEW:
            found.append(requirement)
    return found


def _copy_rows(source: str, target: Path) -> None:
    path = resolve_path(source)
    files = [path] if path.is_file() else [path / "train.jsonl", path / "validation.jsonl"]
    if not files[0].is_file():
        raise InvalidInputError(f"{source} has no train.jsonl", hint="Pass a folder of training rows.")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file, name in zip(files, ("train.jsonl", "validation.jsonl"), strict=False):
        if file.is_file():
            shutil.copyfile(file, target / name)
