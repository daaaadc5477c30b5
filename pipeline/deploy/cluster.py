"""Operation ``deploy.cluster-config``: files that serve one export on several machines behind a load balancer.

vLLM serves the merged weights (GPU), llama.cpp's server the GGUF (CPU or GPU); nginx in front sends each conversation to
the backend with the fewest open requests. Starts nothing: the files are for `docker compose`, or to be read.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import write_atomic, write_json
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path, shown_path
from pipeline.core.refs import resolve_path as resolve_ref
from pipeline.inference.model_folder import find_servable

_PORTS = {"vllm": 8000, "llama-cpp": 8080}
_IMAGES = {"vllm": "vllm/vllm-openai:latest", "llama-cpp": "ghcr.io/ggml-org/llama.cpp:server"}


class DeployClusterConfigRequest(Request):
    """What to serve, and on how many backends."""

    model: WorkspaceRef = Field(default="models/task-agent", min_length=1)
    """Export folder whose gate passed."""
    out: WorkspacePath = "cluster"
    """Folder for compose.json and nginx.conf."""
    engine: Literal["vllm", "llama-cpp"] = "llama-cpp"
    """`vllm` serves merged/ and needs GPUs, `llama-cpp` the GGUF file."""
    replicas: int = Field(default=2, ge=1, le=64)
    """Backends behind the load balancer."""
    port: int = Field(default=8080, ge=1, le=65535)
    """Port of the load balancer."""
    context_length: int = Field(default=4096, ge=64, le=1 << 20)
    """Tokens per request, prompt and answer together."""


class DeployClusterConfigResult(Result):
    """What was written."""

    files: list[str]
    """Files, relative to the workspace."""


def write_cluster_config(request: DeployClusterConfigRequest) -> DeployClusterConfigResult:
    """Write compose and nginx files that serve an export by vLLM or llama.cpp behind a load balancer.

    Raises:
        InvalidInputError: If the export lacks what the engine serves.
        OperationFailedError: If its gate has not passed.
    """
    folder = resolve_ref(request.model)
    served = find_servable(request.model)
    if request.engine == "vllm" and not (folder / "merged" / "config.json").is_file():
        raise InvalidInputError(f"{folder} has no merged/", hint="Export with --formats merged,gguf.")
    out = resolve_path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    names = [f"backend{index + 1}" for index in range(request.replicas)]
    write_atomic(out / "nginx.conf", _nginx(names, request))
    services = {name: _backend(request, folder, served.path, served.name) for name in names}
    balancer = {
        "image": "nginx:stable",
        "ports": [f"{request.port}:{request.port}"],
        "volumes": ["./nginx.conf:/etc/nginx/nginx.conf:ro"],
        "depends_on": names,
        "restart": "unless-stopped",
    }
    write_json(out / "compose.json", {"services": {**services, "balancer": balancer}})
    return DeployClusterConfigResult(
        files=[shown_path(out / name) for name in ("compose.json", "nginx.conf")],
        warnings=["set LLMOPS_API_KEY in the environment: every backend asks for it"],
        next_step=f"docker compose -f {shown_path(out / 'compose.json')} up",
    )


def _backend(request: DeployClusterConfigRequest, folder: Path, gguf: Path, name: str) -> dict[str, object]:
    shared: dict[str, object] = {"image": _IMAGES[request.engine], "restart": "unless-stopped"}
    port = str(_PORTS[request.engine])
    key = "${LLMOPS_API_KEY:?set a secret}"
    if request.engine == "vllm":
        return shared | {
            "command": [
                *("--model", "/model", "--served-model-name", name, "--port", port, "--api-key", key),
                *("--max-model-len", str(request.context_length)),
                *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            ],
            "volumes": [f"{folder / 'merged'}:/model:ro"],
            "deploy": {
                "resources": {"reservations": {"devices": [{"driver": "nvidia", "capabilities": ["gpu"]}]}}
            },
        }
    return shared | {
        "command": [
            *("--model", f"/model/{gguf.name}", "--alias", name, "--host", "0.0.0.0", "--port", port),
            *("--ctx-size", str(2 * request.context_length), "--parallel", "2", "--jinja", "--api-key", key),
        ],
        "volumes": [f"{gguf.parent}:/model:ro"],
    }


def _nginx(names: list[str], request: DeployClusterConfigRequest) -> str:
    port = _PORTS[request.engine]
    servers = "\n".join(f"        server {name}:{port} max_fails=2 fail_timeout=10s;" for name in names)
    return f"""worker_processes auto;
events {{ worker_connections 1024; }}
http {{
    upstream models {{
        least_conn;
{servers}
    }}
    server {{
        listen {request.port};
        client_max_body_size 4m;
        location / {{
            proxy_pass http://models;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;  # streamed answers arrive as they are made
            proxy_read_timeout 300s;
            proxy_next_upstream error timeout non_idempotent;  # a backend that dies loses no request
        }}
    }}
}}
"""


DEPLOY_CLUSTER_CONFIG = Operation(
    name="deploy.cluster-config",
    request=DeployClusterConfigRequest,
    result=DeployClusterConfigResult,
    run=write_cluster_config,
    positional=("model",),
)
