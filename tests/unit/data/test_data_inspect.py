"""What ``data inspect`` counts and shows."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.data.inspect_file import DataInspectRequest, DataInspectResult, inspect_file

MESSAGES: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "milk"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c",
                    "type": "function",
                    "function": {"name": "create_task", "arguments": '{"title": "m"}'},
                }
            ],
        },
    ],
    "tool_set": "task_api",
    "id": "1",
}
SHARE = {"conversations": [{"from": "human", "value": "\u00e4"}, {"from": "gpt", "value": "bb"}], "id": None}
ALPACA = {"instruction": "a", "input": "b", "output": "c", "source": "x"}


def inspect(folder: Path, *rows: Any, model: str = "") -> DataInspectResult:
    path = folder / "rows.jsonl"
    texts = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return inspect_file(DataInspectRequest(file=str(path), model=model))


def test_formats_turns_roles_tools_and_fields_are_counted(workspace: Path) -> None:
    found = inspect(workspace, MESSAGES, "", SHARE, SHARE, ALPACA)
    assert (found.format, found.rows_by_format) == ("mixed", {"sharegpt": 2, "messages": 1, "alpaca": 1})
    assert (found.num_rows, found.num_invalid, found.issues) == (4, 0, [])
    assert (found.num_turns, found.turns_by_role) == (9, {"user": 4, "assistant": 4, "system": 1})
    assert found.rows_by_num_turns == {2: 3, 3: 1}
    assert (found.num_rows_with_tools, found.calls_by_tool) == (1, {"create_task": 1})
    assert found.other_fields == {"tool_set": 1, "id": 1, "source": 1}
    assert "mixes formats" in found.warnings[0]


def test_lengths_are_bytes_of_what_is_said_without_a_tokenizer(workspace: Path) -> None:
    lengths = inspect(workspace, SHARE, ALPACA, {**ALPACA, "output": "c" * 96}).lengths
    assert lengths is not None
    # a-umlaut is 2 bytes, "bb" 2, one line break between turns: 5; "a\nb" and "c": 5; "a\nb" and 96 c: 100
    assert (lengths.unit, lengths.total, lengths.shortest, lengths.median, lengths.longest) == (
        "bytes",
        110,
        5,
        5,
        100,
    )
    assert [(b.longest, b.num_rows) for b in lengths.histogram] == [(8, 2), (128, 1)]


def test_lengths_are_tokens_of_the_named_model(workspace: Path) -> None:
    words = {"[UNK]": 0, "a": 1, "b": 2, "c": 3}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "model": model,
        "pre_tokenizer": {"type": "Whitespace"},
        "added_tokens": [],
    }
    folder = workspace / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    lengths = inspect(workspace, ALPACA, {**ALPACA, "output": "c a b c"}, model="tiny").lengths
    assert lengths is not None
    assert (lengths.unit, lengths.tokenizer, lengths.shortest, lengths.longest) == ("tokens", "tiny", 3, 6)


def test_issues_are_counted_by_kind_with_the_first_line(workspace: Path) -> None:
    found = inspect(workspace, ALPACA, "{", {"a": 1}, "[", {**ALPACA, "output": " "})
    assert [(issue.code, issue.num_rows, issue.first_line) for issue in found.issues] == [
        ("invalid_json", 2, 2),
        ("empty_content", 1, 5),
        ("unknown_format", 1, 3),
    ]
    assert (found.format, found.num_rows, found.num_invalid) == ("alpaca", 5, 4)


def test_samples_are_few_short_without_control_characters_and_of_every_format(workspace: Path) -> None:
    nasty = {**ALPACA, "instruction": "\u202eevil\u200b\u2066" + "x" * 1000}
    found = inspect(workspace, nasty, *[ALPACA] * 10, SHARE, {"a": 1})
    assert len(found.untrusted_samples) == 5
    assert max(map(len, found.untrusted_samples)) == 300
    assert found.untrusted_samples[0].startswith('{"instruction": "evilxxx')
    assert any("conversations" in sample for sample in found.untrusted_samples)
    assert '{"a": 1}' in found.untrusted_samples


def test_a_file_without_a_readable_row_has_no_format_and_no_lengths(workspace: Path) -> None:
    found = inspect(workspace, "[]", "5")
    assert (found.format, found.lengths, found.untrusted_samples, found.num_invalid) == (
        "unknown",
        None,
        [],
        2,
    )


def test_an_empty_file_and_a_model_without_a_tokenizer_are_refused(workspace: Path) -> None:
    with pytest.raises(InvalidInputError):
        inspect(workspace, "")
    (workspace / "models" / "none").mkdir(parents=True)
    with pytest.raises(InvalidInputError):
        inspect(workspace, ALPACA, model="none")
