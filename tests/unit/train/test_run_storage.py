"""Run directories copied to a place and back: what travels, what waits, what stays."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_atomic
from pipeline.core.paths import confined_to
from pipeline.train.backends.storage import Storage
from pipeline.train.submit import TRAIN_SUBMIT


def make_run(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        write_atomic(folder / name, text)
    return folder


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


RUN = {
    "manifest.json": "{}",
    "metrics.jsonl": '{"step": 1}\n',
    "heartbeat": "",
    "artifacts/adapter/adapter_model.safetensors": "weights",
    "artifacts/checkpoints/checkpoint-2/complete.json": "{}",
    "artifacts/checkpoints/checkpoint-2/model.safetensors": "whole",
    "artifacts/checkpoints/checkpoint-4/model.safetensors": "half",
}


CHECKPOINT = {
    "artifacts/checkpoints/checkpoint-2/complete.json": "{}",
    "artifacts/checkpoints/checkpoint-2/model.safetensors": "whole",
    "artifacts/checkpoints/checkpoint-2/optimizer.pt": "moments",
}


def fail(words: str) -> None:
    raise OSError(words)


def replace_reading(patch: pytest.MonkeyPatch, name: str, before: Callable[[Path], object]) -> None:
    """Do something before files of one name are read."""
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == name:
            before(path)
        return read(path)

    patch.setattr(Path, "read_bytes", read_bytes)


def test_whole_checkpoints_travel_and_half_ones_wait(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "r1", RUN)
    Storage(f"file://{tmp_path}/store").upload(run, with_checkpoints=True)
    assert names_below(tmp_path / "store" / "r1") == {
        "manifest.json",
        "metrics.jsonl",
        "artifacts/adapter/adapter_model.safetensors",
        "artifacts/checkpoints/checkpoint-2/complete.json",
        "artifacts/checkpoints/checkpoint-2/model.safetensors",
    }


def test_a_checkpoint_whose_upload_stopped_in_the_middle_is_not_marked_and_is_completed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs" / "r1", CHECKPOINT)
    storage = Storage(f"file://{tmp_path}/store")
    there = tmp_path / "store" / "r1"
    with monkeypatch.context() as broken:
        replace_reading(broken, "optimizer.pt", lambda _path: fail("the machine was taken away"))
        with pytest.raises(OSError, match="taken away"):
            storage.upload(run, with_checkpoints=True)
    assert names_below(there) == {"artifacts/checkpoints/checkpoint-2/model.safetensors"}
    storage.upload(run, with_checkpoints=True)
    assert names_below(there) == set(CHECKPOINT)


def test_weights_of_an_unmarked_checkpoint_are_sent_again_even_when_their_size_is_the_same(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "runs" / "r1", CHECKPOINT)
    name = "artifacts/checkpoints/checkpoint-2/model.safetensors"
    write_atomic(tmp_path / "store" / "r1" / name, "torn.")
    Storage(f"file://{tmp_path}/store").upload(run, with_checkpoints=True)
    assert (tmp_path / "store" / "r1" / name).read_text(encoding="utf-8") == CHECKPOINT[name] == "whole"


def test_a_checkpoint_that_is_there_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs" / "r1", CHECKPOINT)
    storage = Storage(f"file://{tmp_path}/store")
    storage.upload(run, with_checkpoints=True)
    for name in CHECKPOINT:
        replace_reading(monkeypatch, Path(name).name, lambda path: fail(f"{path} was read again"))
    storage.upload(run, with_checkpoints=True)


def test_a_checkpoint_that_was_rotated_away_leaves_the_storage_once_a_newer_one_is_there(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "runs" / "r1", CHECKPOINT)
    storage = Storage(f"file://{tmp_path}/store")
    storage.upload(run, with_checkpoints=True)
    shutil.rmtree(run / "artifacts/checkpoints/checkpoint-2")
    half = "artifacts/checkpoints/checkpoint-10/model.safetensors"
    make_run(run, {half: "newer"})
    storage.upload(run, with_checkpoints=True)
    assert names_below(tmp_path / "store" / "r1") == set(CHECKPOINT)  # all there is to go on from
    marker = "artifacts/checkpoints/checkpoint-10/complete.json"
    make_run(run, {marker: "{}"})
    storage.upload(run, with_checkpoints=True)
    assert names_below(tmp_path / "store" / "r1") == {half, marker}
    assert not (tmp_path / "store" / "r1" / "artifacts/checkpoints/checkpoint-2").exists()


def test_a_checkpoint_that_is_rotated_away_while_it_is_sent_is_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs" / "r1", {**CHECKPOINT, "metrics.jsonl": "1\n"})
    replace_reading(monkeypatch, "optimizer.pt", lambda path: shutil.rmtree(path.parent))
    Storage(f"file://{tmp_path}/store").upload(run, with_checkpoints=True)
    assert names_below(tmp_path / "store" / "r1") == {
        "metrics.jsonl",
        "artifacts/checkpoints/checkpoint-2/model.safetensors",
    }


def test_what_comes_back_is_what_was_sent(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "r1", RUN)
    storage = Storage(f"file://{tmp_path}/store")
    storage.upload(run, with_checkpoints=False)
    back = tmp_path / "back"
    assert storage.download("r1", back, lambda name: name != "manifest.json") == 2
    assert (back / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert names_below(back) == {"metrics.jsonl", "artifacts/adapter/adapter_model.safetensors"}


def test_a_file_that_grew_is_sent_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "r1", {"metrics.jsonl": "1\n"})
    storage = Storage(f"file://{tmp_path}/store")
    storage.upload(run, with_checkpoints=True)
    write_atomic(run / "metrics.jsonl", "1\n2\n")
    storage.upload(run, with_checkpoints=True)
    assert (tmp_path / "store" / "r1" / "metrics.jsonl").read_text(encoding="utf-8") == "1\n2\n"


def test_a_run_that_nobody_sent_has_no_files(tmp_path: Path) -> None:
    assert Storage(f"file://{tmp_path}/store").download("nothing", tmp_path / "back", lambda _: True) == 0


def test_a_place_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not a place"):
        Storage("ftp9://somewhere")


def test_mcp_callers_cannot_name_a_folder_outside_the_workspace(tmp_path: Path) -> None:
    with confined_to(tmp_path):
        with pytest.raises(InvalidInputError, match="outside the workspace"):
            TRAIN_SUBMIT.parse({"data": "rows", "storage": "file:///etc"})
        TRAIN_SUBMIT.parse({"data": "rows", "storage": "s3://bucket/prefix"})
