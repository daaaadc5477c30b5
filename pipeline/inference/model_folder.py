"""From a reference to the GGUF to serve: which file of a model folder, and whether it may be served.

A folder that `llmops export` wrote is served only after its gate passed, because a wrong template or tokenizer gives
answers that look right and are not.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import IntegrityError, InvalidInputError, OperationFailedError
from pipeline.core.files import read_json, sha256_file
from pipeline.core.messages import Tool
from pipeline.core.paths import shown_path
from pipeline.core.refs import ModelRef
from pipeline.core.settings import Settings

_RECORD, _GATE, _TOOLS = "export.json", "gate.json", "tools.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServableModel:
    """A file that may be served."""

    path: Path
    """The GGUF."""
    name: str
    """Model name in requests."""
    tools: tuple[Tool, ...]
    """Tools it was trained with, if its folder says so."""
    warnings: list[str]
    """Why its answers may be worse than they should."""


def find_servable(ref: str, *, quantization: str | None = None, force: bool = False) -> ServableModel:
    """Find the GGUF a reference names and check that it may be served.

    Args:
        ref: A GGUF file, or a folder with ``export.json`` or with GGUF files.
        quantization: Such as ``q4_k_m``; default is the folder's own choice.
        force: Serve also without a passed gate.

    Raises:
        InvalidInputError: If nothing servable is there.
        IntegrityError: If the file is not the one that was exported.
        OperationFailedError: If the gate did not pass, or never ran, and ``force`` is false.
    """
    found = ModelRef.parse(ref).resolve_path(Settings.load())
    if found.is_file() and quantization is not None:
        raise InvalidInputError(
            f"{found.name} is one file; a quantization is chosen in a model folder",
            hint="Pass the folder, or leave out --quantization.",
        )
    folder = found if found.is_dir() else found.parent
    record: dict[str, Any] = read_json(folder / _RECORD) if (folder / _RECORD).is_file() else {}
    path = found if found.is_file() else _choose_gguf(folder, record, quantization)
    digest = _checked_digest(path, record)
    tools_path = folder / _TOOLS
    return ServableModel(
        path=path,
        name=str(record.get("name") or (folder.name if found.is_dir() else path.stem)),
        tools=tuple(read_json(tools_path)) if record and tools_path.is_file() else (),
        warnings=_check_gate(path, digest, record, ref, force=force),
    )


def _choose_gguf(folder: Path, record: dict[str, Any], quantization: str | None) -> Path:
    available = sorted(path.name for path in folder.glob("*.gguf"))
    if not available:
        hint = "Serve an exported model: `llmops export run` makes one from a training run."
        if (folder / "config.json").is_file():
            hint += f" An untuned one: `llmops export convert {shown_path(folder)} --out models/{folder.name}.gguf`."
        raise InvalidInputError(f"{folder} has no GGUF file", hint=hint)
    wanted = f"model-{quantization}.gguf" if quantization else record.get("default_gguf") or available[0]
    if wanted not in available or (len(available) > 1 and not record and quantization is None):
        raise InvalidInputError(
            f"{folder.name}: which of {', '.join(available)}?"
            if quantization is None
            else f"{folder} has no {wanted}",
            hint=f"Available: {', '.join(available)}. Pass --quantization, or the path of one file.",
            available=available,
        )
    return folder / wanted


def _checked_digest(path: Path, record: dict[str, Any]) -> str | None:
    facts: dict[str, Any] | None = record.get("files", {}).get(path.name)
    if facts is None:
        return None
    if path.stat().st_size != facts["bytes"] or sha256_file(path) != facts["sha256"]:
        raise IntegrityError(
            f"{path.name} is not the file that was exported: it was changed or cut short",
            hint="Run `llmops export run` again.",
            expected_bytes=facts["bytes"],
            found_bytes=path.stat().st_size,
        )
    return str(facts["sha256"])


def _check_gate(
    path: Path, digest: str | None, record: dict[str, Any], ref: str, *, force: bool
) -> list[str]:
    gate_path = _choose_gate(path, is_export=bool(record))
    if not record and not gate_path.is_file():
        return [f"{ref} did not come from `llmops export`, so nothing proves that it answers as trained"]
    gate: dict[str, Any] = read_json(gate_path) if gate_path.is_file() else {}
    reason = "failed its export gate" if gate else "has not been through the export gate"
    if gate.get("passed") is True:
        if gate.get("files", {}).get(path.name) == (digest or sha256_file(path)):
            return []
        reason = f"has an export gate that did not look at this {path.name}"
    if force:
        return [f"{ref} {reason} and is served because of --force"]
    raise OperationFailedError(
        f"{ref} {reason}",
        hint="Run `llmops export verify` and mend what it names, or pass --force.",
        gate=str(gate_path),
    )


def _choose_gate(path: Path, *, is_export: bool) -> Path:
    """Return the report that speaks for a file: that of its export, or its own where one was verified alone.

    An export is judged as a whole, because only there is a quantised file compared with one that keeps all bits.
    Outside, a report on another file of the folder, such as models/, says nothing about this one.
    """
    shared, own = path.with_name(_GATE), path.with_name(f"{path.stem}.{_GATE}")
    if is_export and shared.is_file():
        return shared
    is_about_it = shared.is_file() and path.name in read_json(shared).get("files", {path.name: ""})
    return shared if is_about_it and not own.is_file() else own
