"""Start the MCP server with the environment that ``make setup`` makes; clients run this from ``.mcp.json``.

Works with any Python 3, also before the set-up, when it says what to run. The workspace is the folder the client works
in: this repository, or another project that installed llmops as a plugin. ``LLMOPS_WORKSPACE`` overrules it.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"


def main() -> None:
    """Replace this process by the server."""
    if not (ROOT / ".venv" / "setup-complete").exists():
        print(f"llmops is not set up yet: run `make -C {ROOT} setup`, then reconnect.", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    here = Path.cwd()
    os.environ.setdefault("LLMOPS_WORKSPACE", str(ROOT if here.is_relative_to(ROOT) else here))
    os.execv(str(PYTHON), [str(PYTHON), "-m", "mcp_server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
