"""The gate's measure of skill: held-out assistant turns, asked of every file, so that a quantisation's loss is seen.

A turn is right when exactly the right tools are called with exactly the right arguments, or none where none should be.
Coarser than `evals run`, which also judges end states and wording; here only the distance between files counts.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message
from pipeline.core.paths import shown_path
from pipeline.export.gate_report import GateCheck
from pipeline.export.gate_server import CONTEXT_TOKENS, GateServer, RefusedRequestError

if TYPE_CHECKING:
    from pipeline.export.backends.reference import Reference

LOSS_LIMIT_POINTS = 2.0
DEFAULT_NUM_TURNS = 16
"""Sees a file that lost its skill, in a third of the gate's time; 50 turns tell one lost turn from two."""
CONCURRENCY = 4
_ANSWER_TOKENS = 160
_MAX_CONTEXT_TOKENS = 8192
"""Each of the slots holds a cache of this size, beside the weights; longer turns count as wrong."""


class HeldOutTurn(NamedTuple):
    """A conversation up to an assistant turn, and the calls that turn should make."""

    messages: list[dict[str, Any]]
    calls: list[tuple[str, dict[str, Any]]]


def read_turns(path: Path, num_turns: int) -> list[HeldOutTurn]:
    """Return up to ``num_turns`` assistant turns, evenly spaced over a file of conversations.

    Raises:
        InvalidInputError: If it is not a file of conversations.
    """
    turns: list[HeldOutTurn] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            messages = [Message.from_openai(raw) for raw in json.loads(line)["messages"]]
            turns += [
                HeldOutTurn([m.to_openai() for m in messages[:i]], _calls_of(message))
                for i, message in enumerate(messages)
                if message.role == "assistant"
            ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{path.name} is not a file of conversations: {str(error)[:200]}",
            hint="Name the test.jsonl that `llmops synth generate` wrote, or one in its format.",
        ) from error
    step = max(1, len(turns) // num_turns)
    return turns[::step][:num_turns]


def held_out_is_gone(path: Path) -> GateCheck:
    """Return the remark that nothing was measured because the recorded conversations are no longer there."""
    return GateCheck(
        id="task_accuracy",
        passed=None,
        measured=f"no held-out turns: {shown_path(path)} is gone",
        limit="reported: the usual order for the model's size decides",
        explanation="What quantising costs was not measured. Name other conversations with `export verify --cases`.",
    )


def context_for(turns: list[HeldOutTurn], reference: "Reference", tools: list[dict[str, Any]]) -> int:
    """Return the context in which the longest turn and its answer fit; memory for more is not taken."""
    prompts = [reference.render(turn.messages, tools) for turn in turns]
    longest = max((len(reference.tokenize(text)) for text in prompts if text is not None), default=0)
    return max(CONTEXT_TOKENS, min(longest + _ANSWER_TOKENS, _MAX_CONTEXT_TOKENS))


def measure_accuracy(server: GateServer, turns: list[HeldOutTurn], tools: list[dict[str, Any]]) -> float:
    """Return the share of turns that the served file gets right."""

    def is_right(turn: HeldOutTurn) -> bool:
        try:
            message = server.chat(turn.messages, tools, max_tokens=_ANSWER_TOKENS)["message"]
            made: list[dict[str, Any]] = message.get("tool_calls") or []
            calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made]
        except (ValueError, RefusedRequestError):  # arguments cut off, or a call that no parser reads
            return False
        return calls == turn.calls

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return sum(pool.map(is_right, turns)) / len(turns)


def check_accuracy(name: str, accuracy: float, full: float, num_turns: int, *, is_default: bool) -> GateCheck:
    """Compare a file's accuracy with that of the file that keeps all bits; only the served one has to pass."""
    loss = points_lost(accuracy, full)
    within = loss <= LOSS_LIMIT_POINTS
    return GateCheck(
        id=f"task_accuracy:{name}",
        passed=within if within or is_default else None,
        measured=f"{accuracy:.3f} of {num_turns} turns right, {loss:+.1f} points lost",
        limit=f"at most {LOSS_LIMIT_POINTS} points below {full:.3f}, or it is not the default",
        explanation="Quantising costs this model answers: serve a file with more bits.",
    )


def points_lost(accuracy: float, full: float) -> float:
    """Return percentage points, rounded so that a loss of one turn in fifty is exactly two."""
    return round(100 * (full - accuracy), 6)


def _calls_of(message: Message) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in message.tool_calls or ()]
