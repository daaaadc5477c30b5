"""A command that a hint, a docstring or a document names must exist, or the reader is sent into the void."""

import re
from pathlib import Path

from pipeline.catalogue import GROUP_SUMMARIES
from pipeline.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    *(
        path
        for folder in ("pipeline", "mcp_server", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
    *sorted((ROOT / "pipeline").rglob("*.jinja")),
    *sorted((ROOT / "pipeline" / "lessons").rglob("*.md")),
    *sorted((ROOT / ".claude").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "AGENTS.md", "Makefile")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# A group that exists makes it a command and not prose ("llmops is ...").
COMMAND = re.compile(rf"\bllmops ({'|'.join(GROUP_SUMMARIES)}) ([a-z][a-z_-]*)")


def commands_in(path: Path) -> set[str]:
    found = COMMAND.findall(path.read_text(encoding="utf-8"))
    return {f"{group}.{verb.replace('-', '_')}" for group, verb in found}


def test_every_command_named_in_code_and_documents_exists() -> None:
    known = {entry.name.replace("-", "_") for entry in OPERATIONS}
    named = {(str(path.relative_to(ROOT)), name) for path in TEXTS for name in commands_in(path)}
    assert {name for _, name in named} >= {"jobs.list", "models.pull", "train.run"}
    assert sorted(pair for pair in named if pair[1] not in known) == []
