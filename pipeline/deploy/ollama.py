"""Hand a GGUF to a running Ollama over HTTP: upload, create, and check that it can call tools.

No TEMPLATE is sent: Ollama 0.30 and later use the one inside the GGUF, the one the model was trained with. Does not
start Ollama and does not convert anything.
"""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx

from pipeline.core.errors import (
    IntegrityError,
    InvalidInputError,
    MissingDependencyError,
    OperationFailedError,
)
from pipeline.core.files import sha256_file
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.inference.client import open_http, send
from pipeline.inference.model_folder import ServableModel

_CHUNK_BYTES = 1 << 20
_FIRST_VERSION_WITH_GGUF_TEMPLATES = (0, 30)
_OK, _CREATED, _NOT_FOUND = 200, 201, 404


def create_in_ollama(
    url: str, name: str, model: ServableModel, *, context_length: int, force: bool, run: Run | None = None
) -> list[str]:
    """Make a model in Ollama from a GGUF file; return warnings.

    Raises:
        MissingDependencyError: If Ollama does not answer or breaks off.
        IntegrityError: If what arrived there is not what was sent.
        OperationFailedError: If Ollama refuses the model, or sees no tools in it and ``force`` is false.
    """
    with open_http(url, api_key="") as http:
        warnings = _check_version(http, url)
        digest = _upload(http, url, model.path, run)
        _create(http, url, name, digest, _parameters(model.path.parent, context_length))
        return warnings + _check_tools(http, url, name, force=force)


def _check_version(http: httpx.Client, url: str) -> list[str]:
    try:
        version = str(send(http, "GET", f"{url}/api/version").json()["version"])
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"no Ollama at {url}",
            hint="Start it (`ollama serve`), set OLLAMA_HOST, or use --engine embedded.",
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidInputError(f"{url} is not an Ollama", hint="Check OLLAMA_HOST.") from error
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < _FIRST_VERSION_WITH_GGUF_TEMPLATES:
        return [f"Ollama {version} does not use the template inside a GGUF; update it to 0.30 or later"]
    return []


def _upload(http: httpx.Client, url: str, path: Path, run: Run | None) -> str:
    size = path.stat().st_size
    with Progress(f"digest {path.name}", size, unit="bytes", run=run) as progress:
        digest = f"sha256:{sha256_file(path, progress.advance)}"
    blob = f"{url}/api/blobs/{digest}"
    if send(http, "HEAD", blob).status_code == _OK:
        return digest
    with Progress(f"upload {path.name}", size, unit="bytes", run=run) as progress:
        reply = send(
            http, "POST", blob, content=_read_pieces(path, progress), headers={"Content-Length": str(size)}
        )
    if reply.status_code not in {_OK, _CREATED}:
        raise IntegrityError(
            f"Ollama refused the upload of {path.name}: {_error_text(reply)}",
            hint="If the file was being written, wait and try again; otherwise check Ollama's disk and log.",
            status=reply.status_code,
        )
    return digest


def _read_pieces(path: Path, progress: Progress) -> Generator[bytes]:
    with path.open("rb") as handle:
        while piece := handle.read(_CHUNK_BYTES):
            yield piece
            progress.advance(len(piece))


def _parameters(folder: Path, context_length: int) -> dict[str, Any]:
    """Return the parameters of the folder's Modelfile (stop tokens), greedy decoding and the context."""
    parameters: dict[str, Any] = {"temperature": 0, "num_ctx": context_length}
    modelfile = folder / "Modelfile"
    lines = modelfile.read_text(encoding="utf-8").splitlines() if modelfile.is_file() else []
    stops = [line.split(maxsplit=2)[2].strip('"') for line in lines if line.startswith("PARAMETER stop ")]
    return parameters | ({"stop": stops} if stops else {})


def _create(http: httpx.Client, url: str, name: str, digest: str, parameters: dict[str, Any]) -> None:
    body = {"model": name, "files": {"model.gguf": digest}, "parameters": parameters, "stream": True}
    with Progress(f"create {name} in Ollama", 0):
        reply = send(http, "POST", f"{url}/api/create", json=body)
    if reply.status_code != _OK:
        raise OperationFailedError(
            f"Ollama refused to create {name}: {_error_text(reply)}", hint="See Ollama's log."
        )
    statuses: list[str] = []
    for line in reply.text.splitlines():
        event: dict[str, Any] = json.loads(line) if line.strip() else {}
        if "error" in event:  # it comes inside the stream, with HTTP status 200
            raise OperationFailedError(
                f"Ollama could not create {name}: {event['error']}",
                hint="See Ollama's log.",
                statuses=statuses,
            )
        statuses.append(str(event.get("status", "")))
    if not statuses or statuses[-1] != "success":
        raise OperationFailedError(
            f"Ollama ended the creation of {name} without success", hint="Try again.", statuses=statuses
        )


def _check_tools(http: httpx.Client, url: str, name: str, *, force: bool) -> list[str]:
    reply = send(http, "POST", f"{url}/api/show", json={"model": name})
    if reply.status_code == _NOT_FOUND:
        raise OperationFailedError(f"Ollama created {name} and then lost it", hint="See Ollama's log.")
    capabilities: list[str] = reply.json().get("capabilities") or []
    if "tools" in capabilities:
        return []
    problem = f"Ollama sees no tools in {name} (capabilities: {', '.join(capabilities) or 'none'})"
    if force:
        return [problem]
    raise OperationFailedError(
        f"{problem}; an agent on it would never call one",
        hint=f"Serve a model whose template has tools, or pass --force; remove this one with `ollama rm {name}`.",
        capabilities=capabilities,
    )


def _error_text(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"])
    except (ValueError, LookupError, TypeError):
        return f"status {reply.status_code} {reply.text[:200]}".strip()
