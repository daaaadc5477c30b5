"""A small MCP server over stdio: notes with numbers, kept in memory, or in the folder that is its argument.

For tests of evaluation on tools that are not the Task API. Written against the protocol (revision 2025-06-18) and not
with the SDK, so that it starts at once and is not the client's own code on the other side. It can misbehave: ``crash``
ends the process, ``hang`` does not answer; with ``--die`` it does not start.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

notes: dict[str, str] = {}
file = Path(sys.argv[1]) / "notes.json" if len(sys.argv) > 1 and not sys.argv[1].startswith("--") else None

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NUMBER = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
TOOLS = [
    {"name": "add_note", "description": "Add a note.", "inputSchema": TEXT},
    {"name": "delete_note", "description": "Delete a note.", "inputSchema": NUMBER},
    {
        "name": "list_notes",
        "description": "Return all notes.",
        "inputSchema": NOTHING,
        "annotations": {"readOnlyHint": True},
    },
    {"name": "crash", "description": "End the process.", "inputSchema": TEXT},
    {"name": "hang", "description": "Do not answer.", "inputSchema": NOTHING},
]


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a tool; LookupError is a refusal."""
    if name == "add_note":
        number = 1 + max(map(int, notes), default=0)
        notes[str(number)] = arguments["text"]
        return {"number": number, "text": arguments["text"]}
    if name == "delete_note":
        return {"deleted": notes.pop(str(arguments["number"]))}
    if name == "crash":
        print(arguments["text"], file=sys.stderr, flush=True)
        os._exit(3)
    if name == "hang":
        time.sleep(3600)
    return {"notes": notes}


def answer(method: str, parameters: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a request; None for a method that this server does not know."""
    if method == "initialize":
        about = {"name": "notes", "version": "1"}
        capabilities: dict[str, Any] = {"tools": {}, "resources": {}}
        return {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": about}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "resources/read":
        text = json.dumps({"notes": notes})
        return {"contents": [{"uri": parameters["uri"], "mimeType": "application/json", "text": text}]}
    if method != "tools/call":
        return None
    try:
        found = call(parameters["name"], parameters.get("arguments") or {})
    except LookupError as error:
        return {"content": [{"type": "text", "text": f"refused: {error}"}], "isError": True}
    if file is not None:
        file.write_text(json.dumps(notes), encoding="utf-8")
    return {"content": [{"type": "text", "text": json.dumps(found)}], "structuredContent": found}


def serve() -> None:
    """Answer until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result = answer(request["method"], request.get("params") or {})
        error = {"code": -32601, "message": "Method not found"}
        body = {"error": error} if result is None else {"result": result}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **body}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if "--die" in sys.argv:
        sys.exit("no database")
    if file is not None and file.exists():
        notes.update(json.loads(file.read_text("utf-8")))
    serve()
