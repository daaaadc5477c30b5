"""The course as a whole: every lesson has a guide, operations that exist, a check, and an order that can be followed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.lessons.check import LESSON_CHECK, LessonCheckResult
from pipeline.lessons.checks import load_check
from pipeline.lessons.guides import Guide, list_guides, read_guide
from pipeline.lessons.progress import LESSON_PROGRESS
from pipeline.lessons.show import LESSON_LIST, LESSON_SHOW
from pipeline.operations import OPERATIONS

GUIDES = list_guides()
SECTIONS = ("Objective", "Concepts", "Do", "Together", "Deliverable", "Check")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.number)
def test_a_lesson_has_all_its_parts_and_they_exist(guide: Guide) -> None:
    titles = re.findall(r"^## (.+)$", guide.text, re.MULTILINE)
    assert titles[: len(SECTIONS)] == list(SECTIONS)
    assert guide.text.startswith(f"# {guide.number} ")
    assert guide.layer in {"skill-first", "concept", "hands-on", "skill", "capstone"}
    assert set(guide.operations) <= {entry.name for entry in OPERATIONS}
    assert set(guide.prerequisites) < {other.number for other in GUIDES}
    assert guide.deliverables
    assert f"llmops lesson check {guide.number}" in guide.text
    for name in guide.deliverables:
        assert name.rpartition("/")[2] in guide.text, name
    assert load_check(guide.number).__doc__


def test_prerequisites_come_earlier() -> None:
    seen: set[str] = set()
    for guide in GUIDES:
        assert set(guide.prerequisites) <= seen, guide.number
        seen.add(guide.number)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.number)
def test_nothing_handed_in_is_not_yet_with_a_next_step(guide: Guide, workspace: Path) -> None:
    result = LESSON_CHECK.call({"number": guide.number})
    assert not result.passed
    assert result.is_negative()
    assert result.next_step
    assert not (workspace / "learning").exists()


@pytest.mark.parametrize("number", ["99.1", "61.0", "../61.1", "", "-x"])
def test_a_lesson_that_does_not_exist_is_refused(number: str, workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="no lesson"):
        read_guide(number)


def test_a_deliverable_outside_the_learners_folder_is_not_read(workspace: Path, write: Any) -> None:
    secret = workspace / "secret.json"
    secret.write_text("{}", encoding="utf-8")
    (workspace / "learning" / "61.3").mkdir(parents=True)
    (workspace / "learning" / "61.3" / "decision_request.json").symlink_to(secret)
    assert not LESSON_CHECK.call({"number": "61.3"}).passed


def test_progress_is_kept_and_names_what_can_come_next(
    workspace: Path, write: Callable[[str, Any], Path], check: Callable[[str], LessonCheckResult]
) -> None:
    before = LESSON_PROGRESS.call({})
    assert (before.num_passed, before.num_lessons) == (0, len(GUIDES))
    assert "61.1" in before.ready
    assert "61.2" not in before.ready
    write("progress.json", {"passed": {"61.1": {"at": "2026-01-01"}}})
    assert LESSON_PROGRESS.call({}).ready[0] == "61.2"
    assert check("61.3").warnings == ["Lesson 61.2 should come before and is not passed."]


def test_a_lesson_that_no_longer_passes_is_forgotten(
    workspace: Path, write: Callable[[str, Any], Path], check: Callable[[str], LessonCheckResult]
) -> None:
    write("progress.json", {"passed": {"61.3": {"at": "2026-01-01"}}})
    check("61.3")
    assert LESSON_PROGRESS.call({}).passed == []


def test_the_list_and_the_guide_can_be_shown() -> None:
    listed = LESSON_LIST.call({"chapter": 61})
    assert listed.num_lessons == 7
    shown = LESSON_SHOW.call({"number": "61.3"})
    assert shown.guide.startswith("# 61.3")
    assert shown.deliverables == ["decision_request.json", "decision_report.json"]
