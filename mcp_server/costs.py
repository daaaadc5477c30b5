"""What a call would spend or replace: an agent must have this confirmed, a person at a shell has decided already.

Returns a sentence for the dry run, or nothing when the call is free. Only looks at the request and at what exists.
"""

from collections.abc import Callable
from typing import Any

from pipeline.core.operation import Operation, Request
from pipeline.core.paths import resolve_path, shown_path
from pipeline.core.runs import Run
from pipeline.core.settings import Settings


def asks_first(operation: Operation[Any, Any]) -> bool:
    """True when some request of the operation has a cost, so that its tool takes a confirmation token."""
    return operation.name in _COSTS or (operation.destructive and "out" in operation.request.model_fields)


def cost_of(operation: Operation[Any, Any], request: Request) -> str:
    """Return what would be spent or replaced, as a sentence; empty when nothing."""
    if special := _COSTS.get(operation.name):
        return special(request)
    return _replaced(request) if asks_first(operation) else ""


def _replaced(request: Any) -> str:
    out = request.out
    if not out or getattr(request, "dry_run", False):
        return ""
    path = resolve_path(out)
    is_there = any(path.iterdir()) if path.is_dir() else path.exists()
    return f"Files in {shown_path(path)} are replaced." if is_there else ""


def _training(request: Any) -> str:
    return (
        f"Trains {request.model} on {request.data} with {_recipe(request)}: minutes to hours of this machine's processor or GPU, "
        "and a checkpoint folder of up to several times the model's size. vram_estimate says whether it fits."
    )


def _recipe(request: Any) -> str:
    return "the given recipe" if getattr(request, "recipe", None) else f"preset {request.preset}"


def _quickstart(_: Any) -> str:
    return "Trains and measures a model from nothing: about 35 minutes on two cores and 8 GB of memory."


def _export(request: Any) -> str:
    folder = Settings.load().models_dir / request.name
    return f"{shown_path(folder)} is replaced as a whole." if folder.exists() else ""


def _pull(request: Any) -> str:
    return f"Downloads {request.model} from the hub into models/." if request.model.startswith("hf:") else ""


def _serve(request: Any) -> str:
    if request.engine != "ollama":
        return ""
    return (
        f"Hands the model to Ollama at {Settings.load().ollama_url}; one of the same name there is replaced."
    )


def _cancel(request: Any) -> str:
    run = Run.open(request.run_id)
    state = run.state()
    return f"Stops {run.id}, which is {state}." if state in {"queued", "running"} else ""


def _money(request: Any) -> str:
    if getattr(request, "writer", "program") == "program":
        return _replaced(request)
    limit = getattr(request, "max_cost_usd", None)
    return f"Asks a paid or remote model; the limit is {limit} USD. {_replaced(request)}".strip()


_COSTS: dict[str, Callable[[Any], str]] = {
    "quickstart.run": _quickstart,
    "models.pull": _pull,
    "synth.generate": _money,
    "train.run": _training,
    "export.run": _export,
    "deploy.serve": _serve,
    "jobs.cancel": _cancel,
}
