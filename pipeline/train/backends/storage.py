# pyright: basic
"""Copy run directories to and from a place that laptop and cluster both reach, by pyarrow's file systems.

A place is a folder (``file:///mnt/shared``) or a bucket (``s3://bucket/prefix``, ``gs://bucket/prefix``). Credentials are
those that the machine has; none pass through here.
"""

import re
from collections.abc import Callable
from pathlib import Path

from pyarrow import ArrowInvalid, fs

from pipeline.core.errors import InvalidInputError

_COMPLETE = "complete.json"  # a checkpoint without it is still being written
_CHECKPOINTS = "artifacts/checkpoints"
_CHECKPOINT = re.compile(rf"{_CHECKPOINTS}/checkpoint-(\d+)(?=/)")


class Storage:
    """A folder of run directories."""

    def __init__(self, uri: str) -> None:
        try:
            self.system, self.root = fs.FileSystem.from_uri(uri)
        except (ArrowInvalid, OSError) as error:
            raise InvalidInputError(
                f"{uri} is not a place for results: {error}",
                hint="Pass s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER that both sides reach.",
            ) from error

    def upload(self, run_folder: Path, *, with_checkpoints: bool) -> None:
        """Copy what has changed in a run directory; checkpoints only when they are whole.

        A checkpoint's marker goes up last, so that a marked checkpoint there is a whole one wherever this stops.
        """
        folder = f"{self.root}/{run_folder.name}"
        there = self._sizes(folder)
        for path in sorted(run_folder.rglob("*")):
            name = str(path.relative_to(run_folder))
            if not path.is_file() or not _is_wanted(path, run_folder):
                continue
            # Weights do not change under one name; small files do.
            if path.suffix == ".safetensors" and there.get(name) == path.stat().st_size:
                continue
            self._send(path, f"{folder}/{name}")
        if with_checkpoints:
            for checkpoint in _whole_checkpoints(run_folder):
                if f"{checkpoint.relative_to(run_folder)}/{_COMPLETE}" not in there:
                    self._send_checkpoint(checkpoint, f"{folder}/{checkpoint.relative_to(run_folder)}")
            self._remove_rotated(run_folder)

    def _send(self, path: Path, target: str) -> None:
        content = path.read_bytes()
        self.system.create_dir(target.rpartition("/")[0], recursive=True)
        with self.system.open_output_stream(f"{target}.part") as stream:
            stream.write(content)
        self.system.move(f"{target}.part", target)

    def _send_checkpoint(self, checkpoint: Path, target: str) -> None:
        try:
            names = _names(checkpoint)
            for name in names:
                if name != _COMPLETE:
                    self._send(checkpoint / name, f"{target}/{name}")
            # Training rotates checkpoints meanwhile: one that lost files before it was listed is not whole any more.
            if _names(checkpoint) == names:
                self._send(checkpoint / _COMPLETE, f"{target}/{_COMPLETE}")
        except FileNotFoundError:
            if (checkpoint / _COMPLETE).exists():
                raise

    def _remove_rotated(self, run_folder: Path) -> None:
        """Remove from the storage checkpoints that are gone here, once a newer one is whole there."""
        folder = f"{self.root}/{run_folder.name}"
        there = self._sizes(folder)
        steps = {match.group(): int(match[1]) for name in there if (match := _CHECKPOINT.match(name))}
        whole = {name for name in steps if f"{name}/{_COMPLETE}" in there}
        newest = max((steps[name] for name in whole if (run_folder / name / _COMPLETE).exists()), default=0)
        for name, step in steps.items():
            if (run_folder / name).exists() or step >= newest:
                continue
            if name in whole:
                # First, so that a removal that stops leaves no marked rest.
                self.system.delete_file(f"{folder}/{name}/{_COMPLETE}")
            self.system.delete_dir(f"{folder}/{name}")

    def download(self, run_id: str, run_folder: Path, wanted: Callable[[str], bool]) -> int:
        """Copy the wanted files of a run directory into a local one; return how many."""
        num_files = 0
        for name in self._sizes(f"{self.root}/{run_id}"):
            if wanted(name) and not name.endswith(".part"):
                target = run_folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with self.system.open_input_stream(f"{self.root}/{run_id}/{name}") as stream:
                    content = stream.read()
                part = target.with_name(f".{target.name}.part")
                part.write_bytes(content)
                part.replace(target)
                num_files += 1
        return num_files

    def _sizes(self, folder: str) -> dict[str, int]:
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        return {
            entry.path.removeprefix(f"{folder}/"): entry.size
            for entry in self.system.get_file_info(selector)
            if entry.type == fs.FileType.File
        }


def _is_wanted(path: Path, run_folder: Path) -> bool:
    if path.name.startswith(".") or path.name in {"heartbeat", "worker.json"}:
        return False
    return "checkpoints" not in path.relative_to(run_folder).parts


def _whole_checkpoints(run_folder: Path) -> list[Path]:
    return sorted(path.parent for path in run_folder.glob(f"{_CHECKPOINTS}/checkpoint-*/{_COMPLETE}"))


def _names(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )
