"""The embedded OpenAI-compatible server: ``python -m pipeline.inference.gateway --spec FILE``.

Runs in a child process that ends with its parent. llama.cpp's own server listens on loopback behind a secret; this
gateway in front of it adds what :mod:`pipeline.inference.chat_rules` lists, plain-word errors, cancellation when the
client goes away, model names, an optional key and a request log without contents. Writes ``ready.json`` beside the
spec when it answers. Start it with :func:`pipeline.inference.server.start_server`, not by hand.
"""

import argparse
import asyncio
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.lifeline import end_with_parent
from pipeline.core.settings import Settings
from pipeline.inference.chat_rules import (
    UNPARSABLE,
    ChatPlan,
    ChunkFilter,
    CompletionBuilder,
    Json,
    RequestError,
    explain_engine_error,
    plan_chat,
)
from pipeline.inference.server_spec import READY_FILE, REQUEST_LOG, ServerSpec, require_key_off_loopback

_RAW_PATHS = ("/props", "/apply-template", "/tokenize", "/completion")
_RAW_TEXT_TOKENS = 256
_STATUS_CLIENT_LEFT = 499
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class Gateway:
    """HTTP handlers over one loaded engine."""

    def __init__(self, spec: ServerSpec, engine: httpx.AsyncClient, template: str, log_path: Path) -> None:
        self.spec, self.engine, self.template = spec, engine, template
        self.api_key = Settings.load().api_key
        self._log = log_path.open("a", encoding="utf-8", buffering=1)

    def build_app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/health", self.health),
            Route("/v1/chat/completions", self._guard(self.chat), methods=["POST"]),
            Route("/v1/models", self._guard(self.models)),
            Route("/api/tags", self._guard(self.tags)),
            Route("/api/version", self._guard(self.version)),
        ]
        if self.spec.expose_raw:
            routes += [Route(path, self._guard(self.raw), methods=["GET", "POST"]) for path in _RAW_PATHS]
        return Starlette(routes=routes, exception_handlers={HTTPException: _explain_http_error})

    async def health(self, request: Request) -> Response:
        """Answer without a key, so that a supervisor can ask."""
        return JSONResponse({"status": "ok", "models": self.spec.model_names})

    async def models(self, request: Request) -> Response:
        """List models in OpenAI's form."""
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "llmops"}
            for name in self.spec.model_names
        ]
        return JSONResponse({"object": "list", "data": data})

    async def tags(self, request: Request) -> Response:
        """List models in Ollama's form."""
        names = [f"{name}:latest" for name in self.spec.model_names]
        return JSONResponse({"models": [{"name": name, "model": name} for name in names]})

    async def version(self, request: Request) -> Response:
        """Answer what Ollama clients ask first; the name says that this is not Ollama."""
        return JSONResponse({"version": "0.0.0-llmops"})

    async def raw(self, request: Request) -> Response:
        """Pass a request through to llama.cpp."""
        content = await self._read_body(request)
        reply = await self.engine.request(request.method, request.url.path, content=content)
        return Response(reply.content, reply.status_code, media_type="application/json")

    async def chat(self, request: Request) -> Response:
        """Answer a chat completion."""
        record: Json = {"time": round(time.time(), 3), "status": 200}
        started = time.monotonic()
        try:
            plan = plan_chat(
                _parse_json(await self._read_body(request)), self.spec.model_names, self.template
            )
            record |= {
                "model": plan.model,
                "stream": plan.stream,
                "num_tools": len(plan.body.get("tools") or ()),
            }
            if plan.stream:
                return await self._start_stream(request, plan, record, started)
            answer = await _unless_client_leaves(request, self._complete(plan, record))
        except RequestError as error:
            self._log_request(record | {"status": error.status, "error": error.code}, started)
            return JSONResponse(error.to_openai(), error.status)
        self._log_request(record, started)
        return JSONResponse(answer)

    async def _complete(self, plan: ChatPlan, record: Json) -> Json:
        try:
            return await self._collect(plan, record)
        except RequestError as error:
            if error.code != UNPARSABLE:
                raise
        record["retried"] = True
        try:
            return await self._collect(plan.hotter(), record) | {"retried": True}
        except RequestError as error:
            if error.code == UNPARSABLE:
                error.facts["raw_text"] = await self._generate_raw_text(plan)
            raise

    async def _collect(self, plan: ChatPlan, record: Json) -> Json:
        builder = CompletionBuilder()
        async with aclosing(self._chunks(plan)) as chunks:
            async for chunk in chunks:
                builder.add(chunk)
        record |= _count_tokens(builder.usage) | {"finish_reason": builder.finish_reason}
        return builder.build()

    async def _generate_raw_text(self, plan: ChatPlan) -> str:
        """Generate the unparsable text once more, this time without a parser in the way."""
        keys = ("messages", "tools", "tool_choice")
        wanted = {key: plan.body[key] for key in keys if key in plan.body}
        prompt = (await self.engine.post("/apply-template", json=wanted)).json()["prompt"]
        limit = min(plan.body.get("max_tokens") or _RAW_TEXT_TOKENS, _RAW_TEXT_TOKENS)
        body = {"prompt": prompt, "n_predict": limit, "temperature": plan.body.get("temperature", 0)}
        return str((await self.engine.post("/completion", json=body)).json().get("content", ""))

    async def _start_stream(self, request: Request, plan: ChatPlan, record: Json, started: float) -> Response:
        chunks = self._chunks(plan)
        # The first chunk decides between an error status and a stream.
        first = await _unless_client_leaves(request, anext(chunks))

        async def events() -> AsyncGenerator[str]:
            builder = CompletionBuilder()
            outcome: Json = {"status": _STATUS_CLIENT_LEFT}
            try:
                async with aclosing(chunks):
                    builder.add(first)
                    yield _event(first)
                    async for chunk in chunks:
                        builder.add(chunk)
                        yield _event(chunk)
                outcome = {"status": 200}
                yield "data: [DONE]\n\n"
            except RequestError as error:
                outcome = {"status": error.status, "error": error.code}
                yield _event(error.to_openai())
            finally:
                tokens = _count_tokens(builder.usage)
                self._log_request(
                    record | outcome | tokens | {"finish_reason": builder.finish_reason}, started
                )

        return StreamingResponse(
            events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )

    async def _chunks(self, plan: ChatPlan) -> AsyncGenerator[Json]:
        chunk_filter = ChunkFilter(plan)
        async with self.engine.stream("POST", "/v1/chat/completions", json=plan.body) as reply:
            if reply.status_code != 200:
                raise explain_engine_error(
                    reply.status_code, _parse_json(await reply.aread()).get("error", {})
                )
            async for line in reply.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk: Json = json.loads(line[6:])
                if "error" in chunk:
                    raise explain_engine_error(chunk["error"].get("code", 500), chunk["error"])
                changed = chunk_filter.change(chunk)
                if changed is not None:
                    yield changed

    def _guard(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.api_key and not secrets.compare_digest(sent.encode(), self.api_key.encode()):
                error = RequestError(
                    401, "Send the server's key as `Authorization: Bearer KEY`.", "invalid_api_key"
                )
                return JSONResponse(error.to_openai(), 401, {"WWW-Authenticate": "Bearer"})
            try:
                return await handler(request)
            except RequestError as error:
                return JSONResponse(error.to_openai(), error.status)
            except httpx.TransportError as error:
                broken = RequestError(502, f"The engine broke off ({type(error).__name__}).", "engine_error")
                return JSONResponse(broken.to_openai(), broken.status)

        return guarded

    async def _read_body(self, request: Request) -> bytes:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.spec.max_body_bytes:
                limit = self.spec.max_body_bytes
                raise RequestError(413, f"The request body is larger than {limit} bytes.", "body_too_large")
        return bytes(body)

    def _log_request(self, record: Json, started: float) -> None:
        self._log.write(json.dumps(record | {"seconds": round(time.monotonic() - started, 4)}) + "\n")


async def _unless_client_leaves(request: Request, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """Await work, and cancel it, which frees its slot, when the client disconnects first."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_until_disconnect(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise RequestError(_STATUS_CLIENT_LEFT, "The client closed the connection.", "client_left")
    finally:
        watch.cancel()
        task.cancel()


async def _until_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _parse_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"The request body is not JSON: {error}", "invalid_json") from error


def _event(chunk: Json) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def _count_tokens(usage: Json) -> Json:
    details: Json = usage.get("prompt_tokens_details") or {}
    return {
        "prompt_tokens": usage.get("prompt_tokens"),
        "cached_tokens": details.get("cached_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
    }


async def _explain_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = f"{request.method} {request.url.path} is not served here."
    return JSONResponse(RequestError(status, message, "not_found").to_openai(), status)


def warm_up(spec: ServerSpec, engine: httpx.Client, scratch: Path) -> None:
    """Read the shared prompt prefix once and copy its cache into every slot.

    The copy takes milliseconds where reading the prefix again would take seconds. A model whose template knows no
    tools just warms the rest; a refusal is not an error, only a slower first request.
    """
    if spec.warm_up is None:
        return
    body = {
        "messages": [*spec.warm_up.messages, {"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "id_slot": 0,
    }
    reply = engine.post("/v1/chat/completions", json=body | {"tools": list(spec.warm_up.tools)})
    if reply.status_code != 200:
        print(f"warm-up refused: {reply.text}", file=sys.stderr)  # noqa: T201
        return
    engine.post("/slots/0?action=save", json={"filename": "warm.bin"})
    for slot in range(1, spec.num_slots):
        engine.post(f"/slots/{slot}?action=restore", json={"filename": "warm.bin"})
    (scratch / "warm.bin").unlink(missing_ok=True)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; without that each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def serve(spec: ServerSpec, folder: Path) -> None:
    """Load, warm, report and answer until terminated."""
    require_key_off_loopback(spec.host, Settings.load().api_key)
    listener = _listen(spec.host, spec.port)
    from pipeline.inference.backends.llama_cpp import LlamaCppEngine

    started = time.monotonic()
    engine = LlamaCppEngine(spec, folder)
    loaded = time.monotonic()
    access: Json = {
        "base_url": engine.address,
        "headers": {"Authorization": f"Bearer {engine.secret}", "Content-Type": "application/json"},
        "timeout": None,
        "trust_env": False,  # a proxy variable must not catch loopback
    }
    with httpx.Client(**access) as client:
        warm_up(spec, client, folder)
        props: Json = client.get("/props").json()
    # The engine closes a connection after a streamed answer without saying so; reusing one would race with that.
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    gateway = Gateway(
        spec, httpx.AsyncClient(**access, limits=unlimited), props["chat_template"], folder / REQUEST_LOG
    )
    config = uvicorn.Config(
        gateway.build_app(),
        log_level="warning",
        lifespan="off",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    ready = {
        "pid": os.getpid(),
        "port": listener.getsockname()[1],
        "load_seconds": round(loaded - started, 3),
        "warm_seconds": round(time.monotonic() - loaded, 3),
        "supports_tools": bool(props.get("chat_template_caps", {}).get("supports_tool_calls")),
    }
    write_json(folder / READY_FILE, ready)
    uvicorn.Server(config).run(sockets=[listener])


def main(argv: list[str]) -> int:
    """Run the server of a spec file and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.inference.gateway")
    parser.add_argument("--spec", type=Path, required=True)
    path: Path = parser.parse_args(argv).spec
    if Settings.load().stop_on_stdin_close:
        end_with_parent()
    try:
        serve(ServerSpec.model_validate_json(path.read_text(encoding="utf-8")), path.parent.absolute())
    except (PipelineError, OSError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    # Not sys.exit: freeing a busy engine would block.
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)
