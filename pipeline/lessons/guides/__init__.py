"""Lesson guides: one Markdown file per lesson, with what a program needs to know in its frontmatter.

Does not judge anything; ``pipeline.lessons.checks`` does.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from pipeline.core.errors import InvalidInputError

_FOLDER = Path(__file__).parent
_NUMBER = re.compile(r"6[1-6]\.[0-9]")


@dataclass(frozen=True, slots=True)
class Guide:
    """One lesson."""

    number: str
    """Chapter and lesson, such as ``63.7``."""
    title: str
    layer: str
    """skill-first, concept, hands-on, skill or capstone."""
    minutes: int
    """Time the course plans for it."""
    prerequisites: tuple[str, ...]
    """Lessons that should be passed before."""
    operations: tuple[str, ...]
    """Operations that the lesson runs, in order."""
    deliverables: tuple[str, ...]
    """Files below ``<learner folder>/<number>/`` that the check reads."""
    text: str = field(repr=False)
    """The whole guide as Markdown, without the frontmatter."""


def read_guide(number: str) -> Guide:
    """Return one guide.

    Raises:
        InvalidInputError: If there is no lesson of that number.
    """
    path = _FOLDER / f"{number}.md"
    if not _NUMBER.fullmatch(number) or not path.is_file():
        raise InvalidInputError(f"no lesson {number[:20]!r}", hint="Run `llmops lesson list` to see all 49.")
    return _parse(path)


@cache
def list_guides() -> tuple[Guide, ...]:
    """Return every guide in the order of the course."""
    return tuple(_parse(path) for path in sorted(_FOLDER.glob("*.md")))


@cache
def _parse(path: Path) -> Guide:
    import yaml

    _, head, text = path.read_text(encoding="utf-8").split("---\n", 2)
    values = cast("dict[str, Any]", yaml.safe_load(head))
    lists = {
        name: tuple(cast("list[str]", values[name]))
        for name in ("prerequisites", "operations", "deliverables")
    }
    return Guide(
        number=path.stem,
        title=values["title"],
        layer=values["layer"],
        minutes=values["minutes"],
        text=text.lstrip("\n"),
        **lists,
    )
