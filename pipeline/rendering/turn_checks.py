"""Did every turn reach the training text? Each turn's words are looked for where that turn should stand.

Works on the text alone; asking the template again (was the turn dropped, or only altered?) is left to a function
that the caller gives.
"""

import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pipeline.rendering.row import TurnProblem

Range = tuple[int, int]
IsPrinted = Callable[[int], bool]
"""Turn -> whether the template prints that turn's content at all."""
_SURE_LENGTH = (
    16  # a shorter text may stand in the markup or in a neighbour by chance, so the template is asked
)


def find_lost_turns(
    messages: Sequence[dict[str, Any]], text: str, spans: Sequence[Range], is_printed: IsPrinted
) -> Generator[TurnProblem]:
    """Yield the turns whose words are missing from the text; ``spans`` are those of the assistant turns, in order."""
    following = iter([*spans, (len(text), len(text))])
    span = next(following)
    cursor = 0
    for turn, message in enumerate(messages):
        role = str(message["role"])
        if role == "assistant":
            region, cursor = span, span[1]
            span = next(following)
        else:
            # Templates may print the system text inside any user turn, or behind the tools.
            region = (0, len(text)) if role == "system" else (cursor, span[0])
        lost = _find_lost(message, text, region)
        content = message.get("content")
        if lost is None and isinstance(content, str) and 0 < len(content.strip()) < _SURE_LENGTH:
            lost = None if is_printed(turn) else "content"
        if lost is None and role == "assistant" and content is None and _says_none(text, region):
            yield TurnProblem("altered", turn, role, "the chat template prints its empty content as 'None'")
        elif lost == "content":
            kind = "altered" if is_printed(turn) else "dropped"
            done = "alters it: its text is not in the training text" if kind == "altered" else "drops it"
            yield TurnProblem(kind, turn, role, f"the chat template {done}")
        elif lost is not None:
            kind = "dropped" if lost.startswith("its call") else "altered"
            yield TurnProblem(kind, turn, role, f"the chat template drops {lost}")


def _find_lost(message: dict[str, Any], text: str, region: Range) -> str | None:
    content = message.get("content")
    if isinstance(content, str) and content.strip():
        # Llama 3.1 prints a tool's result as a JSON string: escaped, but all there.
        forms = _printed_forms(content.strip()) if message["role"] == "tool" else {content.strip()}
        if not any(text.find(form, *region) >= 0 for form in forms):
            return "content"
    for call in message.get("tool_calls") or ():
        function = call["function"]
        if text.find(function["name"], *region) < 0:
            return f"its call of {function['name']!r}"
        for path, leaf in _leaves(function["arguments"], "arguments"):
            if not any(text.find(form, *region) >= 0 for form in _printed_forms(leaf)):
                return f"{path} of its call of {function['name']!r}"
    return None


def _leaves(value: Any, path: str) -> Generator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType] - any JSON
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for position, inner in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - any JSON
            yield from _leaves(inner, f"{path}[{position}]")
    else:
        yield path, value


def _printed_forms(leaf: Any) -> set[str]:
    # Templates print arguments as JSON, as bare values between tags, or as Python literals.
    if isinstance(leaf, str):
        return {leaf, json.dumps(leaf, ensure_ascii=False)[1:-1], json.dumps(leaf)[1:-1], repr(leaf)[1:-1]}
    return {json.dumps(leaf), str(leaf)}


def _says_none(text: str, region: Range) -> bool:
    return text[slice(*region)].lstrip().startswith("None")
