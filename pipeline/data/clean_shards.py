"""``data.clean_shards``: the cleaning of ``data.clean`` over a folder of files, in many processes by datatrove.

Repeats are sought across all files; the first in the order of file names stays. Does not look for contradictions
(`data validate` does). For a Slurm or Ray cluster give the stages of `backends/datatrove_clean.py` to datatrove's
executors of that name (docs/decisions/0015).
"""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

from pydantic import Field

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.extras import require
from pipeline.core.files import read_json
from pipeline.core.operation import Operation, Result
from pipeline.core.paths import WorkspacePath, resolve_path, shown_path
from pipeline.core.runs import Run
from pipeline.data.clean_settings import CleanSettings

_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")


class DataCleanShardsRequest(CleanSettings):
    """Which folder to clean, and how."""

    folder: WorkspacePath = Field(min_length=1)
    """Folder with .jsonl files (also .gz, .zst) in any of the three formats."""
    out: WorkspacePath = Field(min_length=1)
    """Another folder, for a cleaned file and a drop list per input file; files of these names are replaced."""
    num_workers: int | None = Field(default=None, ge=1)
    """Processes at the same time; default is one per processor."""


class DataCleanShardsResult(Result):
    """What stayed and what went."""

    run_id: str
    """Run directory."""
    out: str
    """Folder of NAME.jsonl and NAME.drops.jsonl."""
    num_files: int
    """Files read."""
    num_kept: int
    """Rows that stay."""
    num_dropped: dict[str, int]
    """Drops by reason."""


def clean_folder(request: DataCleanShardsRequest, run: Run) -> DataCleanShardsResult:
    """Clean all data files of a folder as one data set, in several processes, with the rules of data clean.

    Raises:
        InvalidInputError: If a file cannot be used, or a row is none and the step `schema` is not taken.
        MissingDependencyError: If datatrove is not installed.
    """
    require("datatrove", extra="scale")
    require("datasketch", "duckdb", "xxhash", extra="data")
    from pipeline.data.backends.datatrove_clean import ERROR_FILE, clean_shards, shard_name

    folder, out = resolve_path(request.folder), resolve_path(request.out)
    shards = _find_shards(folder)
    if out.exists() and folder.samefile(out):
        raise InvalidInputError("the results would replace the input", hint="Name another folder with --out.")
    names = [shard_name(shard) for shard in shards]
    if len(set(names)) != len(names):
        raise InvalidInputError("two files differ in their endings only", hint="Rename or join them.")
    request.make_filter()
    work = run.path / "scratch"  # kept until all is done: datatrove resumes by task
    work.mkdir(exist_ok=True)
    (work / ERROR_FILE).unlink(missing_ok=True)
    settings = CleanSettings.model_validate(request.model_dump(include=set(CleanSettings.model_fields)))
    try:
        clean_shards(settings, shards, out, work, request.num_workers or os.cpu_count() or 1)
    except RuntimeError as error:
        if (work / ERROR_FILE).exists():
            found = read_json(work / ERROR_FILE)
            raise InvalidInputError(found["message"], hint=found["hint"]) from error
        raise OperationFailedError(
            str(error), hint=f"Mend the cause, then `llmops jobs resume {run.id}`."
        ) from error
    shutil.rmtree(work)
    drops: Counter[str] = Counter()
    num_kept = 0
    for name in names:
        with (out / f"{name}.jsonl").open("rb") as rows:
            num_kept += sum(1 for _ in rows)
        with (out / f"{name}.drops.jsonl").open(encoding="utf-8") as lines:
            drops.update(json.loads(line)["reason"] for line in lines)
    return DataCleanShardsResult(
        run_id=run.id,
        out=shown_path(out),
        num_files=len(shards),
        num_kept=num_kept,
        num_dropped=dict(drops.most_common()),
        warnings=request.list_doubts(),
    )


DATA_CLEAN_SHARDS = Operation(
    name="data.clean_shards",
    request=DataCleanShardsRequest,
    result=DataCleanShardsResult,
    run=clean_folder,
    long_running=True,
    destructive=True,
    positional=("folder",),
)


def _find_shards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a folder", hint="Name a folder of JSON Lines files.")
    shards = sorted(path for path in folder.iterdir() if path.name.endswith(_ENDINGS) and path.is_file())
    if not shards:
        raise InvalidInputError(f"{folder} has no {', '.join(_ENDINGS)} files", hint="Check the name.")
    return shards
