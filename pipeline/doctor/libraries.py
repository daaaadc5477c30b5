"""Versions of every library of every extra, held against what this project asks for."""

import re
from importlib.metadata import PackageNotFoundError, requires
from typing import Literal

from pipeline.core.extras import installed_version
from pipeline.core.operation import Part

State = Literal["ok", "too old", "too new", "missing"]
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)\s*([^;]*)(?:;.*extra == ['\"]([a-z]+)['\"])?")
_BASE = "base"


class LibraryFacts(Part):
    """One library that an extra asks for."""

    name: str
    """Distribution name."""
    extra: str
    """Extra that asks for it; `base` is always installed."""
    wanted: str
    """Versions that are tested."""
    installed: str
    """Installed version, or empty."""
    state: State
    """Whether they agree."""
    mend: str
    """Command that installs the tested version; empty when it is there."""


def read_libraries() -> list[LibraryFacts]:
    """Return every library of every extra; nothing when the project itself is not installed."""
    try:
        lines = requires("llmops") or []
    except PackageNotFoundError:
        return []
    return [judge_library(*parts) for line in lines if (parts := _parse_requirement(line))]


def judge_library(name: str, wanted: str, extra: str) -> LibraryFacts:
    """Compare the installed version of a library with the wanted range."""
    installed = installed_version(name)
    state = "missing" if installed is None else judge_version(installed, wanted)
    place = "." if extra == _BASE else f".[{extra}]"
    mend = "" if state == "ok" else f".venv/bin/pip install -c constraints.txt -e '{place}'"
    return LibraryFacts(
        name=name, extra=extra, wanted=wanted, installed=installed or "", state=state, mend=mend
    )


def judge_version(installed: str, wanted: str) -> State:
    """Compare a version with a range of ``>=`` and ``<`` bounds, the only ones this project writes."""
    for bound in filter(None, wanted.split(",")):
        limit = release(bound.lstrip("><="))
        if bound.startswith(">=") and release(installed) < limit:
            return "too old"
        if bound.startswith("<") and release(installed) >= limit:
            return "too new"
    return "ok"


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: ``2.13.0+cpu`` is (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version.strip())
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _parse_requirement(line: str) -> tuple[str, str, str] | None:
    match = _REQUIREMENT.match(line)
    return (match[1], match[2].replace(" ", ""), match[3] or _BASE) if match else None
