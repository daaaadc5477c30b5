"""The same case asked in another way: renamed tools and parameters, other tools beside, other dates, other words.

Pure functions on cases as they stand in a file. Each returns the changed case, or None when the change does not apply.
A renamed case carries no end state, because nothing can execute a tool that only exists under another name:
:func:`find_renaming` says how to execute its calls on the original.
"""

import copy
import json
import random
import re
from collections.abc import Callable
from datetime import date
from typing import Any

from pipeline.evals.cases import Alternative
from pipeline.evals.renaming import Renaming, turn_round
from pipeline.evals.tool_calls.lint import materialise

Case = dict[str, Any]
_STATE_FIELDS = ("initial_state", "expected_state", "oracle_calls")
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_NUM_DISTRACTORS, _NUM_LONG = 4, 32
_NOUNS = (
    ("invoice", "customer"), ("playlist", "song"), ("flight", "passenger"), ("recipe", "ingredient"),
    ("vehicle", "driver"), ("parcel", "recipient"), ("sensor", "room"), ("article", "author"),
)  # fmt: skip
_VERBS = ("find", "archive", "rate", "export", "subscribe_to")


def shuffle_tools(case: Case, seed: int) -> Case | None:
    """Return the case with its tools in another order."""
    tools: list[Any] = case["tools"]
    if len(tools) < 2:
        return None
    order = list(range(len(tools)))
    source = random.Random(f"{seed}:{case['id']}")
    while order == sorted(order):
        source.shuffle(order)
    return {**case, "tools": [tools[i] for i in order]}


def add_distractors(case: Case, seed: int) -> Case | None:
    """Return the case with a few unrelated tools mixed in."""
    return _with_more_tools(case, seed, _NUM_DISTRACTORS)


def make_list_long(case: Case, seed: int) -> Case | None:
    """Return the case with so many unrelated tools that the right ones are few among them."""
    return _with_more_tools(case, seed, _NUM_LONG)


def rename_tools(case: Case, seed: int) -> Case | None:
    """Return the case with other tool names: the words of a name turned round, or one word added."""
    new = find_renaming("renamed_tools", case).tools
    changed = _without_state(case)
    for tool in changed["tools"]:
        _function(tool)["name"] = new[_function(tool)["name"]]
    for call in changed["expected"].get("calls") or ():
        call["name"] = new.get(call["name"], call["name"])
    for function in _history_functions(changed):
        function["name"] = new.get(function["name"], function["name"])
    return changed


def rename_parameters(case: Case, seed: int) -> Case | None:
    """Return the case with other parameter names at the top level of each tool."""
    new = find_renaming("renamed_parameters", case).parameters
    changed = _without_state(case)
    for tool in changed["tools"]:
        function = _function(tool)
        parameters: dict[str, Any] = function.get("parameters") or {}
        names = new[function["name"]]
        parameters["properties"] = {names[name]: schema for name, schema in _properties(function).items()}
        if "required" in parameters:
            parameters["required"] = [names.get(name, name) for name in parameters["required"]]
    if not any(new.values()):
        return None
    for call in changed["expected"].get("calls") or ():
        names = new.get(call["name"], {})
        call["args"] = {names.get(name, name): spec for name, spec in call["args"].items()}
    for function in _history_functions(changed):
        names = new.get(function["name"], {})
        arguments: dict[str, Any] = json.loads(function["arguments"] or "{}")
        function["arguments"] = json.dumps({names.get(key, key): value for key, value in arguments.items()})
    return changed


def find_renaming(name: str, case: Case) -> Renaming:
    """Return what a slice renames in a case; nothing for slices that rename nothing."""
    functions = [_function(tool) for tool in case["tools"]]
    if name == "renamed_tools":
        return Renaming(tools=turn_round(function["name"] for function in functions))
    if name == "renamed_parameters":
        return Renaming(parameters={f["name"]: turn_round(_properties(f)) for f in functions})
    return Renaming()


