# pyright: basic
"""Copy run directories to and from a place that laptop and cluster both reach, by pyarrow's file systems.

A place is a folder (``file:///mnt/shared``) or a bucket (``s3://bucket/prefix``, ``gs://bucket/prefix``). Credentials are
those that the machine has; none pass through here.
"""

from collections.abc import Callable
from pathlib import Path

from pyarrow import ArrowInvalid, fs

from pipeline.core.errors import InvalidInputError

_COMPLETE = "complete.json"  # a checkpoint without it is still being written


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
        """Copy what has changed in a run directory; checkpoints only when they are whole."""
        folder = f"{self.root}/{run_folder.name}"
        there = self._sizes(folder)
        for path in sorted(run_folder.rglob("*")):
            name = str(path.relative_to(run_folder))
            if not path.is_file() or not _is_wanted(path, run_folder, with_checkpoints=with_checkpoints):
                continue
            content = path.read_bytes()
            # Weights do not change under one name; small files do.
            if there.get(name) == len(content) and path.suffix == ".safetensors":
                continue
            target = f"{folder}/{name}"
            self.system.create_dir(target.rpartition("/")[0], recursive=True)
            with self.system.open_output_stream(f"{target}.part") as stream:
                stream.write(content)
            self.system.move(f"{target}.part", target)

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


def _is_wanted(path: Path, run_folder: Path, *, with_checkpoints: bool) -> bool:
    parts = path.relative_to(run_folder).parts
    if path.name.startswith(".") or path.name in {"heartbeat", "worker.json"}:
        return False
    if "checkpoints" not in parts:
        return True
    step = next(
        (
            run_folder.joinpath(*parts[: i + 1])
            for i, part in enumerate(parts)
            if part.startswith("checkpoint-")
        ),
        None,
    )
    return with_checkpoints and step is not None and (step / _COMPLETE).exists()
