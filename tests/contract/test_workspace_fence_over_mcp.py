"""Over MCP no request field can name a file outside the workspace; every field that names one is fenced."""

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any, get_args, get_origin

import anyio
import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel

from mcp_server.offers import Offer
from mcp_server.server import build_server
from pipeline.core.paths import WorkspacePath, WorkspaceRef
from pipeline.operations import OPERATIONS

FENCES: tuple[Any, ...] = tuple(get_args(fence)[1] for fence in (WorkspacePath, WorkspaceRef))
PRICED = ("model", "prices.model", "prices.source")
"""Fields of operations that ask a paid endpoint: the name of its model, and rows of a price table."""
UNFENCED = {
    "evals.run: model",  # the name of a model on a server, not a file
    "deploy.load: model",  # the same
    "deploy.serve: adapter",  # NAME=PATH: its own check fences the part after the sign, see below
    "economics.compare: api_model",  # names of models in a price table, and where a price was read
    "economics.compare: prices.model",
    "economics.compare: prices.source",
    "data.report: price.source",
    "decide.recommend: costs.api_model",
    "evals.persona: model",  # names of models on servers
    "evals.persona: judge_model",
    "evals.robustness: model",
    *(f"synth.{verb}: {field}" for verb in ("generate", "judge", "resolve", "estimate") for field in PRICED),
}
PATH_WORDS = re.compile(
    r"(^|_)(path|file|folder|dir|directory|model|adapter|data|dataset|gguf|checkpoint|out|output|into|source"
    r"|report|database|store|template|reference|run|base|tuned|predictions|baseline|log)s?(_|$)"
)
ON_MCP = [entry for entry in OPERATIONS if "mcp" in entry.load().surfaces]


def string_fields(
    model: type[BaseModel], prefix: tuple[str, ...] = ()
) -> Generator[tuple[tuple[str, ...], Any, list[Any]]]:
    """Yield path, annotation and metadata of each field, nested ones too."""
    for name, field in model.model_fields.items():
        yield (*prefix, name), field.annotation, list(field.metadata)
        for part in models_in(field.annotation):
            yield from string_fields(part, (*prefix, name))


def models_in(annotation: Any) -> Generator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def is_fenced(annotation: Any, metadata: list[Any]) -> bool:
    if any(item in FENCES for item in metadata):
        return True
    return any(is_fenced(part, list(getattr(part, "__metadata__", ()))) for part in get_args(annotation))


def holds_free_text(annotation: Any) -> bool:
    """True when any string fits: not a choice, not a number."""
    return annotation is str or any(
        holds_free_text(p) for p in get_args(annotation) if isinstance(p, type) or get_args(p)
    )


FENCED = [
    pytest.param(entry, path, annotation, id=f"{entry.name}:{'.'.join(path)}")
    for entry in ON_MCP
    for path, annotation, metadata in string_fields(entry.load().request)
    if is_fenced(annotation, metadata)
]


def call(name: str, arguments: dict[str, Any]) -> CallToolResult:
    async def ask() -> CallToolResult:
        async with Client(build_server(Offer.of_groups(["all"]))) as client:
            result = await client.call_tool(name, arguments)
            assert isinstance(result, CallToolResult)
            return result

    return anyio.run(ask)


def test_every_field_whose_name_means_a_file_or_a_model_is_fenced() -> None:
    unfenced = [
        f"{entry.name}: {'.'.join(path)}"
        for entry in ON_MCP
        for path, annotation, metadata in string_fields(entry.load().request)
        if PATH_WORDS.search(path[-1])
        and not path[-1].endswith(
            ("_id", "_ids", "_url")
        )  # run ids are looked up in a list, never joined to a path
        and holds_free_text(annotation)
        and not any(hasattr(item, "pattern") for item in metadata)
        and not is_fenced(annotation, metadata)
    ]
    assert set(unfenced) == UNFENCED


def test_there_are_fenced_fields_to_look_at() -> None:
    assert len(FENCED) >= 5


@pytest.mark.parametrize(("entry", "path", "annotation"), FENCED)
def test_paths_that_leave_the_workspace_are_refused(
    entry: Any,
    path: tuple[str, ...],
    annotation: Any,
    workspace: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    (workspace / "way-out").symlink_to(tmp_path_factory.mktemp("outside"))
    for value in ("../secret", "/etc/passwd", "way-out/secret", "a\0b", "-rf"):
        arguments: Any = [value] if get_origin(annotation) in (list, tuple) else value
        for name in reversed(path):
            arguments = {name: arguments}
        result = call(entry.name.replace(".", "_"), arguments)
        assert result.is_error
        (block,) = result.content
        assert isinstance(block, TextContent)
        error = json.loads(block.text)
        assert error["code"] == "invalid_input"
        problems = [problem for problem in error["details"]["problems"] if problem.startswith(path[0])]
        assert re.search("outside the workspace|not allowed here|NUL", " ".join(problems)), error
    assert not any(path.is_dir() for path in (workspace / "runs").glob("*"))  # nothing was submitted


def test_the_path_of_a_named_adapter_is_fenced_too(workspace: Path) -> None:
    result = call("deploy_serve", {"adapter": ["style=/etc/passwd"]})
    assert result.is_error
    assert "outside the workspace" in str(result.content[0])
