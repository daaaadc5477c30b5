"""The nasty inputs of ``data validate``, given to every other operation that reads a data file.

Whatever the file holds, each operation either names the broken line, lists it as broken, or refuses the file; it never
crashes, hangs or passes over a row in silence, never touches its input, and leaves a whole output or none.
"""

import gzip
import json
import os
import resource
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pipeline.core.errors import DoesNotFitError, InvalidInputError, OperationFailedError
from pipeline.data.clean import DATA_CLEAN
from pipeline.data.convert import DATA_CONVERT
from pipeline.data.decontaminate import DATA_DECONTAMINATE
from pipeline.data.pii import DATA_PII
from pipeline.data.report import DATA_REPORT
from pipeline.data.split import DATA_SPLIT

Call = Callable[[str, str], Any]


def chat(word: str) -> bytes:
    """Return a right row that is not like those with other words."""
    text = " ".join(f"{word}{position}" for position in range(12))
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": f"{word} it is, says the {text}"}]
    return json.dumps({"conversations": turns}).encode()


GOOD, OTHER, THIRD = chat("apple"), chat("pear"), chat("plum")
TESTS = "tests.jsonl"

# Each takes the input and the path to write; decontaminate reads its nasty file on either side.
STRICT: dict[str, Call] = {
    "clean without the schema step": lambda file, out: DATA_CLEAN.call({"file": file, "out": out, "steps": ["exact"]}),
    "split": lambda file, out: DATA_SPLIT.call({"file": file, "out": out, "counts": [1, 1, 0]}),
    "pii with replacement": lambda file, out: DATA_PII.call({"data": file, "out": out}),
    "convert": lambda file, out: DATA_CONVERT.call({"data": file, "to": "messages", "out": out}),
    "decontaminate, train": lambda file, out: DATA_DECONTAMINATE.call({"train": file, "test": TESTS, "out": out}),
    "decontaminate, test": lambda file, out: DATA_DECONTAMINATE.call({"train": TESTS, "test": file, "out": out}),
}  # fmt: skip
TOLERANT: dict[str, Call] = {
    "clean": lambda file, out: DATA_CLEAN.call({"file": file, "out": out}),
    "pii": lambda file, out: DATA_PII.call({"data": file}),
    "report": lambda file, out: DATA_REPORT.call({"data": file, "out": out}),
}
OPERATIONS = STRICT | TOLERANT

BROKEN: dict[str, tuple[bytes, str]] = {
    # The second of three lines, and its code.
    "BOM inside the file": (b"\xef\xbb\xbf" + OTHER, "invalid_json"),
    "NUL": (OTHER.replace(b"pear3", b"pe\0ar"), "invalid_json"),
    "invalid UTF-8": (OTHER.replace(b"pear3", b"p\xffar"), "invalid_utf8"),
    "invalid UTF-8 in an unknown field": (OTHER[:-1] + b', "x": "\xff"}', "invalid_utf8"),
    "lone surrogate": (OTHER.replace(b"pear3", b"\\ud800"), "lone_surrogate"),
    "lone surrogate in an unknown key": (OTHER[:-1] + b', "\\ud800": 1}', "lone_surrogate"),
    "repeated key": (OTHER[:-1] + b', "x": 1, "x": 2}', "duplicate_key"),
    "NaN": (OTHER[:-1] + b', "x": NaN}', "number_out_of_range"),
    "Infinity": (OTHER[:-1] + b', "x": -Infinity}', "number_out_of_range"),
    "huge integer": (OTHER[:-1] + b', "x": ' + b"9" * 5000 + b"}", "number_out_of_range"),
    "a million brackets": (OTHER[:-1] + b', "x": ' + b"[" * 500_000 + b"]" * 500_000 + b"}", "too_deep"),
    "a million open brackets": (b'{"a":' * 1_000_000, "too_deep"),
    "two objects on a line": (OTHER + OTHER, "trailing_content"),
    "truncated": (OTHER[:-20], "invalid_json"),
    "no object": (b"[" + OTHER + b"]", "not_an_object"),
}
FINE: dict[str, bytes] = {
    "BOM": b"\xef\xbb\xbf" + GOOD + b"\n" + OTHER + b"\n",
    "CRLF": GOOD + b"\r\n" + OTHER + b"\r\n",
    "no final newline": GOOD + b"\n" + OTHER,
    "blank lines": b"\n \t\n" + GOOD + b"\n\r\n\n" + OTHER + b"\n\n",
    "U+2028": GOOD + b"\n" + OTHER.replace(b"pear3", "pe\u2028\u0085ar".encode()) + b"\n",
    "500 levels": GOOD + b"\n" + OTHER[:-1] + b', "x": ' + b"[" * 500 + b"]" * 500 + b"}\n",
    "gzip": gzip.compress(GOOD + b"\n" + OTHER),
    "zstd": zstandard.compress(GOOD + b"\n") + zstandard.compress(OTHER),
}
UNUSABLE: dict[str, bytes] = {
    "empty": b"",
    "only blank lines": b"\n \r\n",
    "only a BOM": b"\xef\xbb\xbf",
    "truncated gzip": gzip.compress(GOOD * 100)[:-9],
    "truncated zstd": zstandard.compress(GOOD * 100)[:-9],
    "gzip of nothing": gzip.compress(b""),
    "binary": bytes(range(256)) * 20,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "Parquet": b"PAR1" + bytes(100),
}


