"""Conversion between formats: what goes in comes out, and what cannot be said is an error with its row."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import InvalidInputError
from pipeline.data.conversation import Conversation, Format, RowError, parse_conversation
from pipeline.data.convert import DATA_CONVERT, convert_row

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
CALL: dict[str, Any] = {
    "id": "a",
    "type": "function",
    "function": {"name": "find", "arguments": '{"q": "x"}'},
}
TOOL_ROW: dict[str, Any] = {
    "id": "r1",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "look", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "{}", "tool_call_id": "a", "name": "find"},
        {"role": "assistant", "content": "Nothing.", "weight": 0},
    ],
    "tools": [TOOL],
    "tags": {"intent": "search"},
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
extras = st.dictionaries(st.sampled_from(["id", "group", "tags", "source", "n"]), values)


@st.composite
def message_rows(draw: st.DrawFn) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(texts)})
    for turn in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(texts)})
        ids = [f"c{turn}-{i}" for i in range(draw(st.integers(0, 2)))]
        if ids:
            calls = [
                {
                    "id": i,
                    "type": "function",
                    "function": {"name": "find", "arguments": json.dumps({"q": draw(values)})},
                }
                for i in ids
            ]
            messages.append({"role": "assistant", "content": draw(st.none() | texts), "tool_calls": calls})
            messages += [{"role": "tool", "content": draw(texts), "tool_call_id": i} for i in ids]
        messages.append({"role": "assistant", "content": draw(texts)})
    tools = {"tools": [TOOL]} if draw(st.booleans()) else {}
    return {**draw(extras), "messages": messages, **tools}


@st.composite
def alpaca_rows(draw: st.DrawFn) -> dict[str, Any]:
    row = {"instruction": draw(texts), "input": draw(texts), "output": draw(texts), **draw(extras)}
    if draw(st.booleans()):
        row["system"] = draw(texts.filter(bool))
    if draw(st.booleans()):
        row["history"] = draw(st.lists(st.lists(texts, min_size=2, max_size=2), min_size=1, max_size=2))
    return row


def same(one: Conversation, other: Conversation) -> bool:
    return (one.messages, one.tools, one.extra) == (other.messages, other.tools, other.extra)


@given(message_rows())
def test_messages_survive_sharegpt_and_come_back_as_the_same_row(row: dict[str, Any]) -> None:
    there = convert_row(row, "sharegpt")
    assert same(parse_conversation(there), parse_conversation(row))
    back = convert_row(there, "messages")
    assert same(parse_conversation(back), parse_conversation(row))
    assert convert_row(back, "messages") == back


@given(alpaca_rows(), st.sampled_from(["messages", "sharegpt"]))
def test_alpaca_comes_back_with_its_input_where_it_was(row: dict[str, Any], through: Format) -> None:
    there = convert_row(row, through)
    assert parse_conversation(there).messages == parse_conversation(row).messages
    assert convert_row(there, "alpaca") == row


@given(message_rows())
def test_alpaca_takes_a_row_whole_or_refuses_it(row: dict[str, Any]) -> None:
    has_tools = any(m["role"] == "tool" for m in row["messages"])
    if has_tools or (row["messages"][0]["content"] == "" and row["messages"][0]["role"] == "system"):
        with pytest.raises(RowError, match=r"Alpaca") as caught:
            convert_row(row, "alpaca")
        assert caught.value.code == "not_expressible"
    else:
        assert same(parse_conversation(convert_row(row, "alpaca")), parse_conversation(row))


def test_a_row_with_calls_ids_and_fields_of_turns_comes_back_byte_for_byte() -> None:
    there = convert_row(TOOL_ROW, "sharegpt")
    assert [turn["from"] for turn in there["conversations"]] == ["system", "human", "gpt", "tool", "gpt"]
    assert there["conversations"][3] == {"from": "tool", "value": "{}", "tool_call_id": "a", "name": "find"}
    assert json.dumps(convert_row(there, "messages")) == json.dumps(TOOL_ROW)


def test_sharegpt_of_other_tools_becomes_openai_messages() -> None:
    row = {
        "system": "Be brief.",
        "tools": json.dumps([{"name": "find", "parameters": {"type": "object"}}]),
        "conversations": [
            {"from": "human", "value": "look"},
            {"from": "function_call", "value": '{"name": "find", "arguments": {"q": "x"}}'},
            {"from": "observation", "value": "{}"},
            {"from": "gpt", "value": "Nothing.", "loss": False},
        ],
    }
    assert convert_row(row, "messages") == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "call_1"}]},
            {"role": "tool", "content": "{}", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "Nothing.", "loss": False},
        ],
        "tools": [TOOL],
    }


@pytest.mark.parametrize(
    ("row", "target", "message"),
    [
        (TOOL_ROW, "alpaca", "no tool calls"),
        ({"messages": [{"role": "user", "content": "a"}]}, "alpaca", "in pairs"),
        ({**TOOL_ROW, "system": "mine"}, "sharegpt", "use the field 'system'"),
        (
            {"instruction": "a", "input": "b", "output": "c", "alpaca_input": "d"},
            "messages",
            "already has a field",
        ),
        (
            {"instruction": "a", "input": "b", "output": "c", "alpaca_input": "d"},
            "alpaca",
            "already has a field",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "a", "value": "b"},
                    {"role": "assistant", "content": "c"},
                ]
            },
            "sharegpt",
            "another meaning",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "a", "name": "b"},
                    {"role": "assistant", "content": "c"},
                ]
            },
            "alpaca",
            "the turn's field",
        ),
    ],
)
def test_what_a_format_cannot_say_is_refused(row: dict[str, Any], target: Format, message: str) -> None:
    with pytest.raises(RowError, match=message):
        convert_row(row, target)


CALLED = [
    {"role": "user", "content": "a"},
    {"role": "tool", "content": "{}"},
    {"role": "assistant", "content": "b"},
]


@pytest.mark.parametrize(
    "call",
    [
        {**CALL, "id": "c1", "index": 7},
        {**CALL, "id": "c1", "function": {**CALL["function"], "strict": True}},
    ],
)
@pytest.mark.parametrize("field", ["messages", "conversations"])
@pytest.mark.parametrize("target", ["messages", "sharegpt"])
def test_fields_of_calls_are_refused_not_dropped(call: dict[str, Any], field: str, target: Format) -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    with pytest.raises(RowError, match="a call has no place") as caught:
        convert_row({field: [CALLED[0], turn, *CALLED[1:]]}, target)
    assert caught.value.code == "not_expressible"


CALL_TURNS: list[dict[str, Any]] = [
    {"value": '{"name": "f", "arguments": {}, "thought": "hm"}'},
    {"value": '[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}, "type": "x"}]'},
    {"value": '{"name": "f", "arguments": {}}', "tool_calls": [{"name": "g", "arguments": {}}]},
]


@pytest.mark.parametrize("turn", CALL_TURNS)
def test_thoughts_beside_a_call_in_a_text_are_refused_not_dropped(turn: dict[str, Any]) -> None:
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", **turn}]}
    parse_conversation(row)
    with pytest.raises(RowError) as caught:
        convert_row(row, "messages")
    assert caught.value.code == "not_expressible"


def test_null_fields_of_calls_count_as_absent() -> None:
    call = {**CALL, "id": "c1", "index": None, "function": {**CALL["function"], "strict": None}}
    turns = [CALLED[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    (made,) = convert_row({"messages": turns}, "messages")["messages"][1]["tool_calls"]
    assert made == {**CALL, "id": "c1"}


def test_one_row_that_cannot_be_converted_leaves_no_file_and_is_named(workspace: Path) -> None:
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    lines = [json.dumps(good), "", json.dumps(TOOL_ROW), "{"]
    (workspace / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    before = (workspace / "in.jsonl").read_bytes()
    with pytest.raises(InvalidInputError, match="First: line 3: turn 2") as caught:
        DATA_CONVERT.call({"data": "in.jsonl", "to": "alpaca", "out": "out.jsonl"})
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    assert [problem.split(":")[0] for problem in problems] == ["line 3", "line 4"]
    assert not (workspace / "out.jsonl").exists()
    assert (workspace / "in.jsonl").read_bytes() == before


def test_a_mixed_file_becomes_one_format_and_the_input_is_never_the_output(workspace: Path) -> None:
    rows = [TOOL_ROW, convert_row(TOOL_ROW, "sharegpt"), {"instruction": "a", "output": "b"}]
    (workspace / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = DATA_CONVERT.call({"data": "in.jsonl", "to": "messages", "out": "out.jsonl"})
    assert result.formats_read == {"messages": 1, "sharegpt": 1, "alpaca": 1}
    written = [
        json.loads(line) for line in (workspace / "out.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert written[0] == written[1] == TOOL_ROW
    with pytest.raises(InvalidInputError, match="never changed"):
        DATA_CONVERT.call({"data": "in.jsonl", "to": "messages", "out": "in.jsonl"})
