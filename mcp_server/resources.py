"""Things to read by URI: lessons, jobs, runs, data sets, skills and the loss-curve app. Read from files at each call.

``lesson://NUMBER``, ``job://RUN_ID``, ``job://RUN_ID/metrics``, ``run://RUN_ID/card``, ``dataset://NAME``,
``skill://NAME/FILE``, ``ui://train/loss-curve.html``. Names are checked by pattern; nothing outside is reachable.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mcp import MCPError
from mcp.server.apps import APP_MIME_TYPE
from mcp.shared.path_security import safe_join
from mcp_types import INVALID_PARAMS, Resource, ResourceTemplate, TextResourceContents

from mcp_server.offers import APP_URIS
from mcp_server.shorten import MAX_CHARACTERS
from mcp_server.skills import Skill, read_skills
from pipeline.core.errors import InvalidInputError
from pipeline.core.runs import Run, list_runs
from pipeline.core.settings import Settings
from pipeline.jobs.watch import JobsStatusRequest, redact, report_status
from pipeline.lessons.guides import list_guides, read_guide

_MARKDOWN, _JSON, _TEXT = "text/markdown", "application/json", "text/plain"
_MAX_LISTED_RUNS = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_ROOT = Path(__file__).resolve().parents[1]


class Content(NamedTuple):
    """What a URI holds."""

    text: str
    mime_type: str


def templates() -> list[ResourceTemplate]:
    """Return the forms of URI that can be read."""
    rows = (
        (
            "lesson://{number}",
            "lesson",
            "A lesson of the course, such as lesson://63.7; lesson://index lists all",
            _MARKDOWN,
        ),
        ("job://{run_id}", "job", "State, progress and result of a run", _JSON),
        (
            "job://{run_id}/metrics",
            "job metrics",
            "Logged values of a run, newest last",
            "application/x-ndjson",
        ),
        ("run://{run_id}/card", "run card", "What a run made: its report or model card", _MARKDOWN),
        ("dataset://{name}", "data set", "Report or card of a data set under datasets/", _MARKDOWN),
        ("skill://{name}/{file}", "skill", "A file of an Agent Skill", _MARKDOWN),
    )
    return [
        ResourceTemplate(uri_template=uri, name=name, description=text, mime_type=mime)
        for uri, name, text, mime in rows
    ]


def listed() -> list[Resource]:
    """Return what exists now: the course, the newest runs, the data sets, the skills and the app."""
    found = [Resource(uri="lesson://index", name="lessons", title="All lessons", mime_type=_MARKDOWN)]
    for run in list_runs()[:_MAX_LISTED_RUNS]:
        found.append(Resource(uri=f"job://{run.id}", name=run.id, mime_type=_JSON))
    found += [Resource(uri=f"dataset://{name}", name=name, mime_type=_MARKDOWN) for name in dataset_names()]
    for skill in read_skills():
        found += [
            Resource(uri=file.uri, name=file.uri.removeprefix("skill://"), mime_type=file.mime_type)
            for file in skill.files
        ]
    return [
        *found,
        Resource(
            uri=APP_URIS["train.curve"], name="loss-curve", title="Live loss curve", mime_type=APP_MIME_TYPE
        ),
    ]


def read(uri: str) -> TextResourceContents:
    """Return what a URI holds.

    Raises:
        MCPError: With INVALID_PARAMS, if there is nothing of that name.
    """
    scheme, separator, rest = uri.partition("://")
    reader = _READERS.get(scheme)
    content = None
    if reader is not None and separator:
        try:
            content = reader(rest)
        except (InvalidInputError, OSError, ValueError):
            content = None
    if content is None:
        raise MCPError(
            INVALID_PARAMS, f"no resource {uri[:200]!r}; see resources/list", data={"uri": uri[:500]}
        )
    return TextResourceContents(uri=uri, mime_type=content.mime_type, text=content.text)


def dataset_names() -> list[str]:
    """Return the folders of datasets/ that hold data."""
    folder = Settings.load().workspace / "datasets"
    return sorted(path.name for path in folder.glob("*/") if path.is_dir() and _NAME.fullmatch(path.name))


def _read_lesson(rest: str) -> Content | None:
    if rest == "index":
        lines = [f"- lesson://{guide.number} {guide.title} ({guide.minutes} min)" for guide in list_guides()]
        return Content("\n".join(["# Lessons", "", *lines, ""]), _MARKDOWN)
    return Content(read_guide(rest).text, _MARKDOWN)


def _read_job(rest: str) -> Content | None:
    run_id, _, part = rest.partition("/")
    if part == "metrics":
        text = "".join(json.dumps(row) + "\n" for row in Run.open(run_id).metrics())
        return Content(redact(text)[-MAX_CHARACTERS:], "application/x-ndjson")
    if part:
        return None
    return Content(report_status(JobsStatusRequest(run_id=run_id)).model_dump_json(indent=1), _JSON)


def _read_card(rest: str) -> Content | None:
    run_id, _, part = rest.partition("/")
    if part != "card":
        return None
    artifacts = Run.open(run_id).artifacts
    cards = sorted(artifacts.glob("*.md"), key=lambda path: (path.name != "report.md", path.name))
    return Content(cards[0].read_text(encoding="utf-8")[:MAX_CHARACTERS], _MARKDOWN) if cards else None


def _read_dataset(rest: str) -> Content | None:
    if rest not in dataset_names():
        return None
    folder = Settings.load().workspace / "datasets" / rest
    found = [path for name in ("data_report.md", "README.md") if (path := folder / name).is_file()]
    return Content(found[0].read_text(encoding="utf-8")[:MAX_CHARACTERS], _MARKDOWN) if found else None


def _read_skill(rest: str) -> Content | None:
    file = next(
        (file for skill in read_skills() for file in skill.files if file.uri == f"skill://{rest}"), None
    )
    return (
        Content(_skill_path(file.skill, rest).read_text(encoding="utf-8"), file.mime_type) if file else None
    )


def _skill_path(skill: Skill, rest: str) -> Path:
    return Path(safe_join(skill.folder, rest.partition("/")[2]))


def _read_app(rest: str) -> Content | None:
    if f"ui://{rest}" not in APP_URIS.values():
        return None
    return Content((_ROOT / "mcp_server" / "loss_curve.html").read_text(encoding="utf-8"), APP_MIME_TYPE)


_READERS: dict[str, Callable[[str], Content | None]] = {
    "lesson": _read_lesson,
    "job": _read_job,
    "run": _read_card,
    "dataset": _read_dataset,
    "skill": _read_skill,
    "ui": _read_app,
}
