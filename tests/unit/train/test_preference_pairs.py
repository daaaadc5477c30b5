"""Preference pairs: one thing wrong in the rejected turn, a needless call where none is due, the file's own where given."""

import json
from typing import Any

import pytest

from pipeline.core.messages import Message, ToolCall
from pipeline.task_api.tools import load_tools
from pipeline.train.job import TrainExample
from pipeline.train.pairs import make_pairs

TOOLS = tuple(load_tools())


def _example(*messages: Message, tools: tuple[dict[str, Any], ...] = TOOLS) -> TrainExample:
    return TrainExample(name="row", messages=messages, tools=tools)


CALL = ToolCall(
    name="create_task", arguments={"title": "call Priya about the lease", "due": "Friday"}, id="c1"
)
ASK = Message(role="user", content="Please remind me to call Priya about the lease on Friday")
CREATE = _example(ASK, Message(role="assistant", content=None, tool_calls=(CALL,)))
CHAT = _example(
    Message(role="user", content="Thank you!"), Message(role="assistant", content="You are welcome.")
)


@pytest.mark.parametrize("seed", range(40))
def test_a_rejected_call_differs_from_the_right_one_in_name_or_one_argument(seed: int) -> None:
    (pair,) = make_pairs([CREATE], seed)
    assert pair.messages == CREATE.messages
    assert pair.rejected is not None
    (wrong,) = pair.rejected.tool_calls
    keys = {*wrong.arguments, *CALL.arguments}
    changes = [key for key in keys if wrong.arguments.get(key) != CALL.arguments.get(key)]
    assert (wrong.name != CALL.name) + len(changes) == 1


def test_all_kinds_of_breaks_occur() -> None:
    wrong = [pair.rejected.tool_calls[0] for pair in make_pairs([CREATE] * 200, 0) if pair.rejected]
    assert any(call.name != "create_task" for call in wrong)
    assert any(len(call.arguments) < 2 for call in wrong)
    assert any(len(call.arguments) > 2 for call in wrong)
    assert any(
        call.arguments.keys() == CALL.arguments.keys() and call.arguments != CALL.arguments for call in wrong
    )


def test_where_no_call_is_due_the_rejected_turn_makes_one_with_what_its_tool_requires() -> None:
    names = {tool["function"]["name"]: tool["function"]["parameters"].get("required", []) for tool in TOOLS}
    for pair in make_pairs([CHAT] * 30, 0):
        assert pair.rejected is not None
        (call,) = pair.rejected.tool_calls
        assert set(names[call.name]) == set(call.arguments)


def test_the_conversation_ends_with_the_turn_in_question() -> None:
    long = _example(*CREATE.messages, Message(role="tool", content="{}", tool_call_id="c1"), *CHAT.messages)
    ends = {len(pair.messages) for pair in make_pairs([long] * 50, 0)}
    assert ends == {2, 5}


def test_a_rejected_message_of_the_file_is_taken_as_it_is() -> None:
    judged = TrainExample(
        name="row", messages=CHAT.messages, tools=(), rejected=Message(role="assistant", content="Go away.")
    )
    assert make_pairs([judged], 0) == [judged]


def test_rows_without_tools_have_nothing_to_break() -> None:
    assert make_pairs([_example(*CHAT.messages, tools=())], 0) == []


def test_the_same_seed_makes_the_same_pairs() -> None:
    assert make_pairs([CREATE, CHAT] * 5, 3) == make_pairs([CREATE, CHAT] * 5, 3)
    assert json.dumps(CREATE.tools)  # plain data
