"""Questions to a person who answers elsewhere, later or never: one at a time, and each answer belongs to its question.

What waits for the answer runs in one thread, and what brings it in another. Knows neither agent nor HTTP.
"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One question; its answer is kept here and not in a queue, so that no other question can take it."""

    text: str
    """What is asked."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Names it in the answer; never used twice."""
    answer: Future[bool] = field(default_factory=Future[bool], repr=False)
    """Set once, when the person has answered."""

    def to_dict(self) -> dict[str, str]:
        """Return what the person is shown."""
        return {"id": self.id, "text": self.text}


class ConsentDesk:
    """Holds the open question; silence counts as no."""

    def __init__(self, on_question: Callable[[Question], None], timeout_seconds: float) -> None:
        self._on_question, self._timeout_seconds = on_question, timeout_seconds
        self._lock = threading.Lock()
        self._open: Question | None = None
        self._is_closed = False

    @property
    def open_question(self) -> Question | None:
        """The question that waits for its answer."""
        return self._open

    def ask(self, text: str) -> bool:
        """Ask, and wait for the answer; no answer in time, or a closed desk, is a no."""
        question = Question(text)
        with self._lock:
            if self._is_closed:
                return False
            self._open = question
        self._on_question(question)
        try:
            return question.answer.result(self._timeout_seconds)
        except TimeoutError:
            with self._lock:  # an answer that was taken at the last moment counts: its sender was told so
                self._open = None
                return question.answer.done() and question.answer.result()

    def answer(self, question_id: object, agree: bool) -> bool:
        """Answer the open question; return False, and do nothing, when it is not the one that is named."""
        with self._lock:
            question = self._open
            if question is None or question.id != question_id:
                return False
            self._open = None
            question.answer.set_result(agree)
        return True

    def close(self) -> None:
        """Answer no to the open question and to all that are still to come: nobody is there any more."""
        with self._lock:
            self._is_closed = True
            if self._open is not None:
                self._open.answer.set_result(False)
                self._open = None
