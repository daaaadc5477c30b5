# pyright: basic
"""An MCP server as a tool set: a process of its own for each case, spoken to over stdio, stopped whatever happens.

The command is a list of arguments, never a shell line; ``{folder}`` in it becomes a new empty folder, for servers that
keep files. A server without a state tool is compared by what was called and returned, tools it declares read-only
excepted. Does not decide which commands may be started (:mod:`pipeline.evals.tool_calls.execution`).
"""

import json
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.from_thread
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import CallToolResult, TextContent, TextResourceContents

from pipeline.core.errors import InvalidInputError, OperationFailedError

ANSWER_SECONDS = 30.0
"""How long any answer may take."""
_FOLDER = "{folder}"
_START_HINT = (
    "Run the command after mcp: by hand; it starts without a shell and must speak MCP on its stdout."
)
_DEATH_HINT = (
    "Mend the server: with these arguments it must answer, with an error if need be, and stay alive."
)
_MAX_PAGES = 100
_MAX_COMPLAINT = 300


class McpTools:
    """One running server."""

    def __init__(self, argv: Sequence[str], state: str | None) -> None:
        """Start the server.

        Args:
            argv: Program and arguments.
            state: Tool without arguments, or URI of a resource, that returns the state; None without one.

        Raises:
            InvalidInputError: If the program cannot be started, or the server has no such state tool.
            OperationFailedError: If it does not answer as an MCP server.
        """
        self._state, self._seconds = state, ANSWER_SECONDS
        self._called: list[list[Any]] = []
        with ExitStack() as stack:
            self._stderr = stack.enter_context(
                tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")
            )
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="llmops-mcp-"))
            connection = ExitStack()
            stack.callback(connection.close)  # without the error, which the SDK would wrap in groups
            self._connect(connection, [part.replace(_FOLDER, folder) for part in argv])
            self._stack = stack.pop_all()

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run one call; what the server refuses is a result with an ``error``.

        Raises:
            LookupError: If the server has no such tool.
            OperationFailedError: If the server dies or does not answer in time.
        """
        if name not in self._read_only:
            raise LookupError(f"the MCP server has no tool {name!r}")
        what = f"{name}({json.dumps(arguments, ensure_ascii=False)})"
        result = self._ask(what, self._client.call_tool, name, arguments)
        value = {"error": result} if isinstance(result, str) else _read(result)
        if not self._read_only[name] and not (isinstance(value, dict) and "error" in value):
            self._called.append([name, arguments, value])
        return value

    def state(self) -> Any:
        """Return what the state tool says; without one, the calls that may have written, in a fixed order.

        Raises:
            OperationFailedError: If it cannot be read.
        """
        if self._state is None:
            return sorted(self._called, key=lambda call: json.dumps(call, sort_keys=True))
        if "://" in self._state:
            found = self._ask(self._state, self._client.read_resource, self._state)
        else:
            found = self._ask(self._state, self._client.call_tool, self._state, {})
        if isinstance(found, str) or getattr(found, "is_error", False):
            reason = found if isinstance(found, str) else _read(found)["error"]
            raise OperationFailedError(f"the state {self._state} cannot be read: {reason}", hint=_DEATH_HINT)
        return _read(found) if isinstance(found, CallToolResult) else _parse(_join(found.contents))

    def close(self) -> None:
        """Stop the server."""
        self._stack.close()

    def _connect(self, connection: ExitStack, argv: Sequence[str]) -> None:
        command, *arguments = argv
        self._portal = connection.enter_context(anyio.from_thread.start_blocking_portal())
        parameters = StdioServerParameters(command=command, args=arguments)
        transport = stdio_client(parameters, errlog=self._stderr)
        # No cache: a resource may have changed since it was last read.
        client = Client(transport, read_timeout_seconds=self._seconds, cache=None)
        try:
            self._client = connection.enter_context(self._portal.wrap_async_context_manager(client))
            self._read_only = self._portal.call(_list_tools, self._client)
        except OSError as error:
            raise InvalidInputError(
                f"cannot start the MCP server {command!r}: {error}", hint=_START_HINT
            ) from error
        except (MCPError, RuntimeError, ExceptionGroup) as error:
            raise OperationFailedError(
                f"{command!r} does not answer as an MCP server: {_reason(error)}{self._complaint()}",
                hint=_START_HINT,
            ) from error
        if self._state is not None and "://" not in self._state and self._state not in self._read_only:
            raise InvalidInputError(
                f"the MCP server has no tool {self._state!r} to read the state with",
                hint=f"It has {', '.join(self._read_only) or 'none'}; name one as mcp[TOOL]:COMMAND.",
            )

    def _ask(self, what: str, ask: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        """Return the answer, or the text of the error that the server answered with."""

        async def ask_in_time() -> Any:
            with anyio.fail_after(self._seconds):
                return await ask(*arguments)

        try:
            return self._portal.call(ask_in_time)
        except TimeoutError as error:
            raise OperationFailedError(
                f"the MCP server did not answer {what} in {self._seconds:g} s{self._complaint()}",
                hint=_DEATH_HINT,
            ) from error
        except (MCPError, RuntimeError) as error:
            if not self._is_alive():
                raise OperationFailedError(
                    f"the MCP server died at {what}{self._complaint()}", hint=_DEATH_HINT
                ) from error
            return _reason(error)

    def _is_alive(self) -> bool:
        # Servers use the same error numbers as the SDK does for a closed connection, so that only asking tells.
        try:
            self._portal.call(_list_tools, self._client)
        except (MCPError, RuntimeError):
            return False
        return True

    def _complaint(self) -> str:
        """Return the last line of the server's stderr, for messages."""
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        return f"; it last said: {lines[-1][:_MAX_COMPLAINT]}" if lines else ""


def _reason(error: BaseException) -> str:
    """Return the message of an error, or of the first one in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error.message if isinstance(error, MCPError) else error)


async def _list_tools(client: Client) -> dict[str, bool]:
    """Return which tools there are, and whether each declares itself read-only."""
    found: dict[str, bool] = {}
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found |= {
            tool.name: bool(tool.annotations and tool.annotations.read_only_hint) for tool in page.tools
        }
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def _read(result: CallToolResult) -> Any:
    text = _join(result.content)
    if result.is_error:
        return {"error": text}
    return result.structured_content if result.structured_content is not None else _parse(text)


def _join(parts: Sequence[Any]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, TextContent | TextResourceContents))


def _parse(text: str) -> Any:
    """Return JSON as values, any other text as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
