"""Model and artifact references: parse, print, resolve.

    hf:org/name@revision     a repository on the Hugging Face hub
    file:PATH                a file or folder
    run:ID/ARTIFACT          something a run made
    ollama:NAME:TAG          a model inside Ollama
    PATH                     the same as file:PATH
    NAME                     models/NAME when that exists, else a path

A reference prints as it was typed. Does not download and does not look into what it finds.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.core.errors import InvalidInputError
from pipeline.core.runs import Run
from pipeline.core.settings import Settings

RefKind = Literal["hf", "file", "run", "ollama", "path"]
_SCHEMES: dict[str, RefKind] = {"hf": "hf", "file": "file", "run": "run", "ollama": "ollama"}
_SHOWN_NAMES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """One parsed reference."""

    text: str
    """As typed."""
    kind: RefKind
    """Scheme, or ``path`` when there was none."""
    location: str
    """Repository, path, run id or Ollama name."""
    revision: str | None = None
    """Of a hub repository."""
    artifact: str = ""
    """Of a run: path below its artifacts."""

    @classmethod
    def parse(cls, text: str) -> "ModelRef":
        """Parse a reference.

        Raises:
            InvalidInputError: If it is empty or its part after the scheme has a wrong form.
        """
        scheme, colon, rest = text.partition(":")
        kind = _SCHEMES.get(scheme, "path") if colon else "path"
        location, revision, artifact = text if kind == "path" else rest, None, ""
        if kind == "hf":
            location, _, found = rest.partition("@")
            revision = found or None
        elif kind == "run":
            location, _, artifact = rest.partition("/")
        if not location.strip() or "\0" in text or (kind == "hf" and location.count("/") != 1):
            raise InvalidInputError(
                f"{text!r} is not a reference",
                hint="Use a path, models/NAME, hf:org/name@revision, run:ID/ARTIFACT or ollama:NAME:TAG.",
            )
        return cls(text=text, kind=kind, location=location, revision=revision, artifact=artifact)

    def __str__(self) -> str:
        return self.text

    def resolve_path(self, settings: Settings) -> Path:
        """Return the file or folder on this machine.

        Raises:
            InvalidInputError: If nothing is there, or the reference names something that is not a file.
        """
        if self.kind == "run":
            return _find_in_run(self)
        if self.kind == "ollama":
            raise InvalidInputError(
                f"{self.text} lives inside Ollama and is not a file here", hint="Pass a path or models/NAME."
            )
        if self.kind == "hf":
            pulled = settings.models_dir / self.location.split("/")[1].lower()
            if not pulled.exists():
                raise InvalidInputError(
                    f"{self.text} has not been pulled", hint=f"Run `llmops models pull {self.text}`."
                )
            return pulled
        return _find_path(
            self.location, settings, bare_name=self.kind == "path" and os.sep not in self.location
        )


def resolve_path(text: str) -> Path:
    """Parse a reference and return the file or folder it names on this machine.

    Raises:
        InvalidInputError: If it is not a reference, or nothing is there.
    """
    return ModelRef.parse(text).resolve_path(Settings.load())


def _find_path(location: str, settings: Settings, *, bare_name: bool) -> Path:
    candidates = [settings.models_dir / location] if bare_name else []
    candidates.append(settings.workspace / Path(location).expanduser())
    for candidate in candidates:
        if candidate.exists():
            return candidate
    parent = candidates[0].parent
    raise InvalidInputError(
        f"there is no {location!r}: {candidates[0]} does not exist",
        hint=f"{_describe_folder(parent)} Check the name.",
    )


def _find_in_run(ref: ModelRef) -> Path:
    run = Run.open(ref.location)
    # `run:ID/adapter` and `run:ID/artifacts/adapter` both read naturally.
    found = run.artifacts / ref.artifact.removeprefix("artifacts/").removeprefix("artifacts")
    if not found.resolve().is_relative_to(run.artifacts.resolve()):
        raise InvalidInputError(
            f"{ref.text!r} leaves its run", hint="Name something below the run's artifacts."
        )
    if not found.exists():
        raise InvalidInputError(
            f"run {run.id} ({run.state()}) has no artifact {ref.artifact!r}",
            hint=_describe_folder(run.artifacts),
        )
    return found


def _describe_folder(folder: Path) -> str:
    if not folder.is_dir():
        return f"There is no folder {folder}."
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not names:
        return f"{folder} is empty."
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f"{folder} has {', '.join(names[:_SHOWN_NAMES])}{more}."
