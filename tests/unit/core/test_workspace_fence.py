"""Paths and references: free for the shell's user, fenced for MCP callers."""

from pathlib import Path

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, confined_to, resolve_path


class Inner(Part):
    """Nested."""

    file: WorkspacePath = "x"
    """A file."""


class OpenRequest(Request):
    """What to open."""

    path: WorkspacePath = "a"
    """A path."""
    model: WorkspaceRef = "b"
    """A reference."""
    files: tuple[WorkspacePath, ...] = ()
    """Several."""
    maybe: WorkspacePath | None = None
    """Optional."""
    by_name: dict[str, WorkspaceRef] = {}
    """By name."""
    inner: Inner = Inner()
    """Nested."""


def open_it(request: OpenRequest) -> Result:
    """Open."""
    return Result(next_step=request.path)


OPEN = Operation(name="demo.open", request=OpenRequest, result=Result, run=open_it)
BAD_PATHS = ("../x", "a/../../x", "/etc/passwd", "-rf", "~/x", "link/x", "a\0b", "..", "runs/../..")
GOOD_PATHS = ("", "a", "a/b.txt", ".hidden", "a/..b", "loop/a", "not/there/yet", "a-b/-c")


@pytest.fixture
def fenced_workspace(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (workspace / "link").symlink_to(tmp_path_factory.mktemp("outside"))
    (workspace / "loop").symlink_to(workspace)
    return workspace


@pytest.mark.parametrize("value", BAD_PATHS)
@pytest.mark.parametrize("shape", ["path", "model", "files", "maybe", "by_name", "inner"])
def test_a_path_that_leaves_the_workspace_is_refused_wherever_it_stands(
    fenced_workspace: Path, value: str, shape: str
) -> None:
    values = {"files": ["ok", value], "by_name": {"k": value}, "inner": {"file": value}}.get(shape, value)
    with confined_to(fenced_workspace), pytest.raises(InvalidInputError, match=shape):
        OPEN.parse({shape: values})


@pytest.mark.parametrize("value", GOOD_PATHS)
def test_a_path_inside_the_workspace_is_accepted_unchanged(fenced_workspace: Path, value: str) -> None:
    with confined_to(fenced_workspace):
        request = OPEN.parse({"path": value, "model": value, "files": [value], "maybe": value})
    assert (request.path, request.model, request.files, request.maybe) == (value, value, (value,), value)


def test_an_absolute_path_inside_the_workspace_is_accepted(fenced_workspace: Path) -> None:
    value = str(fenced_workspace / "models" / "x.gguf")
    with confined_to(fenced_workspace):
        assert OPEN.parse({"path": value, "model": f"file:{value}"}).path == value


def test_a_neighbour_whose_name_starts_like_the_workspace_is_outside(fenced_workspace: Path) -> None:
    with confined_to(fenced_workspace), pytest.raises(InvalidInputError, match="outside"):
        OPEN.parse({"path": f"{fenced_workspace}-secret/x"})


@pytest.mark.parametrize(
    "value",
    [
        "hf:org/name",
        "hf:org/name@main",
        "ollama:qwen3:4b",
        "run:20260101T000000Z-x-1/adapter",
        "smollm2-135m",
    ],
)
def test_references_that_are_not_paths_are_accepted(fenced_workspace: Path, value: str) -> None:
    with confined_to(fenced_workspace):
        assert OPEN.parse({"model": value}).model == value


@pytest.mark.parametrize(
    "value",
    [
        "hf:../x", "hf:org/..", "hf:-x/y", "hf:/etc/passwd", "ollama:-x", "ollama:../../x",
        "run:../models/x", "run:a/../../../x", "run:/etc/passwd", "file:/etc/passwd", "file:../x", "file:-x",
    ],
)  # fmt: skip
def test_references_that_hide_a_way_out_are_refused(fenced_workspace: Path, value: str) -> None:
    with confined_to(fenced_workspace), pytest.raises(InvalidInputError, match="model"):
        OPEN.parse({"model": value})


def test_without_the_fence_only_nul_is_refused(fenced_workspace: Path) -> None:
    assert OPEN.parse({"path": "/etc/hosts", "model": "file:../x"}).path == "/etc/hosts"
    for field in ("path", "model"):
        with pytest.raises(InvalidInputError, match="NUL"):
            OPEN.parse({field: "a\0b"})


def test_the_fence_falls_when_its_block_ends(fenced_workspace: Path) -> None:
    with pytest.raises(InvalidInputError), confined_to(fenced_workspace):
        OPEN.parse({"path": "/etc/hosts"})
    assert OPEN.parse({"path": "/etc/hosts"}).path == "/etc/hosts"


def test_relative_paths_start_at_the_workspace(workspace: Path) -> None:
    assert resolve_path("models/x") == workspace / "models" / "x"
    assert resolve_path("/etc/hosts") == Path("/etc/hosts")
