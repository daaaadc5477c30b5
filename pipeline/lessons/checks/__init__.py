"""Acceptance checks: one function per lesson, ``check_61_3(work)`` in ``chapter_61.py``.

A check states criteria on a :class:`pipeline.lessons.work.Work` and computes what it can: it runs the operations on
the learner's files again instead of looking for words.
"""

import importlib
from collections.abc import Callable
from typing import cast

from pipeline.core.errors import InvalidInputError
from pipeline.lessons.work import Work

Check = Callable[[Work], None]


def load_check(number: str) -> Check:
    """Return the check of a lesson.

    Raises:
        InvalidInputError: If there is none.
    """
    chapter, _, lesson = number.partition(".")
    module = importlib.import_module(f"pipeline.lessons.checks.chapter_{chapter}")
    check = cast("Check | None", getattr(module, f"check_{chapter}_{lesson}", None))
    if check is None:
        raise InvalidInputError(f"lesson {number} has no check", hint="Run `llmops lesson list`.")
    return check
