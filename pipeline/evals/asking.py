"""Ask an engine every case, some at the same time, and keep each answer the moment it comes.

A resumed run asks only what is missing, or what has changed since. Does not score.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.messages import Tool
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.evals.answers import Answer, Decoding, digest_question, read_answers, write_answers
from pipeline.evals.engines import Engine


class Question(NamedTuple):
    """What is asked once."""

    id: str
    messages: Sequence[dict[str, Any]]
    tools: Sequence[Tool]
    repeat: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the question in a file of answers."""
        return self.id, self.repeat


class Asking(NamedTuple):
    """How to ask, and where answers are kept."""

    how: Decoding
    concurrency: int
    path: Path
    label: str
    run: Run | None = None


def ask_all(engine: Engine, questions: Sequence[Question], asking: Asking) -> list[Answer]:
    """Return one answer per question, in order; what an earlier attempt stored is not asked again.

    Raises:
        PipelineError: If the engine is gone or refuses a request; what came before is kept.
    """
    digests = {q.key: digest_question(q.messages, q.tools, _how(asking, q)) for q in questions}
    stored = read_answers(asking.path)
    done = {key: stored[key] for key in digests if key in stored and stored[key].digest == digests[key]}
    write_answers(asking.path, done.values())

    def ask(question: Question) -> Answer:
        found = engine.ask(question.id, question.messages, question.tools, _how(asking, question))
        return found.model_copy(update={"repeat": question.repeat, "digest": digests[question.key]})

    pool = ThreadPoolExecutor(asking.concurrency)
    with Progress(asking.label, len(questions), unit="answers", run=asking.run) as progress:
        progress.done = len(done)
        try:
            waiting = [pool.submit(ask, question) for question in questions if question.key not in done]
            with asking.path.open("a", encoding="utf-8") as file:
                for future in as_completed(waiting):
                    answer = future.result()
                    file.write(answer.model_dump_json(exclude_none=True) + "\n")
                    file.flush()
                    done[answer.key] = answer
                    progress.advance()
        finally:
            pool.shutdown(cancel_futures=True)
    answers = [done[question.key] for question in questions]
    write_answers(asking.path, answers)
    return answers


def _how(asking: Asking, question: Question) -> Decoding:
    if not question.repeat:
        return asking.how
    return asking.how.model_copy(update={"seed": asking.how.seed + question.repeat})