def operations(table: dict[str, Call]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in table.items()])


@pytest.fixture
def source(workspace: Path) -> Path:
    """rows.jsonl, not yet there, beside a right file for the other side of ``decontaminate``."""
    (workspace / TESTS).write_bytes(THIRD + b"\n")
    return workspace / "rows.jsonl"


def written(workspace: Path) -> dict[str, bytes]:
    """Return what is in the workspace besides the runs, parts of unfinished writes included."""
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file() and not path.is_symlink() and "runs" not in path.relative_to(workspace).parts
    }


@contextmanager
def refused(workspace: Path, *kinds: type[Exception], match: str | None = None) -> Generator[None]:
    """Expect an error that says what to do, and that neither input nor output was touched."""
    before = written(workspace)
    with pytest.raises(kinds or InvalidInputError, match=match) as caught:
        yield
    assert getattr(caught.value, "hint", "")
    assert written(workspace) == before
    left = [
        path for path in (workspace / "runs").rglob("*") if path.suffix == ".part" or path.name == "scratch"
    ]
    assert left == []


@pytest.mark.slow
@operations(STRICT)
@pytest.mark.parametrize(("raw", "code"), BROKEN.values(), ids=BROKEN)
def test_an_operation_that_needs_every_row_names_the_broken_line(
    call: Call, raw: bytes, code: str, source: Path
) -> None:
    source.write_bytes(GOOD + b"\n\n" + raw + b"\n" + THIRD + b"\n")
    with refused(source.parent, match=r"(line |:)3\b"):
        call("rows.jsonl", "out")


def test_an_operation_that_passes_over_rows_lists_every_one(source: Path) -> None:
    source.write_bytes(GOOD + b"\n" + b"\n".join(raw for raw, _ in BROKEN.values()) + b"\n" + THIRD)
    content = source.read_bytes()
    expected = {line: code for line, (_, code) in enumerate(BROKEN.values(), start=2)}
    clean = TOLERANT["clean"]("rows.jsonl", "clean.jsonl")
    assert {drop.line: drop.reason for drop in clean.drops} == expected
    assert source.with_name("clean.jsonl").read_bytes() == GOOD + b"\n" + THIRD + b"\n"
    pii = TOLERANT["pii"]("rows.jsonl", "")
    assert pii.num_unreadable == len(BROKEN)
    assert pii.is_negative()
    assert "2, 3, 4, 5, 6, 7, 8, 9, 10, 11 ..." in pii.warnings[0]
    report = TOLERANT["report"]("rows.jsonl", "report")
    assert report.splits[0].errors_by_code == {
        code: [*expected.values()].count(code) for code in expected.values()
    }
    assert report.is_negative()
    assert "llmops data validate rows.jsonl" in report.warnings[0]
    assert source.read_bytes() == content


@pytest.mark.slow
@operations(OPERATIONS)
@pytest.mark.parametrize("content", FINE.values(), ids=FINE)
def test_a_right_file_is_read_whole_however_it_is_written(call: Call, content: bytes, source: Path) -> None:
    source.write_bytes(content)
    result: Any = call("rows.jsonl", "out")
    num_rows = (
        result.num_rows
        if hasattr(result, "num_rows")
        else result.splits[0].num_rows
        if hasattr(result, "splits")
        else result.leakage.num_train_rows + result.leakage.num_test_rows - 1
    )
    assert num_rows == 2
    assert not result.is_negative()
    assert source.read_bytes() == content


@pytest.mark.slow
@operations(OPERATIONS)
@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_file_is_refused_as_a_whole(call: Call, content: bytes, source: Path) -> None:
    source.write_bytes(content)
    with refused(source.parent, match="rows"):
        call("rows.jsonl", "out")


@operations(OPERATIONS)
def test_an_array_file_is_not_taken_for_rows(call: Call, source: Path) -> None:
    source.write_bytes(b"[\n" + GOOD + b",\n" + OTHER + b"\n]\n")
    before = source.read_bytes()
    try:
        result = call("rows.jsonl", "out")
    except InvalidInputError as error:
        assert "1" in str(error)  # noqa: PT017 - some operations refuse, the others count the lines
    else:
        assert result.is_negative() or result.num_dropped == {"invalid_json": 2, "trailing_content": 1}
    assert source.read_bytes() == before


