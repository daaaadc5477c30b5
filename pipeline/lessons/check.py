"""Hold what a learner made against a lesson's criteria: pass, or not yet with the reason and the next step."""

from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.lessons.checks import load_check
from pipeline.lessons.guides import read_guide
from pipeline.lessons.progress import missing, read_passed, record
from pipeline.lessons.work import Criterion, NotYetError, Work


class LessonCheckRequest(Request):
    """Which lesson, and where the work is."""

    number: str
    """Lesson such as 63.7."""
    folder: WorkspacePath = "learning"
    """The learner's folder; the lesson's files are in its folder NUMBER."""


class LessonCheckResult(Result):
    """Pass or not yet."""

    number: str
    """Chapter and lesson."""
    title: str
    """Title."""
    passed: bool
    """Every criterion is met."""
    criteria: list[Criterion]
    """What was asked and found."""

    def is_negative(self) -> bool:
        """Not yet."""
        return not self.passed


def check_lesson(request: LessonCheckRequest) -> LessonCheckResult:
    """Check what a learner made for a lesson and remember the outcome.

    Raises:
        InvalidInputError: If there is no such lesson.
    """
    guide = read_guide(request.number)
    folder = resolve_path(request.folder)
    work = Work(folder=folder, number=guide.number)
    try:
        load_check(guide.number)(work)
    except NotYetError as error:
        work.criteria.append(error.criterion)
    unmet = [criterion for criterion in work.criteria if not criterion.is_met]
    is_passed = bool(work.criteria) and not unmet
    record(folder, guide.number, is_passed=is_passed)
    before = missing(guide, read_passed(folder))
    return LessonCheckResult(
        number=guide.number,
        title=guide.title,
        passed=is_passed,
        criteria=work.criteria,
        warnings=[f"Lesson {', '.join(before)} should come before and is not passed."] if before else [],
        next_step="llmops lesson progress" if is_passed else unmet[0].next_step,
    )


LESSON_CHECK = Operation(
    name="lesson.check",
    request=LessonCheckRequest,
    result=LessonCheckResult,
    run=check_lesson,
    positional=("number",),
)
