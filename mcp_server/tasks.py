"""The Tasks extension (SEP-2663) for clients that declare it: a job is a task whose id is the run id.

Such a client gets ``resultType: task`` from a long operation instead of a ``JobRef`` and polls ``tasks/get``; everyone
else is untouched. The SDK (2.3) has no module for it. State is read from the run directory, so a task outlives us.
"""

from datetime import UTC, datetime
from typing import Any, Literal

from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp_types import INVALID_PARAMS, CallToolResult, RequestParams
from mcp_types import Result as WireResult
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from mcp_server.calls import to_result
from mcp_server.shorten import fit
from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json
from pipeline.core.jobs import cancel
from pipeline.core.runs import Run, RunState

EXTENSION = "io.modelcontextprotocol/tasks"
TaskStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]
_STATUS: dict[RunState, TaskStatus] = {
    "queued": "working",
    "running": "working",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "failed",
}
_POLL_MS = 2000


class _TaskFields(WireResult):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    task_id: str
    status: TaskStatus
    status_message: str | None = None
    created_at: str
    last_updated_at: str
    ttl_ms: int | None = None
    poll_interval_ms: int = _POLL_MS


class CreateTaskResult(_TaskFields):
    """Answer of ``tools/call`` when it became a task."""

    result_type: Literal["task"] = "task"


class GetTaskResult(_TaskFields):
    """Answer of ``tasks/get``; with the tool's result once it is completed."""

    result_type: Literal["complete"] = "complete"
    result: dict[str, Any] | None = None


class TaskParams(RequestParams):
    """Which task."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    task_id: str


def as_task(ctx: ServerRequestContext[Any], result: CallToolResult) -> CallToolResult | dict[str, Any]:
    """Turn the answer of a started job into a task, for a client that declared the extension."""
    capabilities = ctx.session.client_capabilities
    values: dict[str, Any] = result.structured_content or {}
    is_declared = bool(capabilities and capabilities.extensions and EXTENSION in capabilities.extensions)
    if not is_declared or result.is_error or "run_id" not in values:
        return result
    return _dump(CreateTaskResult(**_fields(Run.open(values["run_id"]))))


def add_tasks(server: Server[Any]) -> None:
    """Serve the extension's methods."""

    async def get(_: ServerRequestContext[Any], params: TaskParams) -> dict[str, Any]:
        run = _find(params.task_id)
        fields = _fields(run)
        result = None
        if fields["status"] == "completed":
            answer = to_result(fit(read_json(run.path / "result.json")))
            result = answer.model_dump(by_alias=True, exclude_none=True, mode="json")
        return _dump(GetTaskResult(**fields, result=result))

    async def stop(_: ServerRequestContext[Any], params: TaskParams) -> dict[str, Any]:
        cancel(_find(params.task_id))
        return {"resultType": "complete"}

    async def update(_: ServerRequestContext[Any], params: TaskParams) -> dict[str, Any]:
        _find(params.task_id)  # our jobs ask for nothing while they run
        return {"resultType": "complete"}

    server.add_request_handler("tasks/get", TaskParams, get)
    server.add_request_handler("tasks/cancel", TaskParams, stop)
    server.add_request_handler("tasks/update", TaskParams, update)
    server.extensions[EXTENSION] = {}


def _find(task_id: str) -> Run:
    try:
        return Run.open(task_id)
    except InvalidInputError as error:
        raise MCPError(INVALID_PARAMS, f"unknown task {task_id[:80]!r}") from error


def _fields(run: Run) -> dict[str, Any]:
    state = run.state()
    updated = max(path.stat().st_mtime for path in run.path.iterdir() if path.is_file())
    return {
        "task_id": run.id,
        "status": _STATUS[state],
        "status_message": state,
        "created_at": run.manifest()["created_at"],
        "last_updated_at": datetime.fromtimestamp(updated, UTC).isoformat(),
    }


def _dump(result: BaseModel) -> dict[str, Any]:
    return result.model_dump(by_alias=True, exclude_none=True, mode="json")
