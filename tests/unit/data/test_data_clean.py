"""``data clean``: which rows go and why, what stays untouched, and what is on disk after a failure."""

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.core.errors import InvalidInputError
from pipeline.core.paths import confined_to
from pipeline.data.clean import DATA_CLEAN, DataCleanResult
from pipeline.data.clean_rows import normalise_row, tidy

ANIMALS = [
    "ant",
    "bee",
    "cat",
    "dog",
    "elk",
    "fox",
    "gnu",
    "hen",
    "ibex",
    "jay",
    "kite",
    "lynx",
    "mole",
    "newt",
    "owl",
    "pig",
    "quail",
    "ram",
    "seal",
    "toad",
]
TOOL = {"type": "function", "function": {"name": "delete", "parameters": {"type": "object"}}}


def chat(user: str, assistant: str, **fields: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": turns, **fields}


def call(user: str, task: int, reply: str = "It is gone now, as you wished.") -> dict[str, Any]:
    function = {"name": "delete", "arguments": json.dumps({"task": task})}
    turns = [
        {"role": "user", "content": user},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
        {"role": "tool", "content": '{"ok": true}', "tool_call_id": "c"},
        {"role": "assistant", "content": reply},
    ]
    return {"messages": turns, "tools": [TOOL]}


def text(seed: int, num_words: int = 24) -> str:
    return " ".join(f"{ANIMALS[(seed * 7 + i * i) % 20]}{seed + i}" for i in range(num_words))


def write(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def clean(path: Path, **fields: Any) -> DataCleanResult:
    return DATA_CLEAN.call({"file": path.name, **fields})


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reasons(result: DataCleanResult) -> dict[int, str]:
    return {drop.line: drop.reason for drop in result.drops}


def test_every_drop_has_its_line_its_reason_and_a_partner_that_stays(workspace: Path) -> None:
    near = f"{text(1)} indeed"
    rows = [
        chat(text(1), text(2)),
        chat(text(3), text(4)),
        chat(text(1), text(2)),
        "",
        chat(near, text(2)),
        "{",
    ]
    result = clean(write(workspace / "rows.jsonl", rows))
    assert (result.num_rows, result.num_kept) == (5, 2)
    assert reasons(result) == {3: "exact_duplicate", 5: "near_duplicate", 6: "invalid_json"}
    assert result.num_dropped == {"exact_duplicate": 1, "near_duplicate": 1, "invalid_json": 1}
    assert [(drop.partner_line, drop.similarity == 1) for drop in result.drops] == [
        (1, True),
        (1, False),
        (None, False),
    ]
    assert read(workspace / "rows.clean.jsonl") == rows[:2]
    listed = read(workspace / "rows.clean.drops.jsonl")
    assert [drop["line"] for drop in listed] == [3, 5, 6]


def test_rows_that_stay_keep_their_bytes_and_the_input_is_not_touched(workspace: Path) -> None:
    lines = [json.dumps(chat(text(n), text(n + 9)), separators=(", ", ":  ")) for n in range(3)]
    path = workspace / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, lines[0]]).encode())
    before = (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns)
    assert clean(path).num_kept == 3
    assert (workspace / "rows.clean.jsonl").read_text(encoding="utf-8") == "\n".join(lines) + "\n"
    assert (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) == before


def test_a_repeat_of_a_row_that_goes_itself_stays(workspace: Path) -> None:
    broken = chat(text(1), text(2))
    broken["messages"].append({"role": "user", "content": "and then?"})
    rows = [broken, chat(text(1), text(2)), chat("hi", "ho"), chat("hi", "ho")]
    result = clean(write(workspace / "rows.jsonl", rows))
    assert list(reasons(result)) == [1, 3, 4]
    assert read(workspace / "rows.clean.jsonl") == [rows[1]]


def test_what_equals_a_near_duplicate_gets_the_partner_that_stays(workspace: Path) -> None:
    near = chat(f"{text(1)} indeed", text(2))
    result = clean(write(workspace / "rows.jsonl", [chat(text(1), text(2)), near, near]))
    assert [(drop.line, drop.reason, drop.partner_line) for drop in result.drops] == [
        (2, "near_duplicate", 1),
        (3, "near_duplicate", 1),
    ]
    assert result.drops[0].similarity == result.drops[1].similarity


def test_equal_words_with_different_calls_are_reported_and_none_is_dropped(workspace: Path) -> None:
    question = "Please delete the task about the dentist from my list of things to do"
    rows = [
        call(question, 1),
        call(question, 2),
        call(f"{question} today", 1),
        call(question, 1),
        call(question, 2),
    ]
    result = clean(write(workspace / "rows.jsonl", rows))
    assert reasons(result) == {3: "near_duplicate", 4: "exact_duplicate", 5: "exact_duplicate"}
    assert (result.num_contradictions, result.contradictions) == (2, [[1, 2], [1, 5]])
    assert any("different calls" in warning for warning in result.warnings)


def test_each_step_can_be_left_out(workspace: Path) -> None:
    rows = [chat(text(1), text(2)), chat(text(1), text(2)), chat("a" + text(1), text(2)), chat("hi", "ho")]
    path = write(workspace / "rows.jsonl", rows)
    assert reasons(clean(path, steps=[])) == {}
    assert reasons(clean(path, steps=["exact"])) == {2: "exact_duplicate"}
    assert reasons(clean(path, steps=["near"])) == {2: "near_duplicate", 3: "near_duplicate"}
    assert reasons(clean(path, steps=["length"])) == {4: "too_short"}
    assert reasons(clean(path, steps=["length"], min_tokens=0, max_tokens=50)) == dict.fromkeys(
        (1, 2, 3), "too_long"
    )


