"""Messages keep their meaning on the way to the OpenAI wire form and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.messages import Message, ToolCall

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
calls = st.builds(
    ToolCall,
    name=st.text(min_size=1),
    arguments=st.dictionaries(st.text(), json_values, max_size=4),
    id=st.text(min_size=1),
)
messages = (
    st.builds(Message, role=st.sampled_from(["system", "user"]), content=st.text())
    | st.builds(Message, role=st.just("tool"), content=st.text(), tool_call_id=st.text(min_size=1))
    | st.builds(
        Message,
        role=st.just("assistant"),
        content=st.none() | st.text(),
        tool_calls=st.lists(calls, min_size=1, max_size=3).map(tuple),
    )
)


@given(messages)
def test_a_message_survives_the_wire_as_json(message: Message) -> None:
    wire = json.loads(json.dumps(message.to_openai()))
    assert Message.from_openai(wire) == message


@given(messages)
def test_a_message_survives_storage(message: Message) -> None:
    assert Message.model_validate_json(message.model_dump_json()) == message


@given(calls)
def test_arguments_are_a_json_string_on_the_wire(call: ToolCall) -> None:
    arguments = call.to_openai()["function"]["arguments"]
    assert isinstance(arguments, str)
    assert json.loads(arguments) == call.arguments


def test_calls_without_ids_get_distinct_ones_on_the_wire() -> None:
    call = ToolCall(name="list_tasks", arguments={})
    wire = Message(role="assistant", tool_calls=(call, call)).to_openai()
    assert [item["id"] for item in wire["tool_calls"]] == ["call_0", "call_1"]


@pytest.mark.parametrize(
    "raw",
    [
        {"function": {"name": "x", "arguments": "[1]"}},
        {"function": {"name": "x", "arguments": "{"}},
        {"function": {"arguments": "{}"}},
        {"function": {"name": 3, "arguments": {}}},
    ],
)
def test_a_malformed_call_is_a_value_error(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        ToolCall.from_openai(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {"role": "assistant", "content": None},
        {"role": "user", "content": None},
        {
            "role": "user",
            "content": "x",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "narrator", "content": "x"},
        {"content": "x"},
    ],
)
def test_a_turn_with_a_wrong_shape_is_a_value_error(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Message.from_openai(raw)
