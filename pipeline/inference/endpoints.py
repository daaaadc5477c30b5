"""Servers of this workspace that are running: each keeps ``endpoint.json`` in its run directory."""

from typing import Literal

from pipeline.core.files import write_json
from pipeline.core.operation import Part
from pipeline.core.runs import Run, list_runs

ENDPOINT_FILE = "endpoint.json"


class Endpoint(Part):
    """Where a model answers. Holds no key."""

    base_url: str
    """OpenAI base URL."""
    models: list[str]
    """Names it serves, base first."""
    engine: Literal["embedded", "ollama"]
    """What computes."""
    model_path: str
    """File that is served."""
    num_restarts: int = 0
    """How often the server process died and was started again."""


def publish_endpoint(run: Run, endpoint: Endpoint) -> None:
    """Say where the run's server answers."""
    write_json(run.path / ENDPOINT_FILE, endpoint.model_dump(mode="json"))


def read_endpoint(run: Run) -> Endpoint | None:
    """Return what a run published, or None."""
    path = run.path / ENDPOINT_FILE
    return Endpoint.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def find_running(model: str | None = None) -> tuple[Run, Endpoint] | None:
    """Return the newest running server, or None; only one that has ``model`` when a name is given."""
    for run in list_runs():
        if run.state() != "running":
            continue
        endpoint = read_endpoint(run)
        if endpoint is not None and (model is None or model in endpoint.models):
            return run, endpoint
    return None
