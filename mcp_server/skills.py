"""The Agent Skills of ``.claude/skills`` for clients that speak the Skills extension (SEP-2640).

``skills/list`` and ``skills/get`` name every file with digest and size; the files are ``skill://`` resources. The SDK
(2.3) has no module for it. Frontmatter is passed on as written.
"""

import hashlib
import mimetypes
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp_types import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    CacheableResult,
    PaginatedRequestParams,
    PaginatedResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

EXTENSION = "io.modelcontextprotocol/skills"
_ROOT = Path(__file__).resolve().parents[1]


class SkillResource(BaseModel):
    """One file of a skill on the wire."""

    uri: str
    digest: str
    size: int


class SkillEntry(BaseModel):
    """One skill on the wire."""

    uri: str
    frontmatter: dict[str, Any]
    resources: list[SkillResource]


class ListSkillsResult(PaginatedResult, CacheableResult):
    """Answer of ``skills/list``."""

    skills: list[SkillEntry]
    result_type: Literal["complete"] = "complete"


class GetSkillParams(RequestParams):
    """Request of ``skills/get``."""

    uri: str


class GetSkillResult(CacheableResult):
    """Answer of ``skills/get``."""

    skill: SkillEntry
    result_type: Literal["complete"] = "complete"


@dataclass(frozen=True, slots=True)
class SkillFile:
    """One file of a skill."""

    skill: "Skill"
    uri: str
    path: Path = field(repr=False)

    @property
    def mime_type(self) -> str:
        """Type by the name's ending."""
        if self.path.suffix == ".md":
            return "text/markdown"
        return mimetypes.guess_type(self.path.name)[0] or "text/plain"


@dataclass(frozen=True)
class Skill:
    """One folder with a SKILL.md."""

    folder: Path

    @cached_property
    def files(self) -> list[SkillFile]:
        """Every file, symlinks left out."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file() and not path.is_symlink())
        return [
            SkillFile(self, f"skill://{self.folder.name}/{path.relative_to(self.folder).as_posix()}", path)
            for path in found
        ]

    def to_entry(self) -> SkillEntry:
        """Return the skill as the extension describes it."""
        resources = [
            SkillResource(
                uri=file.uri,
                digest="sha256:" + hashlib.sha256(raw := file.path.read_bytes()).hexdigest(),
                size=len(raw),
            )
            for file in self.files
        ]
        head = (self.folder / "SKILL.md").read_text(encoding="utf-8")
        return SkillEntry(
            uri=f"skill://{self.folder.name}/SKILL.md", frontmatter=_frontmatter(head), resources=resources
        )


def read_skills() -> list[Skill]:
    """Return the skills of this repository, by name."""
    return [Skill(path.parent) for path in sorted((_ROOT / ".claude" / "skills").glob("*/SKILL.md"))]


def add_skills(server: Server[Any]) -> None:
    """Serve the extension's methods."""

    async def list_skills(ctx: ServerRequestContext[Any], _: PaginatedRequestParams) -> ListSkillsResult:
        _require_modern(ctx)
        return ListSkillsResult(skills=[skill.to_entry() for skill in read_skills()])

    async def get_skill(ctx: ServerRequestContext[Any], params: GetSkillParams) -> GetSkillResult:
        _require_modern(ctx)
        for skill in read_skills():
            if params.uri == f"skill://{skill.folder.name}/SKILL.md":
                return GetSkillResult(skill=skill.to_entry())
        raise MCPError(INVALID_PARAMS, f"unknown skill {params.uri[:200]!r}; see skills/list")

    server.add_request_handler("skills/list", PaginatedRequestParams, list_skills)
    server.add_request_handler("skills/get", GetSkillParams, get_skill)
    server.extensions[EXTENSION] = {}


def _require_modern(ctx: ServerRequestContext[Any]) -> None:
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(METHOD_NOT_FOUND, f"{ctx.method} belongs to protocol {MODERN_PROTOCOL_VERSIONS[0]}")


def _frontmatter(text: str) -> dict[str, Any]:
    import yaml

    parts = text.split("---\n", 2)
    loaded: object = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else {}
    return loaded if isinstance(loaded, dict) else {}  # pyright: ignore[reportUnknownVariableType]
