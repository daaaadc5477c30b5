"""A bundle: one folder with everything that a training run needs on another machine.

It holds this package, the rows, the request and the list of libraries. A base model that has a name is pulled there; a
small one of the user's own travels along. Both the notebook and the cluster job are made from it, so that they train
what `train run` trains here.
"""

import hashlib
import json
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pipeline
from pipeline.core.errors import DoesNotFitError, InvalidInputError, MissingDependencyError
from pipeline.core.files import sha256_file, write_atomic, write_json
from pipeline.core.refs import resolve_path
from pipeline.core.settings import Settings
from pipeline.train.recipe import TrainRecipe

_EXTRA = "train"
_DIGEST_CHARACTERS = 12  # a folder of Google Drive holds a few bundles; people read the names
_NOT_INSTALLED_ANEW = frozenset({"torch"})
"""The machine's own torch fits its GPU and driver; another one may not."""
MAX_BYTES = 450 << 20
"""Ray refuses working directories above 500 MiB, and a browser uploads a larger file badly."""


def write_bundle(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Fill a folder and return the request as it reads there.

    Args:
        folder: Made when absent; what it holds already of a bundle is replaced.
        request: Values of `train run`.

    Raises:
        InvalidInputError: If there are no training rows or no such model.
        DoesNotFitError: If rows and model are too large for a bundle.
    """
    values = {**request, "data": "data"}
    if not is_pulled_there(str(request["model"])):
        model = resolve_path(str(request["model"]))
        _require_small(model)
        shutil.rmtree(folder / "models", ignore_errors=True)
        shutil.copytree(model, folder / "models" / model.name)
        values["model"] = model.name
    _copy_rows(str(request["data"]), folder / "data")
    shutil.rmtree(folder / "pipeline", ignore_errors=True)
    shutil.copytree(
        Path(pipeline.__file__).parent, folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    write_json(folder / "request.json", values)
    write_atomic(folder / "requirements.txt", "\n".join(list_requirements()) + "\n")
    _require_small(folder)
    return values


def digest_bundle(folder: Path, recipe: TrainRecipe) -> str:
    """Return a name for what a bundle trains: recipe, request, rows and a model that travels along.

    The code stays out, so that a bundle written again by a newer version goes on with the same run; the whole recipe is
    in, because a preset of the same name may have changed.
    """
    files = [folder / "request.json"]
    files += sorted(
        path for name in ("data", "models") for path in (folder / name).rglob("*") if path.is_file()
    )
    contents = [[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files]
    text = json.dumps([recipe.model_dump(mode="json"), contents], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def is_pulled_there(model: str) -> bool:
    """True for a name that `models pull` understands, unless here it means a folder that was not pulled."""
    if not model.startswith("hf:") and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", model) is None:
        return False
    folder = Settings.load().models_dir / model
    return not folder.is_dir() or (folder / "source.json").is_file()


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


def _require_small(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        raise DoesNotFitError(
            f"{folder.name} is too large to travel in a bundle",
            hint="Put the model on the hub and name hf:org/name, or train on fewer rows.",
            needed_bytes=size,
            free_bytes=MAX_BYTES,
        )


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
