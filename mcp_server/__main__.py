"""``python -m mcp_server``: MCP over stdio, or over HTTP on this machine only with ``--http``."""

import argparse
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO, cast

from pipeline import __version__

if TYPE_CHECKING:
    from io import TextIOWrapper

    from mcp.server import Server

_LOOPBACK = "127.0.0.1"


def main(argv: list[str]) -> int:
    """Serve until the client closes stdin, or until a signal."""
    parser = argparse.ArgumentParser(prog="python -m mcp_server", description=__doc__, allow_abbrev=False)
    parser.add_argument("--http", action="store_true", help="serve streamable HTTP on 127.0.0.1 at /mcp")
    parser.add_argument("--port", type=int, default=8931, help="port for --http (default: 8931)")
    parser.add_argument("--read-only", action="store_true", help="offer only tools that change nothing")
    parser.add_argument(
        "--tools",
        default="",
        help="tool groups instead of the default set, such as default,evals or data,train or all",
    )
    parser.add_argument("--version", action="version", version=f"llmops {__version__}")
    options = parser.parse_args(argv)
    from pipeline.core.errors import PipelineError
    from pipeline.core.extras import require

    try:
        require("mcp", extra="mcp")
    except PipelineError as error:
        print(error.to_json(), file=sys.stderr)  # noqa: T201
        return error.exit_code
    from mcp_server.offers import Offer
    from mcp_server.server import build_server

    groups = [name.strip() for name in options.tools.split(",") if name.strip()]
    try:
        server = build_server(Offer.of_groups(groups, read_only=options.read_only))
    except PipelineError as error:
        print(error.to_json(), file=sys.stderr)  # noqa: T201
        return error.exit_code
    if options.http:
        _serve_http(server, options.port)
    else:
        _serve_stdio(server)
    return 0


def _serve_stdio(server: "Server[Any]") -> None:
    import anyio
    from mcp.server.stdio import stdio_server

    # A block-buffered print would be flushed at exit, when the SDK has given fd 1 back to the wire.
    _reconfigure(sys.stdout)

    async def serve() -> None:
        async with stdio_server() as (reader, writer):
            await server.run(reader, writer, server.create_initialization_options())

    anyio.run(serve)


def _reconfigure(stream: TextIO) -> None:
    cast("TextIOWrapper", stream).reconfigure(line_buffering=True)


def _serve_http(server: "Server[Any]", port: int) -> None:
    import uvicorn

    uvicorn.run(server.streamable_http_app(host=_LOOPBACK), host=_LOOPBACK, port=port, log_level="warning")


def _exit(status: int) -> None:
    # A tool call that the client abandoned (jobs_status waiting for 50 s) must not hold up the exit.
    if threading.active_count() > 1:
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    _exit(main(sys.argv[1:]))
