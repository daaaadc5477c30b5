"""What an embedded server should serve, and how: the one file a server child is started from."""

import ipaddress
from typing import Any

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Part

API_KEY_VARIABLE = "LLMOPS_API_KEY"
SPEC_FILE = "spec.json"
READY_FILE = "ready.json"
SERVER_LOG = "server.log"
REQUEST_LOG = "requests.jsonl"
"""Files in the folder of a server; one line a chat request in the last one, without contents."""


class AdapterSpec(Part):
    """A LoRA adapter as GGUF, served beside the base under its own model name."""

    name: str = Field(min_length=1)
    """Model name that selects it."""
    path: str
    """GGUF file of the adapter."""


class WarmUp(Part):
    """The prompt prefix most requests share; it is read once at start instead of in the first request."""

    messages: tuple[dict[str, Any], ...]
    """Messages in OpenAI form, usually one system message."""
    tools: tuple[dict[str, Any], ...] = ()
    """Tool definitions in OpenAI form."""


class ServerSpec(Part):
    """One embedded server. The API key is not here: it comes from the environment and is never written down."""

    model_path: str
    """GGUF file."""
    name: str = Field(default="task-agent", min_length=1)
    """Model name in requests and in /v1/models."""
    adapters: tuple[AdapterSpec, ...] = ()
    """LoRA adapters that share the base weights."""
    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs an API key."""
    port: int = Field(default=0, ge=0, le=65535)
    """0 takes a free one."""
    context_length: int = Field(default=4096, ge=64)
    """Tokens per request, prompt and answer together."""
    num_slots: int = Field(default=2, ge=1, le=64)
    """Requests computed at the same time; more wait their turn."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads; default is one per core."""
    chat_template: str | None = None
    """Path of a jinja file that replaces the template inside the GGUF."""
    warm_up: WarmUp | None = None
    """Prefix to read at start."""
    expose_raw: bool = False
    """Also serve llama.cpp's own /props, /apply-template, /tokenize and /completion."""
    exact_numerics: bool = False
    """32-bit cache, no flash attention, no drafted tokens: slower, for comparing numbers with another engine."""
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Larger request bodies are refused."""

    @property
    def model_names(self) -> list[str]:
        """All names a request may ask for, base first."""
        return [self.name, *(adapter.name for adapter in self.adapters)]


def is_loopback(host: str) -> bool:
    """True when only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_key_off_loopback(host: str, api_key: str | None) -> None:
    """Refuse to offer a model to the network without a key.

    Raises:
        InvalidInputError: If ``host`` is not loopback and there is no key.
    """
    if not is_loopback(host) and not api_key:
        raise InvalidInputError(
            f"listening on {host} would let anyone on the network use the model",
            hint=f"Set {API_KEY_VARIABLE} to a secret, or use host 127.0.0.1.",
            host=host,
        )
