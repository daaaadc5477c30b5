"""Models and GPUs known by name, offline: sizes with their sources. A model may also be a config.json anywhere."""

import json
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json
from pipeline.core.paths import resolve_path
from pipeline.vram.architecture import Architecture, read_architecture

_NUM_SHOWN = 5


class Gpu(NamedTuple):
    """One GPU model."""

    name: str
    usable_bytes: int
    """What torch can allocate, which is less than what is printed on the board."""
    compute_capability: str
    is_measured: bool
    """False: the usable memory is taken from a data sheet."""
    source: str


def find_architecture(reference: str) -> Architecture:
    """Return what a model is made of: by registry name, or from a config.json or the folder that holds one.

    Raises:
        InvalidInputError: If nobody knows the model, or the configuration is broken.
    """
    models: dict[str, Any] = _read("registry.json")["models"]
    if reference in models:
        return read_architecture(models[reference]["config"], reference)
    path = resolve_path(reference)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise _unknown("model", reference, list(models), "or a path to a config.json")
    return read_architecture(_read_config(path), reference)


def find_gpu(name: str) -> Gpu:
    """Return a GPU by its registry name.

    Raises:
        InvalidInputError: If nobody knows it.
    """
    gpus: dict[str, Any] = _read("gpus.json")["gpus"]
    if name not in gpus:
        raise _unknown("gpu", name, list(gpus), "as `llmops vram` knows them")
    row = gpus[name]
    return Gpu(
        name=name,
        usable_bytes=int(row["usable_gib"] * (1 << 30)),
        compute_capability=row["compute_capability"],
        is_measured=row["measured"],
        source=row["source"],
    )


@cache
def _read(name: str) -> dict[str, Any]:
    return json.loads(files("pipeline.vram").joinpath(name).read_text(encoding="utf-8"))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except ValueError as error:
        raise InvalidInputError(
            f"model: {path} is not JSON: {error}", hint="Give a model's config.json."
        ) from error
    if not isinstance(config, dict):
        raise InvalidInputError(f"model: {path} is not a JSON object", hint="Give a model's config.json.")
    return config  # pyright: ignore[reportUnknownVariableType] - keys are checked where they are read


def _unknown(field: str, name: str, known: list[str], otherwise: str) -> InvalidInputError:
    tail = name.rpartition("/")[2].lower()
    near = [item for item in known if tail and tail in item.lower()]
    near = near or get_close_matches(name, known, n=_NUM_SHOWN, cutoff=0.3) or known
    return InvalidInputError(
        f"{field}: {name!r} is not known",
        hint=f"Use one such as {', '.join(near[:_NUM_SHOWN])}, {otherwise}.",
        known=known,
    )
