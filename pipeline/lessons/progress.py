"""What a learner has passed, kept in ``progress.json`` of the learner's folder."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from pipeline.core.files import read_json, write_json
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.lessons.guides import Guide, list_guides

_FILE = "progress.json"


class LessonProgressRequest(Request):
    """Whose progress."""

    folder: WorkspacePath = "learning"
    """The learner's folder."""


class ChapterProgress(Part):
    """One chapter."""

    chapter: int
    """61 to 66."""
    num_passed: int
    """Lessons passed."""
    num_lessons: int
    """Lessons there are."""


class LessonProgressResult(Result):
    """Where a learner stands."""

    folder: str
    """The learner's folder."""
    num_passed: int
    """Lessons passed."""
    num_lessons: int
    """Lessons of the course."""
    chapters: list[ChapterProgress]
    """By chapter."""
    passed: list[str]
    """Numbers of the lessons passed."""
    ready: list[str] = Field(max_length=49)
    """Lessons not passed whose prerequisites are."""


def report_progress(request: LessonProgressRequest) -> LessonProgressResult:
    """Show which lessons are passed and which can come next."""
    passed = read_passed(resolve_path(request.folder))
    guides = list_guides()
    ready = [guide.number for guide in guides if guide.number not in passed and not missing(guide, passed)]
    chapters = [
        ChapterProgress(
            chapter=chapter,
            num_passed=sum(number.startswith(f"{chapter}.") for number in passed),
            num_lessons=sum(guide.number.startswith(f"{chapter}.") for guide in guides),
        )
        for chapter in range(61, 67)
    ]
    return LessonProgressResult(
        folder=request.folder,
        num_passed=len(passed),
        num_lessons=len(guides),
        chapters=chapters,
        passed=sorted(passed),
        ready=ready,
        next_step=f"llmops lesson show {ready[0]}" if ready else "All lessons are passed.",
    )


def read_passed(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the passed lessons of a learner: number -> when."""
    path = folder / _FILE
    if not path.is_file():
        return {}
    stored = cast("dict[str, Any]", read_json(path)).get("passed", {})
    known = {guide.number for guide in list_guides()}
    return {number: entry for number, entry in stored.items() if number in known}


def record(folder: Path, number: str, *, is_passed: bool) -> None:
    """Remember a passed lesson; one that no longer passes is forgotten."""
    passed = read_passed(folder)
    if is_passed:
        passed[number] = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
    elif number not in passed:
        return
    else:
        del passed[number]
    write_json(folder / _FILE, {"passed": dict(sorted(passed.items()))})


def missing(guide: Guide, passed: dict[str, dict[str, Any]]) -> list[str]:
    """Return the prerequisites of a lesson that are not passed."""
    return [number for number in guide.prerequisites if number not in passed]


LESSON_PROGRESS = Operation(
    name="lesson.progress",
    request=LessonProgressRequest,
    result=LessonProgressResult,
    run=report_progress,
    read_only=True,
    positional=("folder",),
)
