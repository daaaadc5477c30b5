# pyright: basic
"""Download a Hugging Face repository: safetensors and tokenizer only, whole or not at all, resumable."""

import shutil
from pathlib import Path

import httpx
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from pipeline.core.errors import InvalidInputError, MissingDependencyError
from pipeline.core.files import staged_directory
from pipeline.core.runs import Run

_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "LICENSE*"]
_PROBE_SECONDS = 4.0


def hub_is_reachable() -> bool:
    """True when the hub answers within four seconds."""
    try:
        return httpx.head(constants.ENDPOINT, timeout=_PROBE_SECONDS, follow_redirects=True).status_code < 500
    except (httpx.HTTPError, OSError):
        return False


def download_from_hub(hub_id: str, revision: str, target: Path, *, chat_template: str, run: Run) -> None:
    """Fetch a repository into ``target``; partial files stay in ``models/.downloads`` and are continued.

    Our template replaces the repository's, because the whole chain relies on one template with tools in it.

    Raises:
        InvalidInputError: If the repository does not exist or is gated.
        MissingDependencyError: If the hub cannot be reached.
    """
    from pipeline.models.pull import record_source

    cache = target.parent / ".downloads" / hub_id.replace("/", "--")
    try:
        snapshot_download(hub_id, revision=revision, local_dir=cache, allow_patterns=_PATTERNS)
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise InvalidInputError(
            f"{hub_id}@{revision} cannot be read",
            hint="Check the name; accept a gated model's terms and set HF_TOKEN.",
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise MissingDependencyError(
            f"the model hub could not be reached: {type(error).__name__}",
            hint="Check the network, or use a starter model (`llmops models list`) or file:PATH.",
        ) from error
    with staged_directory(target) as staging:
        for path in cache.iterdir():
            if path.is_file():
                shutil.move(path, staging / path.name)
        (staging / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
        record_source(
            staging,
            name=target.name,
            origin=f"hub {hub_id}@{revision}",
            hub_id=hub_id,
            licence="see model card",
        )
    shutil.rmtree(cache, ignore_errors=True)
    run.log_metrics(source="hub", hub_id=hub_id)
