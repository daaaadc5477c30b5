"""Models and GPUs known by name, offline: sizes with their sources. A model may also be a config.json anywhere."""

import json
import os
from typing import Any, NamedTuple

from pipeline.core.errors import InvalidInputError
from pipeline.vram.architecture import Architecture
from pipeline.vram.model_config import read_architecture

_FOLDER = os.path.dirname(__file__)  # noqa: PTH120 - pathlib alone would be a quarter of this command's start
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

    Case and the organisation before the slash may be left out of a registry name.

    Raises:
        InvalidInputError: If nobody knows the model, or the configuration is broken.
    """
    models: dict[str, Any] = read_packaged("registry.json")["models"]
    name = _match(reference, models)
    return read_architecture(_find(reference, models), name or reference)


def find_config(reference: str | None, config: dict[str, Any] | None) -> dict[str, Any]:
    """Return a configuration: the inline one, or that of a registry name or path.

    Raises:
        InvalidInputError: If none or both are given, or the reference leads nowhere.
    """
    if (reference is None) == (config is None):
        raise InvalidInputError(
            "model: give either model or config", hint="model is a registry name or a path; config is inline."
        )
    return config if reference is None else _find(reference, read_packaged("registry.json")["models"])  # pyright: ignore[reportReturnType] - one of the two is set


def _find(reference: str, models: dict[str, Any]) -> dict[str, Any]:
    name = _match(reference, models)
    if name is not None:
        return models[name]["config"]
    from pipeline.core.paths import resolve_path

    path = resolve_path(reference)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        # Only now: a folder called like a model is not that model.
        if (base := _match(_tuned_from(reference), models)) is not None:
            return models[base]["config"]
        raise _unknown("model", reference, list(models), "or a path to a config.json")
    return _read_config(str(path))


def _tuned_from(reference: str) -> str:
    """Return the name without what marks a tuned or packed copy: it has the shape of the model it was made from."""
    name = reference.rpartition("/")[2].lower().removesuffix("-bnb-4bit")
    return next((name.removesuffix(end) for end in _TUNED_ENDINGS if name.endswith(end)), name)


def list_gpus() -> list[Gpu]:
    """Return all known GPUs, the smallest first."""
    return [_make_gpu(name, row) for name, row in read_packaged("gpus.json")["gpus"].items()]


def find_gpu(name: str) -> Gpu:
    """Return a GPU by its registry name.

    Raises:
        InvalidInputError: If nobody knows it.
    """
    gpus: dict[str, Any] = read_packaged("gpus.json")["gpus"]
    found = _match(name, gpus)
    if found is None:
        raise _unknown("gpu", name, list(gpus), "as `llmops vram` knows them")
    return _make_gpu(found, gpus[found])


def _make_gpu(name: str, row: dict[str, Any]) -> Gpu:
    return Gpu(
        name=name,
        usable_bytes=int(row["usable_gib"] * (1 << 30)),
        compute_capability=row["compute_capability"],
        is_measured=row["measured"],
        source=row["source"],
    )


def _match(name: str, known: dict[str, Any]) -> str | None:
    if name in known:
        return name
    short = _plain(name)
    plain = {key: (_plain(key), _plain(key.rpartition("/")[2])) for key in known}
    exact = next((key for key, forms in plain.items() if short in forms), None)
    if exact is not None or not short:
        return exact
    begun = [key for key, forms in plain.items() if forms[1].startswith(short)]
    return begun[0] if len(begun) == 1 else None


def _plain(name: str) -> str:
    """Spell a name without what people write differently: case, separators, makers, form factor, GB."""
    text = name.lower()
    for part in ("meta-", "nvidia", "tesla", "geforce", "rtx", "sxm4", "sxm5", "sxm", "pcie", "hbm3"):
        text = text.replace(part, "")
    return "".join(text.split()).replace("-", "").replace("_", "").removesuffix("gb")


_TUNED_ENDINGS = ("-instruct", "-chat-hf", "-chat", "-it")
_cache: dict[str, dict[str, Any]] = {}


def read_packaged(name: str) -> dict[str, Any]:
    """Return a JSON file that lies beside this module."""
    if name not in _cache:
        with open(os.path.join(_FOLDER, name), encoding="utf-8") as handle:  # noqa: PTH118, PTH123 - as above
            _cache[name] = json.load(handle)
    return _cache[name]


def _read_config(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as handle:  # noqa: PTH123 - as above
            config = json.load(handle)
    except (ValueError, RecursionError, OSError) as error:
        raise InvalidInputError(
            f"model: {path} is not JSON: {error}", hint="Give a model's config.json."
        ) from error
    if not isinstance(config, dict):
        raise InvalidInputError(f"model: {path} is not a JSON object", hint="Give a model's config.json.")
    return config  # pyright: ignore[reportUnknownVariableType] - keys are checked where they are read


def _unknown(field: str, name: str, known: list[str], otherwise: str) -> InvalidInputError:
    from difflib import get_close_matches

    tail = name.rpartition("/")[2].lower()
    near = [item for item in known if tail and tail in item.lower()]
    near = near or get_close_matches(name, known, n=_NUM_SHOWN, cutoff=0.3) or known
    return InvalidInputError(
        f"{field}: {name!r} is not known",
        hint=f"Use one such as {', '.join(near[:_NUM_SHOWN])}, {otherwise}.",
        known=known,
    )
