"""Settings: the only reader of environment variables.

Covers where the workspace is and whether the network may be used. It does not hold operation options: those are
fields of requests.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where this process works."""

    workspace: Path
    """Absolute root; ``runs/`` and ``models/`` live below it and MCP paths may not leave it."""
    offline: bool
    """True when the model hub must not be asked (``LLMOPS_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``)."""
    stop_on_stdin_close: bool
    """True in child processes that must end with their parent (``LLMOPS_STOP_ON_STDIN_CLOSE=1``)."""
    api_key: str | None = field(default=None, repr=False)
    """Bearer key our servers ask for and our clients send (``LLMOPS_API_KEY``); never stored."""
    ollama_url: str = "http://127.0.0.1:11434"
    """Where Ollama answers (``OLLAMA_HOST``, in any form Ollama itself accepts)."""

    @property
    def runs_dir(self) -> Path:
        """Folder of run directories."""
        return self.workspace / "runs"

    @property
    def models_dir(self) -> Path:
        """Folder of pulled and published models."""
        return self.workspace / "models"

    @classmethod
    def load(cls) -> "Settings":
        """Read the environment; the workspace defaults to the current directory."""
        root = Path(os.environ.get("LLMOPS_WORKSPACE") or Path.cwd()).resolve()
        offline = any(_is_true(name) for name in ("LLMOPS_OFFLINE", "HF_HUB_OFFLINE"))
        return cls(
            workspace=root,
            offline=offline,
            stop_on_stdin_close=_is_true("LLMOPS_STOP_ON_STDIN_CLOSE"),
            api_key=os.environ.get("LLMOPS_API_KEY") or None,
            ollama_url=_parse_ollama_host(os.environ.get("OLLAMA_HOST", "")),
        )


def child_environment(**extra: str) -> dict[str, str]:
    """Return the environment for a child process: this one plus ``extra``."""
    return {**os.environ, **extra}


def _parse_ollama_host(text: str) -> str:
    """Complete ``host``, ``:port``, ``host:port`` or a URL; a server's 0.0.0.0 is reached on loopback."""
    scheme, _, rest = text.strip().rpartition("://")
    parts = urlsplit(f"//{rest}")
    host = parts.hostname or ""
    address = "127.0.0.1" if host in {"", "0.0.0.0", "::"} else f"[{host}]" if ":" in host else host
    port = parts.port or {"http": 80, "https": 443}.get(scheme, 11434)
    return f"{scheme or 'http'}://{address}:{port}"


def _is_true(name: str) -> bool:
    return os.environ.get(name, "").lower() in {"1", "true", "yes"}