def reword_dates(case: Case, seed: int) -> Case | None:
    """Return the case with ISO dates of the last user message written out; both forms are right in an argument."""
    changed = copy.deepcopy(case)
    message = _last_user_message(changed)
    if message is None or not _ISO_DATE.search(message["content"]):
        return None
    written = {
        found[0]: spoken
        for found in _ISO_DATE.finditer(message["content"])
        if (spoken := _spoken_date(found[0]))
    }
    for iso, spoken in written.items():
        message["content"] = message["content"].replace(iso, spoken)
    for call in changed["expected"].get("calls") or ():
        for spec in call["args"].values():
            alternatives: list[Any] = spec.get("any_of") or []
            values = [
                str(materialise(Alternative.model_validate(alternative))) for alternative in alternatives
            ]
            more = [written[text] for text in values if text in written]
            spec["any_of"] = [*alternatives, *({"value": text} for text in more)]
    return changed if written else None


def change_system_prompt(case: Case, seed: int) -> Case | None:
    """Return the case with another system prompt; sentences of the old one that hold a number, such as the date, stay."""
    changed = copy.deepcopy(case)
    messages: list[dict[str, Any]] = changed["messages"]
    old = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    facts = [
        part for part in re.split(r"(?<=[.!?])\s+", old or "") if any(letter.isdigit() for letter in part)
    ]
    text = " ".join(
        ["You help the user. Use the functions when they fit the request; otherwise answer.", *facts]
    )
    rest = messages[1:] if old or (messages and messages[0]["role"] == "system") else messages
    return {**changed, "messages": [{"role": "system", "content": text}, *rest]}


def paraphrase(case: Case, seed: int) -> Case | None:
    """Return the case with its tag ``paraphrase`` as the last user message."""
    tags: dict[str, str] = case.get("tags") or {}
    wording = tags.get("paraphrase")
    changed = copy.deepcopy(case)
    message = _last_user_message(changed)
    if not wording or message is None:
        return None
    message["content"] = wording
    return changed


SLICES: dict[str, Callable[[Case, int], Case | None]] = {
    "paraphrase": paraphrase,
    "renamed_tools": rename_tools,
    "renamed_parameters": rename_parameters,
    "shuffled_tools": shuffle_tools,
    "distractor_tools": add_distractors,
    "long_tool_list": make_list_long,
    "other_dates": reword_dates,
    "other_system_prompt": change_system_prompt,
}
"""By name; `streaming` is not here because it changes how one asks, not what."""


def _with_more_tools(case: Case, seed: int, count: int) -> Case | None:
    if not case["tools"]:
        return None
    taken = {_function(tool)["name"] for tool in case["tools"]}
    foreign = [tool for tool in _foreign_tools() if _function(tool)["name"] not in taken]
    source = random.Random(f"{seed}:{case['id']}")
    tools = [*copy.deepcopy(case["tools"]), *source.sample(foreign, min(count, len(foreign)))]
    source.shuffle(tools)
    return {**case, "tools": tools}


def _foreign_tools() -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {
                "name": f"{verb}_{noun}",
                "description": f"{verb.replace('_', ' ').capitalize()} a {noun} of a {owner}.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        f"{noun}_name": {"type": "string", "description": f"Name of the {noun}."},
                        f"{owner}_code": {"type": "integer", "description": f"Code of the {owner}."},
                    },
                    "required": [f"{noun}_name"],
                },
            },
        }
        for noun, owner in _NOUNS
        for verb in _VERBS
    ]


def _without_state(case: Case) -> Case:
    return copy.deepcopy({key: value for key, value in case.items() if key not in _STATE_FIELDS})


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    return tool.get("function", tool)


def _properties(function: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = function.get("parameters") or {}
    return parameters.get("properties") or {}


def _history_functions(case: Case) -> list[dict[str, Any]]:
    return [call["function"] for message in case["messages"] for call in message.get("tool_calls") or ()]


def _last_user_message(case: Case) -> dict[str, Any] | None:
    found = [message for message in case["messages"] if message["role"] == "user" and message.get("content")]
    return found[-1] if found else None


def _spoken_date(iso: str) -> str | None:
    try:
        day = date.fromisoformat(iso)
    except ValueError:
        return None
    return f"{day:%B} {day.day}, {day.year}"
