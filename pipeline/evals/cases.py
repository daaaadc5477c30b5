"""The neutral evaluation case: what is asked, with which tools, and every answer that counts as right.

A case file is JSON Lines. Expected arguments are lists of alternatives, so that "NYC" and "New York" may both be
right; an alternative is a value, an object of such lists, or a list of alternatives, element by element. Does not
judge answers (:mod:`pipeline.evals.tool_calls`) and does not read other formats (:mod:`pipeline.evals.importers`).
"""

import json
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_jsonl
from pipeline.core.messages import Tool, ToolCall
from pipeline.core.operation import Part
from pipeline.task_api.tools import load_tools

ExpectedKind = Literal["calls", "none", "ask", "any_call"]
"""``calls``: these calls; ``none``: text only; ``ask``: a question back; ``any_call``: some call, whichever."""
CallOrder = Literal["any", "strict", "partial"]
"""``any``: a set; ``strict``: this sequence; ``partial``: this sequence, other calls may stand between."""

TASK_API = "task_api"
_MATCH = re.compile(
    r"exact|casefold|text|date|datetime|number(?:\(\d*\.?\d+(?:e-?\d+)?\))?|set|list|regex|ignore"
)
_HINT = (
    "A line is one case object; docs/guides/evaluate.md shows the format, `llmops evals import` writes it."
)
_MAX_SHOWN = 5
_PARAMETER_KEYS = ("parameters", "inputSchema", "input_schema")


