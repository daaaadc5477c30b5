"""Operation ``export.push``: an export to a model hub; says what it would upload unless told to do it."""

from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.extras import require
from pipeline.core.files import read_json, sha256_file
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.core.progress import Progress
from pipeline.core.refs import resolve_path
from pipeline.core.runs import Run
from pipeline.core.units import format_bytes
from pipeline.export.card import RECORD
from pipeline.export.gate_report import GATE_FILE, read_report, served_files


class ExportPushRequest(Request):
    """What to publish, and where."""

    model: WorkspaceRef = Field(default="models/task-agent", min_length=1)
    """Export folder whose gate passed."""
    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")
    """Repository on the hub, OWNER/NAME; made if it does not exist."""
    private: bool = True
    """Make a new repository private."""
    dry_run: bool = True
    """Only say what would be uploaded; nothing leaves the machine."""


class ExportPushResult(Result):
    """What was, or would be, uploaded."""

    repo: str
    """Repository on the hub."""
    uploaded: bool
    """False after a dry run."""
    files: dict[str, int]
    """Size in bytes by file name."""
    url: str | None
    """Commit on the hub."""


def push_export(request: ExportPushRequest, run: Run) -> ExportPushResult:
    """Upload an export whose gate passed to a model hub; without --no-dry-run it only lists the files.

    Raises:
        InvalidInputError: If it is not an export.
        OperationFailedError: If the gate has not passed, a file was changed since, or the hub refuses.
    """
    folder = resolve_path(request.model)
    files = _check_export(folder)
    total = format_bytes(sum(files.values()))
    if request.dry_run:
        return ExportPushResult(
            repo=request.repo,
            uploaded=False,
            files=files,
            url=None,
            next_step=f"Nothing was uploaded. To publish {total}: "
            f"llmops export push {request.model} --repo {request.repo} --no-dry-run",
        )
    require("huggingface_hub", extra="train")
    from pipeline.export.backends.hub_upload import upload

    with Progress(f"upload {total}", 1, run=run) as progress:
        url = upload(folder, request.repo, sorted(files), private=request.private)
        progress.advance()
    return ExportPushResult(repo=request.repo, uploaded=True, files=files, url=url, next_step=url)


def _check_export(folder: Path) -> dict[str, int]:
    if not (folder / RECORD).is_file():
        raise InvalidInputError(f"{folder} is not an export", hint="Name a folder that `export run` wrote.")
    recorded: dict[str, dict[str, Any]] = read_json(folder / RECORD)["files"]
    _check_gate(folder, recorded)
    for name, facts in recorded.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != facts["sha256"]:
            raise OperationFailedError(
                f"{name} is not the file that was exported", hint="Run `llmops export run` again."
            )
    return {name: (folder / name).stat().st_size for name in (*recorded, RECORD, GATE_FILE)}


def _check_gate(folder: Path, recorded: dict[str, dict[str, Any]]) -> None:
    gate = read_report(folder)
    if gate is None or not gate.passed:
        raise OperationFailedError(
            f"{folder.name} has not passed its export gate", hint="Run `llmops export verify` first."
        )
    unproven = [name for name in served_files(recorded) if not gate.proves(name, recorded[name]["sha256"])]
    if unproven:
        raise OperationFailedError(
            f"the export gate of {folder.name} did not look at {', '.join(unproven)}",
            hint="Run `llmops export verify` on the folder.",
        )


EXPORT_PUSH = Operation(
    name="export.push",
    request=ExportPushRequest,
    result=ExportPushResult,
    run=push_export,
    long_running=True,
    destructive=True,
    positional=("model",),
    surfaces=("cli",),  # what leaves the machine is a person's decision, not a model's
)
