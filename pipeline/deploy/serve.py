"""Operation ``deploy.serve``: a model behind an OpenAI-compatible URL until it is told to stop."""

import sys
import time
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.core.stopping import stop_on_signal
from pipeline.core.units import format_seconds
from pipeline.inference.endpoints import Endpoint, publish_endpoint
from pipeline.inference.model_folder import ServableModel, find_servable
from pipeline.inference.server import ServerHandle, supervise
from pipeline.inference.server_spec import REQUEST_LOG, AdapterSpec, ServerSpec, WarmUp
from pipeline.task_api.tools import load_tools, system_prompt

_PATH: TypeAdapter[str] = TypeAdapter(WorkspacePath)


def _check_adapter(value: str) -> str:
    name, _, path = value.partition("=")
    if not name or not path:
        raise ValueError(f"{value!r} is not NAME=PATH")
    _PATH.validate_python(path)
    return value


class DeployServeRequest(Request):
    """What to serve, and where."""

    model: WorkspaceRef = Field(default="models/task-agent", min_length=1)
    """A model folder, a GGUF file, or `run:<id>/...`."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 takes a free one. Embedded engine only."""
    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs LLMOPS_API_KEY. Embedded engine only."""
    engine: Literal["embedded", "ollama"] = "embedded"
    """`embedded` runs here until stopped; `ollama` hands the model to a running Ollama (OLLAMA_HOST) and returns."""
    quantization: str | None = Field(default=None, pattern=r"^[a-z0-9_]+$")
    """Such as `q4_k_m`; default is what the export chose."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")
    """Model name in requests; default is the model's own."""
    adapter: tuple[Annotated[str, AfterValidator(_check_adapter)], ...] = ()
    """LoRA adapter as NAME=PATH of a GGUF, served under its name; repeatable. Embedded engine only."""
    context_length: int = Field(default=4096, ge=64, le=1 << 20)
    """Tokens per request, prompt and answer together."""
    num_slots: int = Field(default=2, ge=1, le=64)
    """Requests computed at the same time."""
    force: bool = False
    """Serve also without a passed export gate."""


class DeployServeResult(Result):
    """What was served."""

    base_url: str
    """OpenAI base URL."""
    models: list[str]
    """Names in requests."""
    engine: Literal["embedded", "ollama"]
    """What computes."""
    model_path: str
    """The GGUF."""
    ready_seconds: float
    """From the start to the first possible request."""
    served_seconds: float = 0.0
    """How long it ran; 0 for Ollama, which goes on."""
    num_requests: int = 0
    """Chat requests answered."""
    num_restarts: int = 0
    """How often the server process died and was started again."""


def serve_model(request: DeployServeRequest, run: Run) -> DeployServeResult:
    """Serve a model on an OpenAI-compatible URL until terminated, or hand it to Ollama.

    Raises:
        InvalidInputError: If there is no such model, the port is taken, or the host needs a key.
        IntegrityError: If the model file is damaged.
        OperationFailedError: If the export gate did not pass, or the server keeps dying.
        MissingDependencyError: If the serve extra is not installed, or Ollama does not answer.
    """
    model = find_servable(request.model, quantization=request.quantization, force=request.force)
    for warning in model.warnings:
        _say(f"warning: {warning}")
    if request.engine == "ollama":
        return _hand_to_ollama(request, model, run)
    return _serve_embedded(request, model, run)


def _hand_to_ollama(request: DeployServeRequest, model: ServableModel, run: Run) -> DeployServeResult:
    if request.adapter:
        raise InvalidInputError("Ollama gets one model", hint="Serve adapters with the embedded engine.")
    from pipeline.deploy.ollama import create_in_ollama

    started = time.monotonic()
    name = request.name or model.name
    settings = Settings.load()
    warnings = create_in_ollama(
        settings.ollama_url, name, model, context_length=request.context_length, force=request.force, run=run
    )
    base_url = f"{settings.ollama_url}/v1"
    publish_endpoint(
        run, Endpoint(base_url=base_url, models=[name], engine="ollama", model_path=str(model.path))
    )
    return DeployServeResult(
        base_url=base_url,
        models=[name],
        engine="ollama",
        model_path=str(model.path),
        ready_seconds=round(time.monotonic() - started, 3),
        warnings=[*model.warnings, *warnings],
        next_step=f'llmops agent run "..." --base-url {base_url} --model {name}',
    )


def _serve_embedded(request: DeployServeRequest, model: ServableModel, run: Run) -> DeployServeResult:
    spec = build_spec(request, model)
    folder = run.path / "server"
    announce = _Announcer(spec, run)
    _say(f"Loading {model.path} ...")
    with stop_on_signal() as stop:
        num_restarts = supervise(spec, folder, stop, announce)
    log = folder / REQUEST_LOG
    return DeployServeResult(
        base_url=announce.base_url,
        models=spec.model_names,
        engine="embedded",
        model_path=spec.model_path,
        ready_seconds=announce.ready_seconds,
        served_seconds=round(time.monotonic() - announce.ready_at, 3),
        num_requests=len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0,
        num_restarts=num_restarts,
        warnings=model.warnings,
    )


class _Announcer:
    """Tells the person and ``endpoint.json`` each time the server answers."""

    def __init__(self, spec: ServerSpec, run: Run) -> None:
        self._spec, self._run = spec, run
        self.base_url = ""
        self.ready_seconds = self.ready_at = 0.0

    def __call__(self, handle: ServerHandle, num_restarts: int) -> None:
        if not self.base_url:
            self.base_url, self.ready_seconds = handle.base_url, handle.ready_seconds
            self.ready_at = time.monotonic()
        endpoint = Endpoint(
            base_url=handle.base_url,
            models=self._spec.model_names,
            engine="embedded",
            model_path=self._spec.model_path,
            num_restarts=num_restarts,
        )
        publish_endpoint(self._run, endpoint)
        again = f" again, restart {num_restarts}," if num_restarts else ""
        _say(
            f"Ready{again} in {format_seconds(handle.ready_seconds)} "
            f"(load {format_seconds(handle.load_seconds)}, warm-up {format_seconds(handle.warm_seconds)}): "
            f"{handle.base_url}  model {', '.join(self._spec.model_names)}. "
            "Stop with Ctrl-C or `llmops deploy stop`."
        )
        if not handle.supports_tools:
            _say("warning: the chat template of this model knows no tools")


def build_spec(request: DeployServeRequest, model: ServableModel) -> ServerSpec:
    """Return the server of a request; a model with tools is warmed with the prompt it was trained on."""
    adapters = [value.partition("=") for value in request.adapter]
    is_bare = not (model.path.parent / "export.json").is_file()
    tools = model.tools or (tuple(load_tools()) if is_bare else ())
    system = {"role": "system", "content": system_prompt(date.today())}  # noqa: DTZ011 - the user's own day
    return ServerSpec(
        model_path=str(model.path),
        name=request.name or model.name,
        adapters=tuple(AdapterSpec(name=name, path=path) for name, _, path in adapters),
        host=request.host,
        port=request.port,
        context_length=request.context_length,
        num_slots=request.num_slots,
        warm_up=WarmUp(messages=(system,), tools=tools) if tools else None,
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


DEPLOY_SERVE = Operation(
    name="deploy.serve",
    request=DeployServeRequest,
    result=DeployServeResult,
    run=serve_model,
    long_running=True,
)
