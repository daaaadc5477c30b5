from pathlib import Path

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.refs import ModelRef, resolve_path
from pipeline.core.runs import Run


@pytest.mark.parametrize(
    ("text", "kind", "location", "revision", "artifact"),
    [
        ("hf:org/name@abc", "hf", "org/name", "abc", ""),
        ("hf:org/name", "hf", "org/name", None, ""),
        ("file:/a/b c.gguf", "file", "/a/b c.gguf", None, ""),
        ("run:20260101T000000Z-x/gguf/m.gguf", "run", "20260101T000000Z-x", None, "gguf/m.gguf"),
        ("ollama:task-agent:latest", "ollama", "task-agent:latest", None, ""),
        ("models/task-agent", "path", "models/task-agent", None, ""),
        ("smollm2-135m", "path", "smollm2-135m", None, ""),
        ("C:/models/x", "path", "C:/models/x", None, ""),
    ],
)
def test_a_reference_has_these_parts_and_prints_as_typed(
    text: str, kind: str, location: str, revision: str | None, artifact: str
) -> None:
    ref = ModelRef.parse(text)
    assert (ref.kind, ref.location, ref.revision, ref.artifact) == (kind, location, revision, artifact)
    assert str(ref) == text


@pytest.mark.parametrize("text", ["", " ", "hf:", "hf:name", "hf:a/b/c", "run:", "run:/x", "file:", "a\0b"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a reference"):
        ModelRef.parse(text)


def test_a_bare_name_is_a_model_first_and_a_path_second(workspace: Path) -> None:
    (workspace / "thing").mkdir()
    assert resolve_path("thing") == workspace / "thing"
    (workspace / "models" / "thing").mkdir(parents=True)
    assert resolve_path("thing") == workspace / "models" / "thing"
    assert resolve_path("./thing") == workspace / "thing"
    assert resolve_path("file:thing") == workspace / "thing"


def test_a_missing_model_says_which_there_are(workspace: Path) -> None:
    (workspace / "models" / "task-agent").mkdir(parents=True)
    (workspace / "models" / ".downloads").mkdir()
    with pytest.raises(InvalidInputError, match="there is no 'task-agnet'") as failed:
        resolve_path("task-agnet")
    assert "task-agent" in failed.value.hint
    assert ".downloads" not in failed.value.hint


def test_a_run_artifact_is_found_with_and_without_the_artifacts_folder(workspace: Path) -> None:
    run = Run.create("train.run", {})
    (run.artifacts / "adapter").mkdir()
    expected = run.artifacts / "adapter"
    assert resolve_path(f"run:{run.id}/adapter") == expected
    assert resolve_path(f"run:{run.id}/artifacts/adapter") == expected
    assert resolve_path(f"run:{run.id}") == run.artifacts
    with pytest.raises(InvalidInputError) as failed:
        resolve_path(f"run:{run.id}/gguf")
    assert "has adapter." in failed.value.hint


def test_a_run_reference_cannot_leave_its_run(workspace: Path) -> None:
    run = Run.create("train.run", {})
    with pytest.raises(InvalidInputError, match="leaves its run"):
        resolve_path(f"run:{run.id}/../../..")


def test_a_hub_reference_is_the_folder_it_was_pulled_into(workspace: Path) -> None:
    with pytest.raises(InvalidInputError) as failed:
        resolve_path("hf:Org/Name@main")
    assert failed.value.hint == "Run `llmops models pull hf:Org/Name@main`."
    (workspace / "models" / "name").mkdir(parents=True)
    assert resolve_path("hf:Org/Name@main") == workspace / "models" / "name"


def test_an_ollama_model_is_not_a_file(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="inside Ollama"):
        resolve_path("ollama:x")