class Alternative(Part):
    """One right value; exactly one of the three fields is given."""

    value: Any = None
    """The value itself; a bare JSON scalar stands for this form."""
    object: dict[str, "Slot"] | None = None
    """An object, each key with its own alternatives."""
    list: tuple["Alternative", ...] | None = None
    """A list, each element with its own alternative."""

    @model_validator(mode="before")
    @classmethod
    def _read_scalar(cls, raw: Any) -> Any:
        is_written_out = isinstance(raw, dict | Alternative)
        return cast("Any", raw) if is_written_out else {"value": raw}

    @model_validator(mode="after")
    def _check_one_form(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("an alternative is one of {value}, {object} and {list}")
        if "object" in self.model_fields_set and self.object is None:
            raise ValueError("object must be an object")
        if "list" in self.model_fields_set and self.list is None:
            raise ValueError("list must be a list")
        return self


class Slot(Part):
    """What one argument may be."""

    any_of: tuple[Alternative, ...]
    """Right values; empty when the argument may only be left out (else the lint reports the case)."""
    match: str | None = None
    """How values are compared, such as ``casefold`` or ``number(0.01)``; default follows from the schema."""
    optional: bool = False
    """May be left out."""

    @field_validator("match")
    @classmethod
    def _check_match(cls, match: str | None) -> str | None:
        if match is not None and not _MATCH.fullmatch(match):
            raise ValueError(
                "match is exact, casefold, text, date, datetime, number, number(TOLERANCE), set, list, regex or ignore"
            )
        return match


class ExpectedCall(Part):
    """One call that is wanted."""

    name: str = Field(min_length=1)
    """Tool name."""
    args: dict[str, Slot] = {}
    """By parameter; others must be left out."""


class Expected(Part):
    """The right behaviour."""

    kind: ExpectedKind
    """Which kind of answer."""
    order: CallOrder = "any"
    """Whether the sequence of calls counts."""
    calls: tuple[ExpectedCall, ...] = ()
    """Calls wanted; only with ``calls``."""

    @model_validator(mode="after")
    def _check_calls(self) -> Self:
        if self.kind == "calls" and not self.calls:
            raise ValueError("kind 'calls' needs at least one call")
        if self.kind != "calls" and self.calls:
            raise ValueError(f"kind {self.kind!r} takes no calls")
        return self


class Case(Part):
    """One evaluation case."""

    id: str = Field(min_length=1)
    """Unique inside its file."""
    tools: tuple[Tool, ...] = ()
    """Tool definitions in OpenAI form, or bare ``{name, description, parameters}``, or as MCP lists them."""
    tool_set: str | None = None
    """Name of a tool set that comes with the program (``task_api``), instead of ``tools``."""
    messages: tuple[dict[str, Any], ...]
    """The conversation up to the answer, in OpenAI form."""
    expected: Expected
    """The right behaviour."""
    initial_state: Any = None
    """State of the tool set before the first message."""
    expected_state: Any = None
    """State after the right calls; or give ``oracle_calls``."""
    oracle_calls: tuple[ToolCall, ...] | None = None
    """Calls whose execution leads to the right state."""
    must_say: tuple[str, ...] = ()
    """Texts that the reply must contain."""
    must_not_say: tuple[str, ...] = ()
    """Texts that the reply must not contain."""
    group: str = ""
    """Formulation or template; cases of one group are not independent. Default: the id."""
    tags: dict[str, Any] = {}
    """Slices for reports."""
    today: str | None = None
    """ISO date of the tool set's clock."""

    @field_validator("tags", mode="before")
    @classmethod
    def _read_tag_list(cls, raw: Any) -> Any:
        return dict.fromkeys(map(str, cast("list[Any]", raw)), "yes") if isinstance(raw, list) else raw

    @field_validator("messages")
    @classmethod
    def _check_roles(cls, messages: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for position, message in enumerate(messages):
            if not isinstance(message.get("role"), str):
                raise ValueError(f"message {position} has no role")
        return messages

    @model_validator(mode="after")
    def _check_tools(self) -> Self:
        if self.tools and self.tool_set:
            raise ValueError("give either tools or tool_set")
        if self.tool_set not in {None, TASK_API}:
            raise ValueError(
                f"unknown tool_set {self.tool_set!r}; there is {TASK_API!r}; others: write their tools"
            )
        assert self.openai_tools is not None  # a definition that cannot be read is refused here, by line
        return self

    @cached_property
    def openai_tools(self) -> tuple[Tool, ...]:
        """The tools in OpenAI form, whatever form the case has."""
        source = load_tools() if self.tool_set == TASK_API else self.tools
        return tuple(to_openai_tool(tool) for tool in source)

    @property
    def cluster(self) -> str:
        """What is resampled together: the group, or the case alone."""
        return self.group or self.id

    def user_text(self) -> str:
        """Return the last user message."""
        texts = [text_of(m) for m in self.messages if m["role"] == "user"]
        return texts[-1] if texts else ""

    def to_row(self) -> dict[str, Any]:
        """Return the JSON Lines form, without what is not set."""
        return self.model_dump(mode="json", exclude_unset=True)


def text_of(message: dict[str, Any]) -> str:
    """Return the text of a message whose content is a text, a list of parts, or null."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            cast("dict[str, Any]", part) for part in cast("list[Any]", content) if isinstance(part, dict)
        ]
        return " ".join(str(part.get("text", "")) for part in parts)
    return content if isinstance(content, str) else ""


def to_openai_tool(raw: Tool) -> Tool:
    """Return a tool definition in OpenAI form.

    Raises:
        ValueError: If it has no name, or its parameters are no object.
    """
    body = raw.get("function", raw)
    if not isinstance(body, dict):
        raise ValueError("a tool has no name")
    fields = cast("dict[str, Any]", body)
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a tool has no name")
    empty: dict[str, Any] = {"type": "object", "properties": {}}
    found = (fields[key] for key in _PARAMETER_KEYS if fields.get(key) is not None)
    parameters: Any = next(found, empty)
    if not isinstance(parameters, dict):
        raise ValueError(f"the parameters of tool {name!r} are no object")
    function: dict[str, Any] = {
        "name": name,
        "description": fields.get("description") or "",
        "parameters": parameters,
    }
    return {"type": "function", "function": function}


def read_case_file(path: Path) -> list[Case]:
    """Read a file of neutral cases.

    Raises:
        InvalidInputError: If it is missing or empty, lines are no cases, or an id occurs twice; lines are named.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read cases from {path}: {error}", hint=_HINT) from error
    cases: dict[str, Case] = {}
    first_line: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            case = Case.model_validate(json.loads(line))
        except (ValueError, RecursionError) as error:
            problems.append(f"{path.name}:{number}: {describe_error(error)}")
            continue
        if case.id in cases:
            problems.append(
                f"{path.name}:{number}: id {case.id!r} occurs twice, first in line {first_line[case.id]}"
            )
        cases[case.id], first_line[case.id] = case, number
    if problems:
        shown = "; ".join(problems[:_MAX_SHOWN])
        more = f"; and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
        raise InvalidInputError(shown + more, hint=_HINT, problems=problems[:100])
    if not cases:
        raise InvalidInputError(f"{path} holds no case", hint=_HINT)
    return list(cases.values())


def write_case_file(path: Path, cases: Iterable[Case]) -> None:
    """Write cases as JSON Lines."""
    write_jsonl(path, (case.to_row() for case in cases))


def describe_error(error: Exception) -> str:
    """Return what is wrong with a line in one sentence, with the path inside the line."""
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"])) or "case"
        return f"{place}: {problem['msg'].removeprefix('Value error, ')}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (column {error.colno})"
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
