"""The closed types that the quick path decodes rows into, and the reading of their turns.

Every function returns what a row says only when order, calls and results are certainly right, else None.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from msgspec import UNSET, Raw, Struct, UnsetType, field

from pipeline.core.messages import Role
from pipeline.data.answers import turn_text
from pipeline.data.rules import has_text

if TYPE_CHECKING:
    from pipeline.data.backends.json_schema import ArgumentSchema

NO_RAW = Raw(b"")
UNCERTAIN = -(1 << 40)
"""Makes any count of quotation marks wrong."""
_SPEAKERS: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class Function(Struct, forbid_unknown_fields=True, gc=False):
    """The tool that is called."""

    name: str
    arguments: str


class Call(Struct, forbid_unknown_fields=True, gc=False):
    """A call in OpenAI's form."""

    id: str
    type: Literal["function"]
    function: Function


class Message(Struct, forbid_unknown_fields=True, gc=False):
    """A turn in OpenAI's form."""

    role: Role
    content: str | None
    tool_calls: list[Call] | UnsetType | None = UNSET
    tool_call_id: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET


class Turn(Struct, forbid_unknown_fields=True, gc=False):
    """A turn in ShareGPT's form."""

    speaker: Literal["system", "human", "gpt", "user", "assistant"] = field(name="from")
    value: str


class Row(Struct, gc=False):
    """A row of any format; it may have other fields too."""

    messages: list[Message] | None = None
    conversations: list[Turn] | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    system: str | None = None
    history: None = None
    tools: Raw = NO_RAW
    tool_set: str | None = None


class ChatRow(Struct, forbid_unknown_fields=True, gc=False):
    """ShareGPT turns and nothing else."""

    conversations: list[Turn]


Spoken = tuple[int, list[str], Sequence[int]]
"""What was read from a row: the quotation marks around the keys and texts of its turns; what each turn says, as
fingerprinted; the positions of turns with calls."""


def read_sharegpt(turns: list[Turn], system: str | None) -> Spoken | None:
    """Read ShareGPT turns."""
    speakers = [turn.speaker for turn in turns]
    texts = [turn.value for turn in turns]
    if system:
        speakers.insert(0, "system")
        texts.insert(0, system)
    if not do_alternate(tuple(speakers)):
        return None
    return 8 * len(turns) + 2 + count_field(system), texts, ()


def read_alpaca(row: Row) -> Spoken | None:
    """Read Alpaca's fields."""
    if row.instruction is None or row.output is None:
        return None
    question = f"{row.instruction}\n{row.input}" if row.input else row.instruction
    texts = [row.system, question, row.output] if row.system else [question, row.output]
    return 8 + count_field(row.input) + count_field(row.system), texts, ()


def count_field(text: str | None) -> int:
    """Return the quotation marks around a top-level field and its text."""
    return 0 if text is None else 4


def read_messages(
    messages: list[Message], schemas: "dict[str, ArgumentSchema]", *, may_end_open: bool
) -> Spoken | None:
    """Read OpenAI's messages."""
    shape: list[Role | int] = []
    texts: list[str] = []
    ids: list[str] = []
    answered: list[str | UnsetType | None] = []
    call_turns: list[int] = []
    num_delimiters = 2 + 8 * len(messages)
    for message in messages:
        content, step = message.content, message.role
        if message.tool_calls:
            call_turns.append(len(shape))
            step = len(message.tool_calls)
            num_delimiters += 18 * step + (0 if content is None else 2)
            content = _read_calls(message, message.tool_calls, schemas, ids)
        elif step == "tool":
            answered.append(message.tool_call_id)
            num_delimiters += 4
        if content is None:
            return None
        shape.append(step)
        texts.append(content)
    if not _is_right_order(tuple(shape)):
        return None
    if (ids or answered) and not _are_answered(ids, answered, may_end_open=may_end_open):
        return None
    return num_delimiters, texts, call_turns


def _read_calls(
    message: Message, calls: list[Call], schemas: "dict[str, ArgumentSchema]", ids: list[str]
) -> str | None:
    """Return what a turn with calls says, or None when a call is not certainly right."""
    content = message.content
    if message.role != "assistant" or (content is not None and not has_text(content)):
        return None
    read: list[tuple[str, str]] = []
    for call in calls:
        name, arguments = call.function.name, call.function.arguments
        schema = schemas.get(name)
        spelling = schema and schema.spell_certain(arguments)
        if not spelling:
            return None
        ids.append(call.id)
        read.append((name, spelling))
    return turn_text(content, read)


def _are_answered(ids: list[str], answered: list[str | UnsetType | None], *, may_end_open: bool) -> bool:
    """Tell whether the results come in the order of the calls, all ids being different."""
    num_answered = len(answered)
    if answered != ids[:num_answered] or (num_answered < len(ids) and not may_end_open):
        return False
    return "" not in ids and len(set(ids)) == len(ids)


def count_optional(message: Message) -> int:
    """Return the quotation marks of fields that most turns do not have, or a wrong number when one says something."""
    name, result_id = message.name, message.tool_call_id
    if message.role != "tool" and (isinstance(name, str) or isinstance(result_id, str)):
        return UNCERTAIN
    num_quotes = 2 if message.tool_calls is None or message.tool_calls == [] else 0
    if name is not UNSET:
        num_quotes += 2 if name is None else 4 + name.count('"')
    if result_id is None:
        num_quotes += 2
    return num_quotes


@lru_cache(maxsize=1024)
def do_alternate(speakers: tuple[str, ...]) -> bool:
    """Tell whether user and assistant take turns, an answer last, after at most one system turn."""
    roles = [_SPEAKERS[speaker] for speaker in speakers]
    rest = roles[1:] if roles[:1] == ["system"] else roles
    return bool(rest) and rest == ["user", "assistant"] * (len(rest) // 2)


@lru_cache(maxsize=1024)
def _is_right_order(shape: tuple[Role | int, ...]) -> bool:
    """Tell whether turns come in the right order; a turn with calls is the number of its calls."""
    previous: Role | int | None = None
    num_open = 0
    for step in shape:
        if step == "tool":
            num_open -= 1
        elif num_open or not _may_follow(step, previous):
            return False
        elif isinstance(step, int):
            num_open = step
        if num_open < 0:
            return False
        previous = step
    return previous == "assistant" or isinstance(previous, int)


def _may_follow(step: Role | int, previous: Role | int | None) -> bool:
    if step == "system":
        return previous is None
    return (step != "user") == (previous in {"user", "tool"})
