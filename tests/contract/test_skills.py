"""The Agent Skills are valid for two independent validators and name only what exists."""

import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from skills_ref.validator import validate

from mcp_server.find import CALL, FIND
from pipeline.operations import OPERATIONS

SKILLS = Path(__file__).resolve().parents[2] / ".claude" / "skills"
NAMES = ("llmops-compute-planner", "llmops-data-engineer", "llmops-decision-framework", "llmops-fine-tuner")
MAX_BODY_LINES = 500
MIN_TRIGGERS = 8
TOOLS = {entry.name.replace(".", "_") for entry in OPERATIONS} | {FIND, CALL, "confirm_token"}
PARTS = ("Ask", "Principles", "Workflow", "Validate, fix, repeat", "Gotchas", "Checklist")


def models_in(annotation: Any) -> Generator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def names_in(model: type[BaseModel], seen: set[type[BaseModel]]) -> Generator[str]:
    """Field names of a model and of all models within, and the texts of its literals."""
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield name
        yield from (text for text in literals_in(field.annotation))
        for inner in models_in(field.annotation):
            yield from names_in(inner, seen)


def literals_in(annotation: Any) -> Generator[str]:
    for part in get_args(annotation):
        if isinstance(part, str):
            yield part
        else:
            yield from literals_in(part)


@pytest.fixture(scope="module")
def known_words() -> set[str]:
    seen: set[type[BaseModel]] = set()
    words = set(TOOLS)
    for entry in OPERATIONS:
        operation = entry.load()
        words |= set(names_in(operation.request, seen)) | set(names_in(operation.result, seen))
    return words


def test_the_four_skills_are_there() -> None:
    assert tuple(sorted(path.parent.name for path in SKILLS.glob("*/SKILL.md"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_skill_is_valid_for_the_reference_validator(name: str) -> None:
    assert validate(SKILLS / name) == []


def test_the_skills_are_clean_for_a_second_validator() -> None:
    command = [str(Path(sys.executable).parent / "skilldoctor"), "--skills", str(SKILLS), "--strict"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{len(NAMES)} skill(s)" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_skill_has_its_parts_and_says_where_it_ends(name: str) -> None:
    _, head, body = (SKILLS / name / "SKILL.md").read_text(encoding="utf-8").split("---\n", 2)
    description = yaml.safe_load(head)["description"]
    assert "Use this skill when" in description
    others = [other for other in NAMES if other != name and other in description]
    assert others, "the description names its neighbours"
    assert len(body.splitlines()) <= MAX_BODY_LINES
    headings = re.findall(r"^## (.+)$", body, re.MULTILINE)
    for part in PARTS:
        assert any(heading.startswith(part) for heading in headings), part
    for link in re.findall(r"\]\((references/[^)]+)\)", body):
        assert (SKILLS / name / link).is_file(), link


@pytest.mark.parametrize(
    "path", sorted(SKILLS.rglob("*.md")), ids=lambda path: f"{path.parents[0].name}/{path.name}"
)
def test_every_tool_and_field_a_skill_names_exists(path: Path, known_words: set[str]) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)[`(]", text))
    assert sorted(named - known_words) == []
    operations = {entry.name for entry in OPERATIONS}
    called = set(re.findall(r"name=`([a-z]+\.[a-z_]+)`", text))
    assert called <= operations


@pytest.mark.parametrize("name", NAMES)
def test_a_skill_has_prompts_of_both_kinds_and_tasks_to_the_end(name: str) -> None:
    evals = json.loads((SKILLS / name / "evals" / "evals.json").read_text(encoding="utf-8"))
    assert evals["skill_name"] == name
    prompts = [row["prompt"] for row in evals["triggers"]]
    assert len(set(prompts)) == len(prompts)
    for wanted in (True, False):
        assert sum(row["should_trigger"] is wanted for row in evals["triggers"]) >= MIN_TRIGGERS
    assert len(evals["evals"]) >= 2
    for row in evals["evals"]:
        assert row["prompt"]
        assert row["expected_output"]
        assert len(row["assertions"]) >= 2
