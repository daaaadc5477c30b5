"""What the checks share: compute again from the learner's request, compare, and judge a skill folder."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from pipeline.core.errors import PipelineError
from pipeline.core.operation import Operation
from pipeline.core.runs import Run
from pipeline.evals.intervals import wilson
from pipeline.lessons.work import Work
from pipeline.operations import OPERATIONS

_MAX_SHOWN = 120
_SKILL_FIELDS = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
_MAX_BODY_LINES = 500
COMMAND = re.compile(r"\bllmops ([a-z]+) ([a-z_]+)")
"""A command in a text: group and verb."""


def recompute(
    work: Work, operation: Operation[Any, Any], request_file: str, *, next_step: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the learner's request and what the operation answers to it, without writing files.

    Raises:
        NotYetError: If the request is missing or refused.
    """
    request = work.read_json(request_file, next_step=next_step)
    quiet = {**request, "out": None} if "out" in operation.request.model_fields else request
    answer = work.call(
        operation, quiet, next_step=f"Mend {request_file}: see `{_command(operation)} --help`."
    )
    return request, answer.model_dump(mode="json")


def require_same(
    work: Work, found: dict[str, Any], expected: dict[str, Any], names: Iterable[str], *, next_step: str
) -> None:
    """State for each field that the learner's value is the computed one."""
    for name in names:
        is_same = is_close(found.get(name), expected[name])
        said = f"you have {found.get(name)!r}"[:_MAX_SHOWN]
        reason = said if is_same else f"{said}, computed is {expected[name]!r}"[: 2 * _MAX_SHOWN]
        work.require(f"{name} is what the facts give", is_same, reason=reason, next_step=next_step)


def is_close(found: object, expected: object, relative: float = 1e-3) -> bool:
    """True for equal values; numbers may differ by rounding, inside lists and objects too."""
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, (int, float)) and isinstance(expected, (int, float)):
        return math.isclose(found, expected, rel_tol=relative, abs_tol=1e-9)
    if isinstance(found, list) and isinstance(expected, list):
        pairs = zip(cast("list[object]", found), cast("list[object]", expected), strict=False)
        return len(cast("list[object]", found)) == len(cast("list[object]", expected)) and all(
            is_close(one, two, relative) for one, two in pairs
        )
    if isinstance(found, dict) and isinstance(expected, dict):
        one, two = cast("dict[str, object]", found), cast("dict[str, object]", expected)
        return one.keys() == two.keys() and all(is_close(one[key], two[key], relative) for key in one)
    return found == expected


def find_run(work: Work, run_id: object, operation: str, *, next_step: str) -> tuple[Run, dict[str, Any]]:
    """Return a succeeded run that the learner names, and its result.

    Raises:
        NotYetError: If there is none.
    """
    import json

    run = work.run(run_id, operation, next_step=next_step)
    return run, json.loads((run.path / "result.json").read_text(encoding="utf-8"))


def rows_needed(target: float, *, limit: int = 100_000) -> int:
    """Return how many test rows, all right, put the lower bound of the interval at or above a target below one."""
    low, high = 1, limit
    while low < high:
        middle = (low + high) // 2
        bound, _ = wilson(middle, middle)
        low, high = (low, middle) if (bound or 0.0) >= target else (middle + 1, high)
    return low


def require_skill(work: Work, name: str, groups: set[str], *, needs_prompts: bool = True) -> None:
    """State what a skill folder of the learner must be: valid, and about operations that exist.

    Frontmatter by the Agent Skills specification (agentskills.io): six allowed fields, the name is the folder's, a
    description of at most 1,024 characters; here also at most 500 lines of body.
    """
    step = f"Write learning/{work.number}/{name}/SKILL.md; .claude/skills/{name} is an example."
    path = work.path(f"{name}/SKILL.md", next_step=step)
    text = path.read_text(encoding="utf-8")
    head, body = split_skill(text)
    work.require(
        "the frontmatter has a name, a description and allowed fields only",
        head.get("name") == name
        and 0 < len(str(head.get("description") or "")) <= 1024
        and head.keys() <= _SKILL_FIELDS,
        reason=f"fields: {sorted(head)}",
        next_step=step,
    )
    work.require(
        f"the body has at most {_MAX_BODY_LINES} lines",
        0 < len(body.splitlines()) <= _MAX_BODY_LINES,
        reason=f"{len(body.splitlines())} lines",
        next_step="Move depth into references/.",
    )
    named = {".".join(pair) for pair in COMMAND.findall(text)}
    known = {entry.name for entry in OPERATIONS}
    work.require(
        "every command it names exists",
        named <= known,
        reason=f"unknown: {sorted(named - known)}" if named - known else f"{len(named)} commands",
        next_step="Run `llmops --help` and mend the names.",
    )
    covered = {operation.partition(".")[0] for operation in named & known}
    work.require(
        f"it works with {', '.join(sorted(groups))}",
        groups <= covered,
        reason=f"it names operations of {', '.join(sorted(covered)) or 'nothing'}",
        next_step=f"Say when to run `llmops {sorted(groups - covered or groups)[0]} ...` and what to do with its answer.",
    )
    if needs_prompts:
        _require_prompts(work, path.parent)


def _require_prompts(work: Work, folder: Path) -> None:
    """State that the skill has prompts that should and that should not trigger it, all different."""
    step = f"Write {folder.name}/evals/evals.json: {{skill_name, triggers: [{{prompt, should_trigger}}]}}."
    evals = work.read_json(f"{folder.name}/evals/evals.json", next_step=step)
    rows = cast("list[dict[str, Any]]", evals.get("triggers") or [])
    prompts = {str(row.get("prompt", "")).strip().lower(): row.get("should_trigger") for row in rows}
    prompts.pop("", None)
    work.require(
        "five prompts that should trigger it and five near misses that should not",
        sum(v is True for v in prompts.values()) >= 5 and sum(v is False for v in prompts.values()) >= 5,
        reason=f"{len(prompts)} different prompts",
        next_step=step,
    )


def read_list(work: Work, path: Path, *, next_step: str) -> list[dict[str, Any]]:
    """Return a JSON list of objects.

    Raises:
        NotYetError: If the file is missing or holds something else.
    """
    import json

    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, PipelineError) as error:
        raise work.stop(f"{path.name} is JSON", reason=str(error)[:200], next_step=next_step) from error
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in cast("list[object]", value)):
        raise work.stop(f"{path.name} is a list of objects", reason="it is not", next_step=next_step)
    return cast("list[dict[str, Any]]", value)


def split_skill(text: str) -> tuple[dict[str, Any], str]:
    """Return the frontmatter and the body of a SKILL.md; an empty mapping when there is none."""
    import yaml

    parts = text.split("---\n", 2)
    if len(parts) != 3 or parts[0]:
        return {}, text
    try:
        head: object = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}, parts[2]
    return (cast("dict[str, Any]", head) if isinstance(head, dict) else {}), parts[2]


def _command(operation: Operation[Any, Any]) -> str:
    return f"llmops {operation.name.replace('.', ' ')}"
