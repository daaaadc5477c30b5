"""A command that a hint, a docstring or a document names must exist, or the reader is sent into the void."""

import re
from pathlib import Path

from pipeline.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    *(
        path
        for folder in ("pipeline", "mcp_server", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
    *sorted((ROOT / "pipeline").rglob("*.jinja")),
    *(ROOT / name for name in ("README.md", "AGENTS.md", "Makefile")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMAND = re.compile(r"\bllmops ([a-z]+) ([a-z][a-z-]*)")
QUOTED = re.compile(r"`([^`\n]+)`")


def commands_in(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    spans = [*QUOTED.findall(text), *(line for line in text.splitlines() if line.startswith("llmops "))]
    return {f"{group}.{verb.replace('-', '_')}" for span in spans for group, verb in COMMAND.findall(span)}


def test_every_command_named_in_code_and_documents_exists() -> None:
    known = {entry.name for entry in OPERATIONS}
    named = {(str(path.relative_to(ROOT)), name) for path in TEXTS for name in commands_in(path)}
    assert {name for _, name in named} >= {"jobs.list", "models.pull", "train.run"}
    assert sorted(pair for pair in named if pair[1] not in known) == []
