"""Files and folders appear whole or not at all, also when the writer is killed."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core.errors import DoesNotFitError
from pipeline.core.files import (
    read_json,
    read_jsonl,
    require_disk,
    sha256_file,
    staged_directory,
    write_atomic,
    write_json,
    write_jsonl,
)

REWRITER = """
import sys
from pathlib import Path
from pipeline.core.files import write_atomic
path = Path(sys.argv[1])
contents = [b"a" * 3_000_000, b"b" * 2_000_000]
write_atomic(path, contents[0])
print("started", flush=True)
while True:
    for content in contents:
        write_atomic(path, content)
"""
STAGER = """
import sys, time
from pathlib import Path
from pipeline.core.files import staged_directory
with staged_directory(Path(sys.argv[1])) as staging:
    (staging / "new.txt").write_text("half", encoding="utf-8")
    print("staged", flush=True)
    time.sleep(60)
"""


def run_and_kill(code: str, argument: Path, after_seconds: float) -> None:
    command = [sys.executable, "-c", code, str(argument)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(after_seconds)
        process.kill()


@pytest.mark.parametrize("after_seconds", [0.01, 0.03, 0.07])
def test_a_killed_writer_leaves_one_whole_content(tmp_path: Path, after_seconds: float) -> None:
    path = tmp_path / "weights.bin"
    run_and_kill(REWRITER, path, after_seconds)
    content = path.read_bytes()
    assert content in (b"a" * 3_000_000, b"b" * 2_000_000)


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")  # a lone surrogate has no UTF-8 form
    target = tmp_path / "folder"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomic(target, "a folder cannot be replaced by a file")
    assert path.read_text(encoding="utf-8") == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file.txt", "folder"]


def test_a_staged_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old", encoding="utf-8")
    with staged_directory(target) as staging:
        (staging / "new.txt").write_text("new", encoding="utf-8")
        assert (target / "old.txt").exists()
    assert [path.name for path in target.iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_staged_folder_whose_block_fails_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(OSError, match="directory"), staged_directory(target) as staging:
        (staging / "missing" / "new.txt").write_text("half", encoding="utf-8")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_stager_changes_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old", encoding="utf-8")
    run_and_kill(STAGER, target, 0.0)
    assert [path.name for path in target.iterdir()] == ["old.txt"]
    with staged_directory(target) as staging:
        assert list(staging.iterdir()) == []
        (staging / "whole.txt").write_text("whole", encoding="utf-8")
    assert [path.name for path in target.iterdir()] == ["whole.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    moved_away = tmp_path / ".model.old"
    moved_away.mkdir()
    (moved_away / "old.txt").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError, match="again"), staged_directory(target):
        raise RuntimeError("again")
    assert (target / "old.txt").read_text(encoding="utf-8") == "old"


def test_json_and_json_lines_come_back_as_written(tmp_path: Path) -> None:
    rows = [{"text": "é\u2028x"}, {"number": 1.5, "none": None}]
    write_json(tmp_path / "sub" / "one.json", rows)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_json(tmp_path / "sub" / "one.json") == rows
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_the_digest_of_a_file_larger_than_one_piece_is_its_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # 2.56 MB: three pieces
    (tmp_path / "big.bin").write_bytes(content)
    seen: list[int] = []
    assert sha256_file(tmp_path / "big.bin", seen.append) == hashlib.sha256(content).hexdigest()
    assert sum(seen) == 2_560_000


def test_too_little_disk_is_refused_before_the_write(tmp_path: Path) -> None:
    require_disk(tmp_path / "not" / "there" / "yet", 1, "A byte")
    with pytest.raises(DoesNotFitError, match=r"A model needs 1024\.0 TiB of disk") as caught:
        require_disk(tmp_path / "not" / "there" / "yet", 1 << 50, "A model")
    assert caught.value.details["needed_bytes"] == 1 << 50
