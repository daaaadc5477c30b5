"""Training rows: any JSON Lines file of OpenAI ``messages``, each row with its own tools.

A row may hold ``rejected``, an assistant message to prefer the last turn to (preference training).
A row declares its tools inline (``tools``, a list or its JSON text) or names a set (``tool_set``: ``task_api``).
Reads only what training needs and leaves other fields alone; `llmops data validate` explains a broken row in full,
and other formats go through `llmops data convert` first.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message, Tool
from pipeline.task_api.tools import load_tools
from pipeline.train.job import TrainExample

_OTHER_FORMATS = {"conversations": "ShareGPT", "instruction": "Alpaca"}


def read_examples(path: Path) -> list[TrainExample]:
    """Read conversations.

    Raises:
        InvalidInputError: If a line is not a conversation of OpenAI messages, or its `rejected` and last message are
            not both assistant turns; names the line.
    """
    examples: list[TrainExample] = []
    try:
        # Lines end in LF only: other line breaks may stand inside a JSON string.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read {path}: {error}", hint="Pass a JSON Lines file.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{place} is not JSON: {str(error)[:200]}", hint=_hint(path)) from error
        examples.append(_parse(row, path, place))
    if not examples:
        raise InvalidInputError(f"{path} has no rows", hint="Make some with `llmops synth generate`.")
    return examples


def common_tools(examples: list[TrainExample]) -> tuple[Tool, ...] | None:
    """Return the tools that all rows have, or None when rows differ."""
    first = examples[0].tools
    return first if all(example.tools == first for example in examples) else None


def with_system_prompt(example: TrainExample, prompt: str) -> TrainExample:
    """Return the row with a text before its own system message, or as its system message where it has none."""
    if not prompt:
        return example
    first = example.messages[0]
    has_own = first.role == "system" and bool(first.content)
    text = f"{prompt}\n\n{first.content}" if has_own else prompt
    rest = example.messages[1:] if first.role == "system" else example.messages
    return replace(example, messages=(Message(role="system", content=text), *rest))


def to_row(example: TrainExample) -> dict[str, Any]:
    """Return the JSON Lines form that :func:`read_examples` reads."""
    row: dict[str, Any] = {
        "messages": [m.to_openai() for m in example.messages],
        "tools": list(example.tools),
    }
    return {**row, "rejected": example.rejected.to_openai()} if example.rejected else row


def _parse(row: Any, path: Path, place: str) -> TrainExample:
    if not isinstance(row, dict):
        raise InvalidInputError(f"{place} is not a JSON object", hint=_hint(path))
    fields = cast("dict[str, Any]", row)
    if "messages" not in fields:
        name = next((name for key, name in _OTHER_FORMATS.items() if key in fields), None)
        if name is not None:
            raise InvalidInputError(
                f"{place} is in {name} format; training reads OpenAI messages",
                hint=f"Run `llmops data convert {path} --to messages --out {path.stem}.messages.jsonl` first.",
            )
        raise InvalidInputError(f"{place} has no messages", hint=_hint(path))
    try:
        messages = tuple(Message.from_openai(message) for message in fields["messages"])
        tools = _tools(fields)
        rejected = Message.from_openai(fields["rejected"]) if fields.get("rejected") else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{place}: {str(error)[:200]}", hint=_hint(path)) from error
    if not messages:
        raise InvalidInputError(f"{place} has no messages", hint=_hint(path))
    if rejected is not None:
        _require_assistant_turns(messages[-1], rejected, place)
    name = f"{place}, id {fields['id']!r}" if fields.get("id") else place
    return TrainExample(name=name, messages=messages, tools=tools, rejected=rejected)


def _require_assistant_turns(last: Message, rejected: Message, place: str) -> None:
    """Refuse a pair of anything but two assistant turns: training would compare a wrong one, or find no label."""
    if rejected.role != "assistant":
        raise InvalidInputError(
            f"{place}: `rejected` is a message of role {rejected.role}, not of assistant",
            hint='Give `rejected` the role assistant: {"role": "assistant", "content": "..."}, or leave it out.',
        )
    if last.role != "assistant":
        raise InvalidInputError(
            f"{place}: the last message is of role {last.role}, but `rejected` stands in for an assistant turn",
            hint="End `messages` with the assistant turn to prefer to `rejected`, or leave `rejected` out.",
        )


def _tools(fields: dict[str, Any]) -> tuple[Tool, ...]:
    declared: Any = fields.get("tools")
    if isinstance(declared, str):  # as data sets keep them whose columns must have one type
        declared = json.loads(declared)
    if declared is not None:
        if not all(isinstance(tool, dict) for tool in declared):
            raise ValueError("tools is not a list of objects")
        return tuple(declared)
    tool_set = fields.get("tool_set")
    if not tool_set:
        return ()
    if tool_set != "task_api":
        raise ValueError(f"unknown tool set {tool_set!r}; known is task_api, or declare tools in the row")
    return tuple(load_tools())


def _hint(path: Path) -> str:
    return f"Run `llmops data validate {path}`: it names every broken row and how to mend it."
