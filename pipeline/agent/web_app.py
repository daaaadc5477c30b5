"""The page of ``agent.web``: one HTML file, and the four requests it sends.

``GET /state`` is all there is to show; ``POST /messages`` answers with one JSON line for each thing that happens while
the agent works. Only pages of this machine are listened to: other host names are refused, and so is a POST that a page
of another origin could send without asking (one that is not JSON). One conversation at a time.
"""

import asyncio
import json
import queue
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline.agent.backends.openai_agents import TaskAgent
from pipeline.agent.consent import ConsentDesk, Question
from pipeline.agent.tool_calls import ToolCaller
from pipeline.agent.transcript import TranscriptItem
from pipeline.core.errors import OperationFailedError, PipelineError
from pipeline.inference.server import check_port
from pipeline.task_api.store import TaskStore

_LOOPBACK = "127.0.0.1"
_CONSENT_SECONDS = 120.0
_START_SECONDS = 30.0
_MAX_TEXT_CHARACTERS = 20_000
Event = dict[str, Any]


class AgentPage:
    """One conversation and its HTTP handlers; a context manager that closes the agent."""

    def __init__(self, base_url: str, model: str, store: TaskStore, *, max_turns: int = 8) -> None:
        self.items: list[TranscriptItem] = []
        self.num_answered = 0
        self._model, self._store = model, store
        self._html = files("pipeline.agent").joinpath("web_page.html").read_text(encoding="utf-8")
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._consent = ConsentDesk(self._tell_question, _CONSENT_SECONDS)
        self._is_busy = False
        self._worker = ThreadPoolExecutor(1)  # the agent and its event loop stay in one thread
        tools = ToolCaller(store, on_call=self._tell_call, consent=self._consent.ask)
        self._agent = self._worker.submit(
            lambda: TaskAgent(base_url, model, tools, max_turns=max_turns)
        ).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consent.close()  # else the agent would wait for an answer that cannot come
        self._worker.submit(self._agent.close).result()
        self._worker.shutdown()

    def build_app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/", self.page),
            Route("/state", self.state),
            Route("/messages", self.messages, methods=["POST"]),
            Route("/consent", self.consent, methods=["POST"]),
            Route("/reset", self.reset, methods=["POST"]),
        ]
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[_LOOPBACK, "localhost"], www_redirect=False)
        return Starlette(routes=routes, middleware=[hosts])

    async def page(self, request: Request) -> Response:
        """Answer with the page; its script alone may run there, and it may talk to nobody else."""
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(self._html.replace("NONCE", nonce), headers={"Content-Security-Policy": policy})

    async def state(self, request: Request) -> Response:
        """Answer with the conversation, the tasks, and the question that is open: a page loaded anew asks it again."""
        items = [item.model_dump(mode="json") for item in self.items]
        question = self._consent.open_question
        return JSONResponse(
            {
                "model": self._model,
                "items": items,
                "tasks": self._store.snapshot(),
                "question": question and question.to_dict(),
            }
        )

    async def messages(self, request: Request) -> Response:
        """Give a message to the agent, and answer with what happens, as it happens."""
        body = await _read_json(request)
        text = body.get("text")
        if not isinstance(text, str) or not 0 < len(text.strip()) <= _MAX_TEXT_CHARACTERS:
            return _refuse(400, f"'text' must have 1 to {_MAX_TEXT_CHARACTERS} characters.")
        if self._is_busy:
            return _refuse(409, "The agent is still busy with the message before.")
        self._is_busy = True
        self._events = queue.SimpleQueue()  # nothing left of a message whose page went away
        self._worker.submit(self._ask, text.strip())
        return StreamingResponse(_stream(self._events), media_type="application/x-ndjson")

    async def consent(self, request: Request) -> Response:
        """Take the answer to the question it names; a yes to one question never counts for another."""
        body = await _read_json(request)
        if not self._consent.answer(body.get("id"), body.get("agree") is True):
            return _refuse(
                409, "This question is not open any more. Send the message again to be asked anew."
            )
        return JSONResponse({})

    async def reset(self, request: Request) -> Response:
        """Forget the conversation; the tasks stay."""
        await _read_json(request)
        if self._is_busy:
            return _refuse(409, "The agent is still busy with the message before.")
        await asyncio.wrap_future(self._worker.submit(self._agent.reset))
        self.items.clear()
        return JSONResponse({})

    def _ask(self, text: str) -> None:
        end: Event = {"kind": "error", "text": "The agent broke off."}
        try:
            turn = self._agent.ask(text, lambda piece: self._events.put({"kind": "text", "text": piece}))
            self.num_answered += 1
            end = {"kind": "end", "seconds": turn.seconds, "num_tokens": turn.output_tokens}
        except PipelineError as error:
            end = {"kind": "error", "text": f"{error}. {error.hint}"}
        finally:
            self.items.extend(self._agent.last_items)  # of a failure too: its calls have changed the tasks
            self._is_busy = False
            self._events.put(end)

    def _tell_call(self, item: TranscriptItem) -> None:
        self._events.put({"kind": "call", "item": item.model_dump(mode="json")})

    def _tell_question(self, question: Question) -> None:
        self._events.put({"kind": "question", **question.to_dict()})


async def _stream(events: "queue.SimpleQueue[Event]") -> AsyncGenerator[str]:
    while True:
        event = await asyncio.to_thread(events.get)
        yield json.dumps(event, ensure_ascii=False) + "\n"
        if event["kind"] in {"end", "error"}:
            return


async def _read_json(request: Request) -> dict[str, Any]:
    # A form of another site can be sent without asking us first, JSON cannot: so only JSON is taken.
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise HTTPException(415, "Send JSON.")
    try:
        body: Any = json.loads(await request.body())
    except ValueError as error:
        raise HTTPException(400, f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "The body must be a JSON object.")
    return body  # pyright: ignore[reportUnknownVariableType] - keys of a JSON object are text


def _refuse(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


@contextmanager
def serve_page(page: AgentPage, port: int) -> Generator[str]:
    """Serve the page on loopback while the block runs; yield its URL.

    Raises:
        InvalidInputError: If the port is taken.
        OperationFailedError: If it does not start.
    """
    if port:
        check_port(_LOOPBACK, port)
    config = uvicorn.Config(
        page.build_app(),
        host=_LOOPBACK,
        port=port,
        log_level="error",
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)  # not in the main thread: signals stay ours
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    if not server.started:
        raise OperationFailedError(
            f"the page did not start on {_LOOPBACK}:{port}", hint="Try another --port; 0 takes a free one."
        )
    try:
        yield f"http://{_LOOPBACK}:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)
