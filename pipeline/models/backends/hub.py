# pyright: basic
"""Download a Hugging Face repository: safetensors and tokenizer only, verified, whole or not at all, resumable."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    FileMetadataError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from pipeline.core.errors import IntegrityError, InvalidInputError, MissingDependencyError
from pipeline.core.files import require_disk, sha256_file, staged_directory
from pipeline.core.runs import Run

_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "LICENSE*"]
_PROBE_SECONDS = 4.0
# What the hub client raises when the network, a proxy or the hub itself fails (seen by running it against each).
_NETWORK_ERRORS = (
    HfHubHTTPError,
    FileMetadataError,
    LocalEntryNotFoundError,
    httpx2.HTTPError,
    ConnectionError,
    TimeoutError,
)


def hub_is_reachable() -> bool:
    """True when the hub answers within four seconds."""
    try:
        endpoint = HfApi().endpoint
        return httpx2.head(endpoint, timeout=_PROBE_SECONDS, follow_redirects=True).status_code < 400
    except (httpx2.HTTPError, OSError):
        return False


def download_from_hub(hub_id: str, revision: str, target: Path, *, chat_template: str, run: Run) -> None:
    """Fetch a repository into ``target``; partial files stay in ``models/.downloads`` and are continued.

    Our template replaces the repository's, because the whole chain relies on one template with tools in it.

    Raises:
        InvalidInputError: If the repository or revision does not exist or is gated.
        IntegrityError: If a file is not what the hub's listing says.
        MissingDependencyError: If the hub cannot be reached.
        DoesNotFitError: If the disk cannot hold it.
    """
    from pipeline.models.pull import record_source

    cache = target.parent / ".downloads" / hub_id.replace("/", "--")
    commit, listing = _list_files(hub_id, revision)
    require_disk(target, sum(entry.size or 0 for entry in listing), f"Pulling {hub_id}")
    try:
        # The commit, not the branch: what is listed, downloaded and recorded is then one state.
        snapshot_download(hub_id, revision=commit, local_dir=cache, allow_patterns=_PATTERNS)
    except _NETWORK_ERRORS as error:
        raise _unreachable(error) from error
    # The client hands out an incomplete folder when the connection goes away, so nothing is taken on trust.
    for entry in listing:
        _check_file(cache / entry.rfilename, entry)
    with staged_directory(target) as staging:
        for path in cache.iterdir():
            if path.is_file():
                shutil.move(path, staging / path.name)
        (staging / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
        record_source(
            staging,
            name=target.name,
            origin=f"hub {hub_id}@{commit}",
            hub_id=hub_id,
            licence="see model card",
        )
    shutil.rmtree(cache, ignore_errors=True)
    run.log_metrics(source="hub", hub_id=hub_id, commit=commit)


def _list_files(hub_id: str, revision: str) -> tuple[str, list[Any]]:
    """Return the commit behind a revision and its files (top folder only) with sizes and digests."""
    try:
        repository = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:  # a gated one is a kind of not found
        raise InvalidInputError(
            f"{hub_id}@{revision} cannot be read",
            hint="Check the name and revision; accept a gated model's terms and set HF_TOKEN.",
        ) from error
    except _NETWORK_ERRORS as error:
        raise _unreachable(error) from error
    files = [entry for entry in repository.siblings or [] if "/" not in entry.rfilename]
    kept = list(filter_repo_objects(files, allow_patterns=_PATTERNS, key=lambda entry: entry.rfilename))
    if not any(entry.rfilename.endswith(".safetensors") for entry in kept):
        raise InvalidInputError(
            f"{hub_id}@{revision} has no safetensors weights", hint="Choose a repository that has."
        )
    return str(repository.sha), kept


def _check_file(path: Path, entry: Any) -> None:
    if not path.is_file():
        raise MissingDependencyError(
            f"{path.name} did not arrive from the hub", hint="Pull again; what has arrived is kept."
        )
    found = sha256_file(path) if entry.lfs else _git_blob_id(path)
    if found != (entry.lfs.sha256 if entry.lfs else entry.blob_id):
        path.unlink()
        raise IntegrityError(
            f"{path.name} is not the file that the hub lists", hint="It was removed; pull again."
        )


def _git_blob_id(path: Path) -> str:
    """Return the SHA-1 that git names a blob by (small files on the hub have no SHA-256)."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _unreachable(error: Exception) -> MissingDependencyError:
    return MissingDependencyError(
        f"the model hub could not be reached: {type(error).__name__}",
        hint="Check the network, or use the starter model smollm2-135m or a folder as file:PATH.",
    )
