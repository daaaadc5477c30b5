"""Execute a tool call: parse inside the workspace fence, ask first where it costs, run or submit, answer briefly.

Every failure becomes an answer that the model can act on. Answers are cut to a client's budget; the whole of a cut
one is a file. Every call is one line of ``runs/mcp_calls.jsonl``.
"""

import hashlib
import hmac
import json
import sys
import time
import traceback
from typing import Any

from mcp_types import CallToolResult, TextContent

from mcp_server.audit import record_call
from mcp_server.costs import asks_first, cost_of
from mcp_server.shorten import fit
from pipeline.core.errors import InvalidInputError, PipelineError
from pipeline.core.jobs import submit
from pipeline.core.operation import Operation, Request
from pipeline.core.paths import confined_to
from pipeline.core.settings import Settings

CONFIRM_FIELD = "confirm_token"


def answer(operation: Operation[Any, Any], arguments: dict[str, Any]) -> CallToolResult:
    """Run one call and return its result, or its error as a result."""
    started = time.monotonic()
    try:
        values = fit(_execute(operation, arguments))
    except PipelineError as error:
        result = to_error(error)
    except Exception as error:  # noqa: BLE001 - the outermost border: a bug is reported like any other failure
        traceback.print_exception(error, file=sys.stderr)
        failure = f"{type(error).__name__}: {error}"
        result = to_error(PipelineError(failure[:500], hint="This is a bug; see the server's stderr."))
    else:
        result = to_result(values)
    record_call(operation.name, arguments, is_error=bool(result.is_error), seconds=time.monotonic() - started)
    return result


def to_result(values: dict[str, Any]) -> CallToolResult:
    """Return values both as structured content and, for clients that know only text, as JSON text."""
    text = json.dumps(values, ensure_ascii=False)
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=values)


def to_error(error: PipelineError) -> CallToolResult:
    """Return an error that the model can read and mend."""
    return CallToolResult(content=[TextContent(type="text", text=error.to_json())], is_error=True)


def _execute(operation: Operation[Any, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    given = dict(arguments)
    token = given.pop(CONFIRM_FIELD, None) if asks_first(operation) else None
    with confined_to(Settings.load().workspace):
        request = operation.parse(given)
        cost = cost_of(operation, request)
    if cost and (preview := _confirm(operation, request, cost, token)):
        return preview
    result = submit(operation, request) if operation.long_running else operation.execute(request)
    return result.model_dump(mode="json")


def _confirm(
    operation: Operation[Any, Any], request: Request, cost: str, token: object
) -> dict[str, Any] | None:
    """Return a dry run's answer, or None when the call carries the token of exactly this request and cost."""
    expected = _token(operation, request, cost)
    if token is None:
        return {
            "warnings": [cost],
            "next_step": "Nothing was done. Tell the user; if they agree, call again with the same arguments and "
            f"{CONFIRM_FIELD}.",
            CONFIRM_FIELD: expected,
        }
    if not hmac.compare_digest(str(token), expected):
        raise InvalidInputError(
            f"{CONFIRM_FIELD} belongs to other arguments, or what the call would do has changed: {cost}",
            hint=f"Call without {CONFIRM_FIELD} to get a new one, and ask the user again.",
        )
    return None


def _token(operation: Operation[Any, Any], request: Request, cost: str) -> str:
    text = json.dumps([operation.name, request.model_dump(mode="json"), cost], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
