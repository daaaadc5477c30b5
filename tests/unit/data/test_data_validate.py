"""``llmops data validate``: its contract on the command line, its files, its warnings, and inputs that are no files."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.core.errors import InvalidInputError
from pipeline.data.answers import AnswerIndex
from pipeline.data.check import Outcome, RowChecker
from pipeline.data.reader import Block, open_source, read_blocks, read_lines
from pipeline.data.validate import DataValidateRequest, DataValidateResult, validate_file

ROOT = Path(__file__).resolve().parents[3]


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}], **more}


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    path = folder / "rows.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def validate(path: Path, **options: Any) -> DataValidateResult:
    return validate_file(DataValidateRequest(file=str(path), **options))


def test_the_command_prints_one_object_and_exits_1_when_rows_are_broken(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(workspace, chat("a", "b"), "", "{", chat("c", " "))
    assert main(["data", "validate", str(path), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["num_rows"], printed["num_valid"], printed["num_invalid"]) == (3, 1, 2)
    assert printed["errors_file"] is None
    assert [(error["line"], error["code"], error["path"]) for error in printed["errors"]] == [
        (3, "invalid_json", ""),
        (4, "empty_content", "conversations[1].value"),
    ]
    assert all(error["message"] and error["fix"] for error in printed["errors"])
    assert printed["errors_by_code"] == {"invalid_json": 1, "empty_content": 1}


def test_the_command_exits_0_when_all_rows_are_right(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "validate", str(write(workspace, chat("a", "b"))), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_invalid"] == 0


def test_the_command_exits_2_when_the_input_is_unusable(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "validate", str(workspace / "none.jsonl"), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err.splitlines()[-1])["code"] == "invalid_input"


def test_more_than_a_thousand_errors_stream_to_a_file(workspace: Path) -> None:
    path = write(workspace, *["[]"] * 1500, chat("a", "b"), "{")
    result = validate(path)
    assert (result.num_invalid, len(result.errors)) == (1501, 1000)
    assert result.errors_file is not None
    listed = [json.loads(line) for line in Path(result.errors_file).read_text(encoding="utf-8").splitlines()]
    assert [error["line"] for error in listed] == [*range(1, 1501), 1502]
    assert listed[:1000] == [error.model_dump() for error in result.errors]
    assert Path(result.errors_file).is_relative_to(workspace / "runs")


def test_a_broken_off_validation_leaves_no_errors_file(workspace: Path) -> None:
    path = write(workspace, *["[]"] * 1500)
    path.write_bytes(b"\x1f\x8b" + path.read_bytes())
    with pytest.raises(InvalidInputError, match="damaged"):
        validate(path)
    assert list(workspace.rglob("*.part")) == []


@pytest.mark.parametrize("num_processes", [1, 2])
def test_rows_that_answer_the_same_conversation_differently_are_a_warning(
    workspace: Path, num_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.check.RANGE_BYTES", 100)
    path = write(
        workspace,
        chat("Capital of France?", "Paris", id=1),
        chat("Capital of France?", "Paris", id=2),
        chat("Capital of Spain?", "Madrid"),
        {
            "messages": [
                {"role": "user", "content": "Capital of France?"},
                {"role": "assistant", "content": "Lyon"},
            ]
        },
        chat("Capital of Spain?", "Madrid", system="Lie."),
        {"instruction": "Capital of Spain?", "output": "Lisbon"},
    )
    result = validate(path, processes=num_processes)
    assert [(pair.line, pair.first_line) for pair in result.contradictions] == [(4, 1), (6, 3)]
    assert (result.num_contradictions, result.num_invalid, result.is_negative()) == (2, 0, False)
    assert len(result.warnings) == 1


def test_calls_contradict_by_name_and_arguments_not_by_id_and_spelling(workspace: Path) -> None:
    def booking(call_id: str, arguments: str, **more: Any) -> dict[str, Any]:
        function = {"name": "create_task", "arguments": arguments}
        call = {"id": call_id, "type": "function", "function": function, **more}
        turn = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"messages": [{"role": "user", "content": "Milk"}, turn], "tool_set": "task_api"}

    path = write(
        workspace,
        booking("a", '{"title": "milk", "priority": "low"}'),
        booking("b", '{"priority":"low","title":"m\\u0069lk"}'),
        booking("c", '{"title": "milk"}'),
    )
    result = validate(path)
    assert [(pair.line, pair.first_line) for pair in result.contradictions] == [(3, 1)]


def test_contradictions_are_the_same_when_the_notes_wait_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(held_turns: int) -> Any:
        monkeypatch.setattr("pipeline.data.answers.HELD_NOTES", held_turns)
        checker = RowChecker(allow_final_calls=False)
        with AnswerIndex() as index:
            lines_before = 0
            for block in range(20):
                rows = [chat(f"q{(block * 7 + i) % 31}", f"a{(block + i) % 5}") for i in range(9)]
                outcome = Outcome()
                checker.check_block(Block([json.dumps(row).encode() for row in rows]), outcome)
                index.add(outcome.answers, lines_before)
                lines_before += outcome.num_lines
            return index.find(1000)

    questions = [f"q{(block * 7 + i) % 31}" for block in range(20) for i in range(9)]
    answers = [f"a{(block + i) % 5}" for block in range(20) for i in range(9)]
    first = [questions.index(question) for question in questions]
    expected = [(line + 1, first[line] + 1) for line in range(180) if answers[line] != answers[first[line]]]
    assert find(10**6) == (len(expected), expected)
    assert find(10) == (len(expected), expected)


def test_fields_of_turns_that_training_does_not_read_are_named(workspace: Path) -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0, "audio": None},
    ]
    result = validate(write(workspace, {"messages": turns}))
    assert result.num_invalid == 0
    assert "weight (1)" in result.warnings[0]
    assert "audio" not in result.warnings[0]


def test_rows_that_end_with_calls_pass_when_they_may(workspace: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    path = write(workspace, {"messages": turns, "tools": [tool]})
    assert [error.code for error in validate(path).errors] == ["unanswered_call"]
    assert validate(path, allow_final_calls=True).num_invalid == 0


def test_messages_echo_at_most_80_characters_of_a_row_and_nothing_unshowable(workspace: Path) -> None:
    long = "secret" * 2000
    call = {"id": long, "type": "function", "function": {"name": long, "arguments": json.dumps({long: long})}}
    asking = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    schema = {"type": "object", "properties": {long: {"enum": [long + "x"]}}}
    named = {"type": "function", "function": {"name": long, "parameters": schema}}
    bidi = "\u202e\u0007"
    path = write(
        workspace,
        {long: 1},
        {"messages": [{"role": long, "content": "a"}]},
        {"messages": [{"role": bidi, "content": "a"}]},
        {"messages": asking, "tools": []},
        {"messages": asking, "tools": [named]},
        {"messages": asking, "tools": [{**named, "function": {"name": long, "parameters": {"type": long}}}]},
        {"messages": [], "tool_set": long},
        '{"' + long + '": 1, "' + long + '": 2}',
        '{"a": ' + "9" * 5000 + "}",
        long,
    )
    result = validate(path)
    assert result.num_invalid == 10
    for error in result.errors:
        assert len(error.message + error.path) <= 240
        assert "secret" * 14 not in error.message  # 84 characters
        assert "\u202e" not in error.message
        assert "\u0007" not in error.message


def test_folders_pipes_and_missing_files_are_refused_without_waiting(workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    for name in ("pipe", ".", "missing"):
        with pytest.raises(InvalidInputError):
            validate(workspace / name)


def test_a_file_that_cannot_be_read_is_refused(workspace: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users as a whole
        Path(folder).chmod(0o755)
        path = write(Path(folder), chat("a", "b"))
        path.chmod(0)
        script = (
            "import os; from pathlib import Path; from pipeline.data.reader import read_lines; "
            "os.geteuid() or os.setuid(65534); "  # root may read everything
            f"list(read_lines(Path({str(path)!r})))"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "InvalidInputError" in done.stderr.splitlines()[-1]
    assert "Permission denied" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("change", ["append", "replace", "truncate"])
def test_a_file_that_changes_while_it_is_read_is_refused(workspace: Path, change: str) -> None:
    path = write(workspace, *[chat("a", "b")] * 10)
    lines = read_lines(path)
    next(lines)
    if change == "append":
        with path.open("a", encoding="utf-8") as file:
            file.write("{}\n")
    elif change == "replace":
        other = workspace / "other"
        other.write_bytes(path.read_bytes())
        other.replace(path)
    else:
        os.truncate(path, 10)
    with pytest.raises(InvalidInputError, match="changed while it was read"):
        list(lines)


def test_a_line_over_the_limit_is_skipped_and_reported_with_its_number(workspace: Path) -> None:
    path = write(workspace, "a" * 10, "b" * 5_000_000, "", "c" * 20, "d" * 3_000_000)
    lines = list(read_lines(path, max_line_bytes=1_000_000))
    assert [(line.number, line.problem) for line in lines] == [
        (1, ""), (2, "line_too_long"), (4, ""), (5, "line_too_long"),
    ]  # fmt: skip
    assert max(len(line.raw) for line in lines) < 1_100_000


def test_a_row_of_50_mb_is_valid(workspace: Path) -> None:
    result = validate(write(workspace, chat("a", "b" * 50_000_000), chat("a", "c")))
    assert (result.num_rows, result.num_invalid, result.num_contradictions) == (2, 0, 1)


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_how_the_file_is_cut(
    workspace: Path, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n \ntwo\r\r\nthree\xe2\x80\xa8x\n\n\nfour")
    monkeypatch.setattr("pipeline.data.reader.BLOCK_BYTES", block_bytes)
    assert [(line.number, line.raw) for line in read_lines(path)] == [
        (1, b"one"), (4, b"two\r"), (5, b"three\xe2\x80\xa8x"), (8, b"four"),
    ]  # fmt: skip


def test_validation_of_500_rows_loads_no_heavy_library_and_no_network(workspace: Path) -> None:
    rows = [chat(f"q{i}", f"a{i}") for i in range(300)]
    rows += [{"messages": [{"role": "user", "content": f"{i}"}], "tool_set": "task_api"} for i in range(200)]
    path = write(workspace, *rows)
    code = (
        "import sys; from pipeline.cli import main; "
        f"status = main(['data', 'validate', {str(path)!r}, '--json']); "
        "print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert json.loads(done.stdout)["num_invalid"] == 200
    loaded = set(done.stderr.split())
    assert "msgspec" in loaded
    assert (
        loaded & {"torch", "transformers", "datasets", "pandas", "scipy", "numpy", "duckdb", "openai", "mcp"}
        == set()
    )


def test_no_more_than_a_piece_of_the_file_is_held(workspace: Path) -> None:
    def pieces(path: Path) -> Generator[int]:
        with open_source(path) as source:
            for block in read_blocks(source.stream):
                yield sum(map(len, block.lines)) + len(block.lines)

    path = write(workspace, *[chat("a" * 400, "b" * 400)] * 5000)
    assert sum(pieces(path)) == path.stat().st_size
    assert max(pieces(path)) < 3 << 20


def test_validation_works_in_a_thread_with_several_processes(workspace: Path) -> None:
    """As the MCP server calls it."""
    path = write(workspace, *[chat("a", "b")] * 50, "{")
    results: list[DataValidateResult] = []
    thread = threading.Thread(target=lambda: results.append(validate(path, processes=2)))
    thread.start()
    thread.join(60)
    assert [(result.num_rows, result.num_invalid) for result in results] == [(51, 1)]
