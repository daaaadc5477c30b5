"""List the lessons, or show the guide of one."""

from pydantic import Field

from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.lessons.guides import list_guides, read_guide


class LessonListRequest(Request):
    """Which lessons."""

    chapter: int | None = Field(default=None, ge=61, le=66)
    """Only this chapter."""


class LessonRow(Part):
    """One lesson in the list."""

    number: str
    """Chapter and lesson."""
    title: str
    """Title."""
    layer: str
    """skill-first, concept, hands-on, skill or capstone."""
    minutes: int
    """Planned time."""
    prerequisites: list[str]
    """Lessons to pass before."""


class LessonListResult(Result):
    """The course."""

    lessons: list[LessonRow]
    """In order."""
    num_lessons: int
    """How many those are."""


class LessonShowRequest(Request):
    """Which lesson."""

    number: str
    """Lesson such as 63.7."""


class LessonShowResult(Result):
    """A lesson's guide."""

    number: str
    """Chapter and lesson."""
    title: str
    """Title."""
    operations: list[str]
    """Operations that the lesson runs, in order."""
    deliverables: list[str]
    """Files below `<learner folder>/<number>/` that the check reads."""
    prerequisites: list[str]
    """Lessons to pass before."""
    guide: str
    """The guide as Markdown."""

    def styled_text(self) -> list[tuple[str, str]]:
        """Return the guide itself."""
        return [(self.guide, "")]


def list_lessons(request: LessonListRequest) -> LessonListResult:
    """List the lessons of the course with their prerequisites."""
    rows = [
        LessonRow(
            number=guide.number,
            title=guide.title,
            layer=guide.layer,
            minutes=guide.minutes,
            prerequisites=list(guide.prerequisites),
        )
        for guide in list_guides()
        if request.chapter is None or guide.number.startswith(f"{request.chapter}.")
    ]
    return LessonListResult(lessons=rows, num_lessons=len(rows), next_step="llmops lesson show NUMBER")


def show_lesson(request: LessonShowRequest) -> LessonShowResult:
    """Show a lesson: objective, concepts, operations, roles, deliverable and how it is checked.

    Raises:
        InvalidInputError: If there is no such lesson.
    """
    guide = read_guide(request.number)
    return LessonShowResult(
        number=guide.number,
        title=guide.title,
        operations=list(guide.operations),
        deliverables=list(guide.deliverables),
        prerequisites=list(guide.prerequisites),
        guide=guide.text,
        next_step=f"llmops lesson check {guide.number}",
    )


LESSON_LIST = Operation(
    name="lesson.list", request=LessonListRequest, result=LessonListResult, run=list_lessons, read_only=True
)
LESSON_SHOW = Operation(
    name="lesson.show",
    request=LessonShowRequest,
    result=LessonShowResult,
    run=show_lesson,
    read_only=True,
    positional=("number",),
)
