# pyright: basic
"""Upload files to a Hugging Face hub; the token is the one that `hf auth login` stored or HF_TOKEN holds."""

from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from pipeline.core.errors import OperationFailedError


def upload(folder: Path, repo: str, names: list[str], *, private: bool) -> str:
    """Upload the named files as one commit; return its address.

    Raises:
        OperationFailedError: If the hub cannot be reached or refuses.
    """
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=names, commit_message="Upload a verified export"
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, httpx2.HTTPError, OSError) as error:
        raise OperationFailedError(
            f"the hub did not take {repo}: {str(error).splitlines()[0][:300]}",
            hint="Check the network and the token: `hf auth login`, or HF_TOKEN with write access.",
        ) from error
    return str(commit.commit_url)
