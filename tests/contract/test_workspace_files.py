"""What clients read when they open the folder: servers, permissions, skills, plugin."""

import json
import tomllib
from pathlib import Path
from typing import Any

from mcp_server.find import CALL, FIND
from mcp_server.offers import Offer, tool_name

ROOT = Path(__file__).resolve().parents[2]
# Change nothing but a report file, or the learner's own progress.
FREE = {"decide.recommend", "vram.estimate", "lesson.check"}


def read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def test_every_default_tool_is_allowed_or_asked_and_only_harmless_ones_are_allowed() -> None:
    permissions = read(".claude/settings.json")["permissions"]
    allowed, asked = set(permissions["allow"]), set(permissions["ask"])
    tools = {f"mcp__llmops__{tool_name(operation.name)}": operation for operation, _ in Offer().tools()}
    assert allowed | asked == {*tools, f"mcp__llmops__{FIND}", f"mcp__llmops__{CALL}"}
    assert not allowed & asked
    harmless = {name for name, operation in tools.items() if operation.read_only or operation.name in FREE}
    assert allowed == {*harmless, f"mcp__llmops__{FIND}"}


def test_no_client_is_made_to_trust_the_folder_by_itself() -> None:
    assert "enableAllProjectMcpServers" not in (ROOT / ".claude" / "settings.json").read_text(
        encoding="utf-8"
    )


def test_every_client_starts_the_same_server() -> None:
    launch = ["tools/mcp_launch.py"]
    codex = tomllib.loads((ROOT / ".codex" / "config.toml").read_text(encoding="utf-8"))
    assert read(".mcp.json")["mcpServers"]["llmops"]["args"] == launch
    assert read(".gemini/settings.json")["mcpServers"]["llmops"]["args"] == launch
    assert codex["mcp_servers"]["llmops"]["args"] == launch
    (plugin,) = read(".claude-plugin/plugin.json")["mcpServers"]["llmops"]["args"]
    assert plugin == "${CLAUDE_PLUGIN_ROOT}/tools/mcp_launch.py"


def test_the_same_skills_are_where_other_clients_look() -> None:
    assert (ROOT / ".agents" / "skills").resolve() == (ROOT / ".claude" / "skills").resolve()
    assert (ROOT / read(".claude-plugin/plugin.json")["skills"]).resolve() == (
        ROOT / ".claude" / "skills"
    ).resolve()


def test_the_workspace_guide_names_the_four_skills() -> None:
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    for path in (ROOT / ".claude" / "skills").iterdir():
        assert path.name in text
    assert (ROOT / "CLAUDE.md").read_text(encoding="utf-8").strip() == "@AGENTS.md"
