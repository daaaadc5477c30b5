"""The default tools from ``tool_list.json``: building them imports every operation, most of a server's start-up.

``python -m mcp_server.tool_list`` writes the file after an operation changed; a test holds it against the operations.
Only what clients are shown comes from it: every call is parsed by the operation itself. Decision 0092.
"""

import sys
from pathlib import Path

from mcp_types import Tool

from mcp_server.offers import DEFAULT_GROUP, Offer
from pipeline.core.files import read_json, write_json

FILE = Path(__file__).with_name("tool_list.json")


def listed_tools(offer: Offer) -> list[Tool]:
    """Return the tools of an offer's operations: of the default set from the file, of others made from the operations."""
    if offer.groups != (DEFAULT_GROUP,):
        return built_tools(offer)
    stored = [Tool.model_validate(tool) for tool in read_json(FILE)]
    return [tool for tool in stored if _only_reads(tool) or not offer.read_only]


def built_tools(offer: Offer) -> list[Tool]:
    """Make the tools of an offer from its operations."""
    from mcp_server.schemas import to_tool

    return [to_tool(operation, shown) for operation, shown in offer.tools()]


def _only_reads(tool: Tool) -> bool:
    return bool(tool.annotations and tool.annotations.read_only_hint)


def main() -> None:
    """Write the file."""
    tools = built_tools(Offer())
    write_json(FILE, [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools])
    sys.stderr.write(f"{FILE.name}: {len(tools)} tools\n")


if __name__ == "__main__":
    main()
