"""Which files training reads, and what it says about the others."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import ToolCall
from pipeline.task_api.tools import load_tools
from pipeline.train.rows import common_tools, read_examples, with_system_prompt

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_row_brings_its_own_tools_and_fields_that_training_does_not_know(tmp_path: Path) -> None:
    path = write(tmp_path, {"messages": MESSAGES, "tools": [TOOL], "tags": ["a", 1], "group": 5})
    (example,) = read_examples(path)
    assert example.tools == (TOOL,)
    assert example.messages[1].tool_calls == (ToolCall(name="weather", arguments={"city": "Oslo"}, id="c1"),)
    assert example.name == "rows.jsonl line 1"


def test_tools_may_be_json_text_or_the_name_of_our_set_or_none(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"messages": MESSAGES, "tools": json.dumps([TOOL])},
        {"messages": MESSAGES, "tool_set": "task_api", "id": "x"},
        {"messages": MESSAGES},
    )
    inline, named, without = read_examples(path)
    assert (inline.tools, named.tools, without.tools) == ((TOOL,), tuple(load_tools()), ())
    assert named.name == "rows.jsonl line 2, id 'x'"


def test_tools_are_common_only_when_every_row_has_them(tmp_path: Path) -> None:
    other: dict[str, Any] = {"messages": MESSAGES}
    same = {**other, "tools": [TOOL]}
    assert common_tools(read_examples(write(tmp_path, same, same))) == (TOOL,)
    assert common_tools(read_examples(write(tmp_path, same, other))) is None


def test_a_line_separator_inside_a_text_does_not_end_the_row(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "a\u2028b\u0085c"}, {"role": "assistant", "content": "ok"}]
    }
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n\n")
    assert read_examples(path)[0].messages[0].content == "a\u2028b\u0085c"


@pytest.mark.parametrize(
    ("row", "message", "hint"),
    [
        ({"conversations": []}, "line 2 is in ShareGPT format", "llmops data convert"),
        ({"instruction": "x", "output": "y"}, "line 2 is in Alpaca format", "llmops data convert"),
        ({"messages": []}, "line 2 has no messages", "llmops data validate"),
        ({"messages": [{"role": "human", "content": "x"}]}, "line 2: ", "llmops data validate"),
        ({"messages": MESSAGES, "tool_set": "nobody's"}, "unknown tool set", "llmops data validate"),
        ({"messages": MESSAGES, "tools": [1]}, "not a list of objects", "llmops data validate"),
        ({"text": "x"}, "line 2 has no messages", "llmops data validate"),
        ([1], "line 2 is not a JSON object", "llmops data validate"),
    ],
)
def test_a_row_that_is_not_openai_messages_is_named_with_the_command_that_helps(
    tmp_path: Path, row: Any, message: str, hint: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_examples(write(tmp_path, {"messages": MESSAGES}, row))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("messages", "rejected", "words", "hint"),
    [
        (MESSAGES, {"role": "user", "content": "no"}, "line 2: `rejected` is .* role user", "role assistant"),
        (
            MESSAGES[:1],
            {"role": "assistant", "content": "no"},
            "line 2: the last message is .* user",
            "End `mess",
        ),
    ],
)
def test_a_pair_whose_two_turns_are_not_both_the_assistants_is_refused_with_its_line(
    tmp_path: Path, messages: list[dict[str, Any]], rejected: dict[str, Any], words: str, hint: str
) -> None:
    good = {"messages": MESSAGES, "rejected": {"role": "assistant", "content": "no"}}
    with pytest.raises(InvalidInputError, match=rf"rows\.jsonl {words}") as caught:
        read_examples(write(tmp_path, good, {"messages": messages, "rejected": rejected}))
    assert hint in caught.value.hint


def test_a_row_without_a_rejected_turn_may_end_with_the_user(tmp_path: Path) -> None:
    (example,) = read_examples(write(tmp_path, {"messages": [*MESSAGES, MESSAGES[0]]}))
    assert example.rejected is None


def test_an_empty_file_and_broken_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="no rows"):
        read_examples(path)
    path.write_text('{"messages": \n', encoding="utf-8")
    with pytest.raises(InvalidInputError, match="line 1 is not JSON"):
        read_examples(path)
    path.write_bytes(b'{"\xff": 1}\n')
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_examples(path)


def test_a_system_prompt_stands_before_the_rows_own_or_in_its_place(tmp_path: Path) -> None:
    own = {"role": "system", "content": "Today is 2026-03-11."}
    path = write(tmp_path, {"messages": [own, *MESSAGES]}, {"messages": MESSAGES})
    with_own, without = (with_system_prompt(row, "You are TaskMaster.") for row in read_examples(path))
    assert with_own.messages[0].content == "You are TaskMaster.\n\nToday is 2026-03-11."
    assert without.messages[0].content == "You are TaskMaster."
    assert [message.role for message in with_own.messages] == ["system", "user", "assistant"]
    assert [message.role for message in without.messages] == ["system", "user", "assistant"]
    assert with_system_prompt(read_examples(path)[0], "") == read_examples(path)[0]