def test_a_broken_row_is_an_error_with_its_line_when_the_schema_step_is_left_out(workspace: Path) -> None:
    path = write(workspace / "rows.jsonl", [chat(text(1), text(2)), {"messages": 5}])
    with pytest.raises(InvalidInputError, match="line 2"):
        clean(path, steps=["exact"])
    assert not (workspace / "rows.clean.jsonl").exists()


def test_normalising_tidies_text_and_arguments_alike() -> None:
    row = {
        "id": " a ",
        "messages": [
            {"role": "user", "content": " Cafe\u0301\r\nnow\x07 "},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"x": "Cafe\u0301"}'}}]},
        ],
    }  # fmt: skip
    assert normalise_row(row)
    assert row["messages"][0]["content"] == "Caf\u00e9\nnow"  # pyright: ignore[reportArgumentType, reportIndexIssue]
    assert "Caf\u00e9" in json.dumps(row, ensure_ascii=False)
    assert "Cafe\u0301" not in json.dumps(row, ensure_ascii=False)
    assert row["id"] == " a "
    assert not normalise_row(row)


def test_whatever_parts_lines_or_pages_becomes_a_line_feed() -> None:
    assert (
        tidy("page one\x0cpage two\x85next\x0blast\r\nline\rend\x0c")
        == "page one\npage two\nnext\nlast\nline\nend"
    )
    arguments = {"text": "one\x0ctwo"}
    row = {
        "messages": [
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
        ]
    }
    assert normalise_row(row)
    assert "one\\ntwo" in json.dumps(row)


@given(st.text())
def test_tidying_twice_changes_nothing_more(raw: str) -> None:
    assert tidy(tidy(raw)) == tidy(raw)


def test_normalised_rows_are_counted_and_written(workspace: Path) -> None:
    result = clean(write(workspace / "rows.jsonl", [chat(text(1) + "  ", text(2)), chat(text(3), text(4))]))
    assert result.num_normalised == 1
    assert read(workspace / "rows.clean.jsonl")[0]["messages"][0]["content"] == text(1)


def test_a_dry_run_writes_its_drop_list_into_the_run_only(workspace: Path) -> None:
    path = write(workspace / "rows.jsonl", [chat(text(1), text(2))] * 2)
    result = clean(path, dry_run=True)
    assert (result.out, result.num_kept) == (None, 1)
    assert [entry.name for entry in workspace.iterdir() if entry.name != "runs"] == ["rows.jsonl"]
    assert read(workspace / result.drops_file) == [
        {"line": 2, "reason": "exact_duplicate", "partner_line": 1, "similarity": 1.0}
    ]


def test_mcp_callers_get_a_dry_run_unless_they_say_otherwise(workspace: Path) -> None:
    with confined_to(workspace):
        assert DATA_CLEAN.parse({"file": "rows.jsonl"}).dry_run
        assert not DATA_CLEAN.parse({"file": "rows.jsonl", "dry_run": False}).dry_run
    assert not DATA_CLEAN.parse({"file": "rows.jsonl"}).dry_run


def test_the_command_writes_unless_told_otherwise(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(workspace / "rows.jsonl", [chat(text(1), text(2))] * 2)
    assert main(["data", "clean", str(path), "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] is None
    assert main(["data", "clean", str(path), "--steps", "exact,near"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == "rows.clean.jsonl"


def test_compressed_files_and_all_three_formats_are_read(workspace: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": text(1)}, {"from": "gpt", "value": text(2)}]},
        {"instruction": text(1), "output": text(2)},
        chat(text(1), text(2)),
    ]
    path = workspace / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert reasons(clean(path)) == {2: "exact_duplicate", 3: "exact_duplicate"}
    assert read(workspace / "rows.clean.jsonl") == rows[:1]


def test_the_result_cannot_replace_the_input(workspace: Path) -> None:
    path = write(workspace / "rows.jsonl", [chat(text(1), text(2))])
    (workspace / "link.jsonl").hardlink_to(path)
    for out in ("rows.jsonl", "link.jsonl", "./rows.jsonl"):
        with pytest.raises(InvalidInputError, match="replace the input"):
            clean(path, out=out)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(workspace: Path, content: str) -> None:
    path = workspace / "rows.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match="has no rows"):
        clean(path)
    assert [found.name for found in workspace.glob("*.jsonl")] == ["rows.jsonl"]


def test_lengths_are_counted_by_a_named_tokenizer(workspace: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.save(str(workspace / "tokenizer.json"))
    path = write(
        workspace / "rows.jsonl", [chat("one two three", "four five"), chat("one two", "three four")]
    )
    result = clean(path, steps=["length"], min_tokens=5, tokenizer="tokenizer.json")
    assert reasons(result) == {2: "too_short"}  # a word is a token here: 5 and 4
    assert result.warnings == []
    with pytest.raises(InvalidInputError, match="no tokenizer"):
        clean(path, tokenizer="rows.jsonl")


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_half_written_and_can_be_resumed(workspace: Path) -> None:
    rows = [chat(text(n), text(n + 1)) for n in range(6000)]
    path = write(workspace / "rows.jsonl", rows)
    before = path.read_bytes()
    command = [sys.executable, "-m", "pipeline", "data", "clean", "rows.jsonl"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
    ) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(workspace.glob("runs/*/scratch/rows.jsonl")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == before
    assert {entry.name for entry in workspace.iterdir()} == {"rows.jsonl", "runs"}
    (run,) = workspace.glob("runs/*")
    assert main(["jobs", "resume", run.name]) == 0
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (run / "result.json").exists():
        time.sleep(0.2)
    assert json.loads((run / "result.json").read_text(encoding="utf-8"))["num_rows"] == 6000
    assert not (run / "scratch").exists()
    assert (workspace / "rows.clean.jsonl").exists()
