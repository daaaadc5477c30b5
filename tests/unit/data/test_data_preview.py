"""The preview shows what training trains on: token for token, with every row that training would refuse."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.core.errors import InvalidInputError
from pipeline.data.convert import convert_row
from pipeline.data.preview import DATA_PREVIEW, DataPreviewResult
from pipeline.render import render_result
from pipeline.task_api.tools import load_tools
from pipeline.train.rows import read_examples

TEMPLATE = Path(__file__).parents[3] / "pipeline/models/tool_chat.jinja"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
TOOL_ROW: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "How is Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It is sunny."},
    ],
    "tools": [TOOL],
}
SMALL_TALK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, what can I do?"}]
}
HUMAN: dict[str, Any] = {
    "messages": [
        {"role": "human", "content": "Hi"},
        {"role": "assistant", "content": "Hello, what can I do?"},
    ]
}


@pytest.fixture
def model(workspace: Path, byte_tokenizer: Callable[[str], Any]) -> Path:
    """models/bytes: tokenizer and our template, no weights."""
    folder = workspace / "models" / "bytes"
    byte_tokenizer(TEMPLATE.read_text(encoding="utf-8")).save_pretrained(folder)
    return folder


def write(workspace: Path, *rows: dict[str, Any]) -> None:
    (workspace / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def preview(**fields: Any) -> DataPreviewResult:
    return DATA_PREVIEW.call({"data": "rows.jsonl", "model": "bytes", "max_length": 4096, **fields})


def test_the_shown_tokens_and_labels_are_those_that_training_gets(model: Path, workspace: Path) -> None:
    from pipeline.rendering.backends.chat_text import ChatEncoder
    from pipeline.train.backends.encode import encode_rows

    write(workspace, TOOL_ROW, {**SMALL_TALK, "tool_set": "task_api"}, SMALL_TALK)
    result = preview()
    tokenizer = ChatEncoder.from_folder(model).tokenizer
    trained = encode_rows(read_examples(workspace / "rows.jsonl"), tokenizer, 4096)
    assert [(row.token_ids, row.labels) for row in result.rows] == [
        (row.token_ids, row.labels) for row in trained.rows
    ]
    assert (result.num_tokens, result.num_trained_tokens) == (trained.num_tokens, trained.num_trained_tokens)
    assert not result.is_negative()


def test_each_row_shows_its_own_tools_and_marks_exactly_the_assistants_words(
    model: Path, workspace: Path
) -> None:
    write(workspace, TOOL_ROW, {**SMALL_TALK, "tool_set": "task_api"})
    first, second = preview().rows
    assert "- weather(city?: string)" in first.untrusted_text
    assert "create_task" not in first.untrusted_text
    assert all(tool["function"]["name"] in second.untrusted_text for tool in load_tools())
    marked = [first.untrusted_text[start:end] for start, end in first.trained_ranges]
    assert marked == [
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call><|im_end|>',
        "It is sunny.<|im_end|>",
    ]


def test_the_classic_is_named_a_turn_of_role_human_is_broken_and_would_be_dropped(
    model: Path, workspace: Path
) -> None:
    write(workspace, SMALL_TALK, HUMAN)
    result = preview(num_rows=1)
    assert [(p.line, p.turn, p.kind) for p in result.problems] == [
        (2, None, "unknown_role"),
        (2, 0, "dropped"),
    ]
    assert (result.num_rows, result.num_refused, result.is_negative()) == (2, 1, True)
    assert result.next_step.startswith("llmops data validate")


def test_rows_that_training_leaves_out_or_learns_nothing_from_are_counted(
    model: Path, workspace: Path
) -> None:
    question = {"messages": [{"role": "user", "content": "Is anybody there?"}]}
    long = {"messages": [*SMALL_TALK["messages"], {"role": "user", "content": "x" * 300}]}
    write(workspace, SMALL_TALK, question, long)
    result = preview(max_length=200)
    assert (result.num_untrained, result.num_too_long, result.num_refused) == (1, 1, 0)
    assert [row.is_too_long for row in result.rows] == [False, False, True]
    assert "left out, not cut" in result.warnings[0]


def test_a_file_with_nothing_to_train_on_is_a_no(model: Path, workspace: Path) -> None:
    write(workspace, {"messages": [{"role": "user", "content": "Is anybody there?"}]})
    result = preview()
    assert result.is_negative()
    assert result.warnings == ["no token would be trained on"]


def test_lines_are_chosen_by_their_number_in_the_file(model: Path, workspace: Path) -> None:
    lines = [json.dumps(SMALL_TALK), "", json.dumps(TOOL_ROW), "{broken"]
    (workspace / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    result = preview(lines=[3, 4], check_all=False)
    assert [(row.line, bool(row.untrusted_text), [p.kind for p in row.problems]) for row in result.rows] == [
        (3, True, []),
        (4, False, ["invalid_json"]),
    ]
    with pytest.raises(InvalidInputError, match="no row on line 2"):
        preview(lines=[2])


def test_other_formats_are_shown_with_the_command_that_makes_them_trainable(
    model: Path, workspace: Path
) -> None:
    write(workspace, convert_row(TOOL_ROW, "sharegpt"))
    result = preview()
    write(workspace, TOOL_ROW)
    assert result.rows == preview().rows
    assert result.next_step.startswith("llmops data convert rows.jsonl --to messages")


def test_the_page_and_the_terminal_show_markup_and_hidden_characters_as_text(
    model: Path, workspace: Path
) -> None:
    text = "<script>alert(1)</script> \u202egnp.exe \x1b[31m"
    write(workspace, {"messages": [{"role": "user", "content": text}, *SMALL_TALK["messages"][1:]]})
    result = preview()
    page = (workspace / result.page).read_text(encoding="utf-8")
    console = Console(record=True, width=200, force_terminal=True, file=StringIO())
    render_result(result, console)
    screen = console.export_text()
    assert "<script>" not in page
    for shown in (page, screen):
        assert "\u202e" not in shown
        assert "\x1b" not in shown
    assert "\\u202egnp.exe" in screen
    assert "Hello, what can I do?" in screen
    assert text in result.rows[0].untrusted_text


def test_long_rows_are_bounded_in_the_result(model: Path, workspace: Path) -> None:
    write(workspace, {"messages": [{"role": "user", "content": "x" * 30_000}, *SMALL_TALK["messages"][1:]]})
    (row,) = preview(max_length=100_000).rows
    assert (len(row.untrusted_text), len(row.token_ids), len(row.labels)) == (20_000, 4096, 4096)
    assert row.trained_ranges == []
    assert row.num_tokens > 30_000


def test_an_empty_file_and_a_folder_without_a_tokenizer_are_refused(model: Path, workspace: Path) -> None:
    (workspace / "rows.jsonl").write_text("\n\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="no rows"):
        preview()
    (workspace / "models" / "nothing").mkdir()
    with pytest.raises(InvalidInputError, match="no tokenizer"):
        preview(model="nothing")