@operations(OPERATIONS)
@pytest.mark.parametrize("kind", ["folder", "missing", "dead link", "pipe", "disk error"])
def test_what_is_no_readable_file_is_refused(call: Call, kind: str, source: Path) -> None:
    if kind == "folder":
        source.mkdir()
    elif kind == "dead link":
        source.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(source)
    elif kind == "disk error":
        source.symlink_to("/proc/self/mem")  # a regular file whose first byte cannot be read, also by root
    with refused(source.parent, match="rows"):
        call("rows.jsonl", "out")


@operations(OPERATIONS)
def test_a_file_that_changes_while_it_is_read_is_refused(call: Call, source: Path) -> None:
    source.write_bytes(b"".join(chat(f"word{number}x") + b"\n" for number in range(300)))
    stopped = threading.Event()

    def grow() -> None:
        while not stopped.wait(0.0002):
            with source.open("ab") as file:
                file.write(b"\n")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(InvalidInputError, match="changed while it was read"):
            call("rows.jsonl", "out")
    finally:
        stopped.set()
        writer.join()
    assert {name.split("/")[0] for name in written(source.parent)} == {"rows.jsonl", TESTS}


@pytest.mark.parametrize("way", ["same name", "symbolic link", "hard link"])
@operations({name: OPERATIONS[name] for name in OPERATIONS if name not in {"split", "pii", "report"}})
def test_the_output_is_never_the_input(call: Call, way: str, source: Path) -> None:
    source.write_bytes(GOOD + b"\n" + OTHER + b"\n")
    out = source if way == "same name" else source.with_name("link.jsonl")
    if way == "symbolic link":
        out.symlink_to(source)
    elif way == "hard link":
        out.hardlink_to(source)
    with refused(source.parent, match="input"):
        call("rows.jsonl", out.name)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        pytest.param(STRICT["split"], "train.jsonl", id="split"),
        pytest.param(TOLERANT["report"], "data_report.json", id="report"),
    ],
)
def test_no_file_of_a_result_folder_is_the_input(call: Call, name: str, source: Path) -> None:
    folder = source.with_name("out")
    folder.mkdir()
    (folder / name).write_bytes(GOOD + b"\n" + OTHER + b"\n")
    with refused(source.parent, match="input"):
        call(f"out/{name}", "out")


@operations({name: OPERATIONS[name] for name in OPERATIONS if name != "pii"})
def test_an_output_below_a_file_is_refused(call: Call, source: Path) -> None:
    source.write_bytes(GOOD + b"\n" + OTHER + b"\n")
    with refused(source.parent, match=TESTS):
        call("rows.jsonl", f"{TESTS}/out")


@operations({name: OPERATIONS[name] for name in OPERATIONS if name not in {"split", "pii", "report"}})
def test_an_output_that_is_a_folder_is_refused(call: Call, source: Path) -> None:
    source.write_bytes(GOOD + b"\n" + OTHER + b"\n")
    source.with_name("out").mkdir()
    with refused(source.parent, match="out is a folder"):
        call("rows.jsonl", "out")


@contextmanager
def full_disk(num_bytes: int) -> Generator[None]:
    """Let no file of this process grow beyond a size: what a full disk looks like to a writer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
@operations({name: OPERATIONS[name] for name in OPERATIONS if name != "pii"})
def test_a_full_disk_leaves_no_half_written_file(call: Call, source: Path) -> None:
    source.write_bytes(b"".join(chat(f"word{number}x") + b"\n" for number in range(300)))
    call("rows.jsonl", "warm")  # what is loaded or cached on first use is not what this is about
    with full_disk(20_000), refused(source.parent, DoesNotFitError, OperationFailedError):
        call("rows.jsonl", "out")


@pytest.mark.slow
@operations(OPERATIONS)
def test_deep_arguments_are_no_reason_to_crash(call: Call, source: Path) -> None:
    deep = "[" * 500 + "]" * 500
    inside: Any = deep
    for _ in range(3):
        inside = json.dumps([inside])[:-1] + ", " + deep + "]"
    row = {
        "messages": [
            {"role": "user", "content": "a b c d e f g h i j k"},
            {"role": "assistant", "content": "l m n"},
        ]
    }
    deep_row = {**row, "notes": inside, "arguments": json.loads(deep)}
    source.write_bytes(json.dumps(deep_row).encode() + b"\n" + GOOD)
    assert not call("rows.jsonl", "out").is_negative()


@pytest.mark.slow
@operations(OPERATIONS)
def test_a_line_of_50_mb_is_a_row_like_any_other(call: Call, source: Path) -> None:
    row = json.loads(OTHER)
    source.write_bytes(GOOD + b"\n" + json.dumps({**row, "note": "x" * 50_000_000}).encode() + b"\n")
    result = call("rows.jsonl", "out")
    assert not result.is_negative()


@pytest.mark.slow
@operations(STRICT)
def test_a_line_over_the_limit_is_named(call: Call, source: Path) -> None:
    with source.open("wb") as file:
        file.write(GOOD + b"\n" + OTHER)
        file.truncate(70_000_000)
    with refused(source.parent, match=r"(line |:)2\b.*too long"):
        call("rows.jsonl", "out")
