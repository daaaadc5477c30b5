"""Preference pairs: the right turn beside a wrong one, either from the file or made by breaking the right one.

A row may bring its own ``rejected`` assistant message, from a judge or a person. For other rows one thing is broken at
a time, in ways that small models really go wrong; where no call is due, the rejected turn makes one (restraint).
"""

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

from pipeline.core.messages import Message, Tool, ToolCall
from pipeline.train.job import TrainExample

_CLAIM = "Done, I have taken care of that."


def make_pairs(examples: Iterable[TrainExample], seed: int) -> list[TrainExample]:
    """Return one pair per row: the conversation up to an assistant turn, and what to reject in that turn's place.

    Rows without a ``rejected`` message that have no tools, or no assistant turn, have nothing to break and are left
    out: the caller counts and reports them.
    """
    chooser = random.Random(seed)
    pairs: list[TrainExample] = []
    for example in examples:
        if example.rejected is not None:
            pairs.append(example)
            continue
        turns = [turn for turn, message in enumerate(example.messages) if message.role == "assistant"]
        if not turns or not example.tools:
            continue
        turn = chooser.choice(turns)
        rejected = _break(example.messages[turn], example, turn, chooser)
        if rejected is not None:
            pairs.append(replace(example, messages=example.messages[: turn + 1], rejected=rejected))
    return pairs


def _break(right: Message, example: TrainExample, turn: int, chooser: random.Random) -> Message | None:
    if not right.tool_calls:
        return _needless_call(example, turn, chooser)
    position = chooser.randrange(len(right.tool_calls))
    call = right.tool_calls[position]
    breaks = [_other_tool, _other_value, _missing_argument, _invented_argument]
    chooser.shuffle(breaks)
    for make in breaks:
        broken = make(call, example, chooser)
        if broken is not None:
            calls = (*right.tool_calls[:position], broken, *right.tool_calls[position + 1 :])
            return right.model_copy(update={"tool_calls": calls})
    return Message(role="assistant", content=_CLAIM)


def _other_tool(call: ToolCall, example: TrainExample, chooser: random.Random) -> ToolCall | None:
    names = [_name(tool) for tool in example.tools if _name(tool) != call.name]
    return call.model_copy(update={"name": chooser.choice(names)}) if names else None


def _other_value(call: ToolCall, example: TrainExample, chooser: random.Random) -> ToolCall | None:
    """Take a word out of a text, or in: the commonest wrong argument is a title with too much or too little."""
    texts = [name for name, value in call.arguments.items() if isinstance(value, str) and value.strip()]
    if not texts:
        return None
    name = chooser.choice(texts)
    words = str(call.arguments[name]).split()
    said = " ".join(m.content or "" for m in example.messages if m.role == "user").split()
    extra = [word for word in said if word not in words]
    if len(words) > 1 and chooser.random() < 0.5:
        del words[chooser.randrange(len(words))]
    elif extra:
        words.append(chooser.choice(extra))
    else:
        return None
    return call.model_copy(update={"arguments": {**call.arguments, name: " ".join(words)}})


def _missing_argument(call: ToolCall, example: TrainExample, chooser: random.Random) -> ToolCall | None:
    if not call.arguments:
        return None
    name = chooser.choice(sorted(call.arguments))
    return call.model_copy(update={"arguments": {k: v for k, v in call.arguments.items() if k != name}})


def _invented_argument(call: ToolCall, example: TrainExample, chooser: random.Random) -> ToolCall | None:
    known = _properties(example.tools, call.name)
    names = sorted(name for name in known if name not in call.arguments)
    if not names:
        return None
    name = chooser.choice(names)
    value = _example_value(known[name], example, chooser)
    return call.model_copy(update={"arguments": {**call.arguments, name: value}})


def _needless_call(example: TrainExample, turn: int, chooser: random.Random) -> Message:
    tool = chooser.choice(example.tools)
    function: dict[str, Any] = tool.get("function", tool)
    parameters = cast("dict[str, Any]", function.get("parameters") or {})
    known = _properties(example.tools, _name(tool))
    arguments = {
        name: _example_value(known.get(name, {}), example, chooser) for name in parameters.get("required", [])
    }
    call = ToolCall(name=_name(tool), arguments=arguments, id=f"call_{turn}")
    return Message(role="assistant", content=None, tool_calls=(call,))


def _example_value(schema: dict[str, Any], example: TrainExample, chooser: random.Random) -> Any:
    if schema.get("enum"):
        return chooser.choice(schema["enum"])
    kinds: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
    if (kind := str(schema.get("type"))) in kinds:
        return kinds[kind]
    said = [m.content for m in example.messages if m.role == "user" and m.content]
    return " ".join(said[-1].split()[-4:]) if said else "something"


def _properties(tools: tuple[Tool, ...], name: str) -> dict[str, dict[str, Any]]:
    for tool in tools:
        if _name(tool) == name:
            function: dict[str, Any] = tool.get("function", tool)
            parameters = cast("dict[str, Any]", function.get("parameters") or {})
            return cast("dict[str, dict[str, Any]]", parameters.get("properties") or {})
    return {}


def _name(tool: Tool) -> str:
    return str(tool.get("function", tool).get("name"))
