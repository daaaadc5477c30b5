"""The real server on the real (untuned) weights: wire, faults and process hygiene."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pipeline.core.errors import (
    DoesNotFitError,
    IntegrityError,
    InvalidInputError,
    MissingDependencyError,
    OperationFailedError,
)
from pipeline.core.messages import Message
from pipeline.deploy.load import DEPLOY_LOAD, DeployLoadRequest
from pipeline.inference.client import ChatClient
from pipeline.inference.request_log import read_statistics
from pipeline.inference.server import ServerHandle, start_server, supervise
from pipeline.inference.server_spec import REQUEST_LOG, ServerSpec, WarmUp
from pipeline.task_api.tools import load_tools

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATE = REPOSITORY / "pipeline" / "models" / "tool_chat.jinja"
SYSTEM = "You are a task assistant. Today is 2026-03-11."
CREATE = [Message(role="system", content=SYSTEM), Message(role="user", content="Create a task to call Bob")]
LIST_TASKS = {"type": "function", "function": {"name": "list_tasks"}}


def make_spec(gguf: Path, **changes: Any) -> ServerSpec:
    spec = ServerSpec(
        model_path=str(gguf),
        chat_template=str(TEMPLATE),
        warm_up=WarmUp(messages=({"role": "system", "content": SYSTEM},), tools=tuple(load_tools())),
        context_length=2048,
    )
    return spec.model_copy(update=changes)


@pytest.fixture(scope="module")
def server(starter_gguf: Path) -> Iterator[ServerHandle]:
    with start_server(make_spec(starter_gguf)) as handle:
        yield handle


@pytest.fixture
def client(server: ServerHandle) -> Iterator[ChatClient]:
    with ChatClient(server.base_url, "task-agent") as client:
        yield client


def post(server: ServerHandle, **fields: Any) -> httpx.Response:
    body = {
        "messages": [message.to_openai() for message in CREATE],
        "temperature": 0,
        "max_tokens": 48,
        **fields,
    }
    return httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=120)


def begin_and_leave(server: ServerHandle, body: dict[str, Any]) -> None:
    """Send a request and close the connection after 0.7 s."""
    host, port = server.root_url.removeprefix("http://").split(":")
    content = json.dumps(body)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall((head + content).encode())
        time.sleep(0.7)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_the_first_request_finds_the_shared_prefix_in_every_slot(server: ServerHandle) -> None:
    def ask(number: int) -> dict[str, Any]:
        return post(server, tools=load_tools(), max_tokens=8, seed=number).json()["usage"]

    with ThreadPoolExecutor(2) as pool:
        usages = list(pool.map(ask, range(2)))
    for usage in usages:
        assert usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] < 40


def test_a_required_call_comes_back_parsed(client: ChatClient) -> None:
    answer = client.complete(CREATE, tools=load_tools(), tool_choice="required", max_tokens=256)
    names = {tool["function"]["name"] for tool in load_tools()}
    assert {call.name for call in answer.message.tool_calls} <= names
    assert answer.finish_reason == "tool_calls"


def test_a_named_call_is_the_named_one_with_whole_arguments(client: ChatClient) -> None:
    answer = client.complete(
        CREATE,
        tools=load_tools(),
        tool_choice=LIST_TASKS,
        max_tokens=200,
        extra={"parallel_tool_calls": False},
    )
    assert [call.name for call in answer.message.tool_calls] == ["list_tasks"]


def test_the_stream_adds_up_to_the_plain_answer(server: ServerHandle) -> None:
    fields: dict[str, Any] = {"tools": load_tools(), "tool_choice": LIST_TASKS, "parallel_tool_calls": False}
    post(server, **fields)  # both runs below then start from the same cache
    plain = post(server, **fields).json()["choices"][0]
    names: list[str] = []
    arguments, finish, last = "", None, ""
    body = {"messages": [m.to_openai() for m in CREATE], "temperature": 0, "max_tokens": 48, "stream": True}
    with httpx.stream(
        "POST", f"{server.base_url}/chat/completions", json=body | fields, timeout=120
    ) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        for line in reply.iter_lines():
            last = line or last
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
                assert chunk["model"] == "task-agent"
                for choice in chunk["choices"]:
                    finish = choice["finish_reason"] or finish
                    for call in choice["delta"].get("tool_calls", []):
                        names += [call["function"]["name"]] if "name" in call["function"] else []
                        arguments += call["function"].get("arguments", "")
    call = plain["message"]["tool_calls"][0]["function"]
    assert (names, arguments, finish, last) == (
        [call["name"]],
        call["arguments"],
        plain["finish_reason"],
        "data: [DONE]",
    )


def test_fifty_clients_at_once_each_get_their_own_answer(server: ServerHandle, workspace: Path) -> None:
    before = read_statistics(server.folder / REQUEST_LOG).num_requests
    result = DEPLOY_LOAD.execute(DeployLoadRequest(base_url=server.base_url, num_requests=50, num_clients=50))
    assert (result.num_answered, result.num_mixed_up, result.num_lost, result.errors) == (50, 0, 0, {})
    assert read_statistics(server.folder / REQUEST_LOG).num_requests - before == 50


def test_an_unknown_model_is_refused_with_the_served_names(server: ServerHandle) -> None:
    with (
        ChatClient(server.base_url, "gpt-4") as client,
        pytest.raises(InvalidInputError, match="has no model 'gpt-4'") as failed,
    ):
        client.complete(CREATE)
    assert "task-agent" in failed.value.hint


def test_a_conversation_longer_than_the_context_is_refused_with_both_numbers(client: ChatClient) -> None:
    with pytest.raises(DoesNotFitError) as failed:
        client.complete([Message(role="user", content="word " * 3000)])
    assert failed.value.details["context_tokens"] == 2048
    assert int(str(failed.value.details["prompt_tokens"])) > 3000


def test_a_call_no_parser_accepts_is_retried_and_then_shown(server: ServerHandle) -> None:
    # A continued assistant turn that already holds a broken call cannot be parsed whatever follows.
    broken = [m.to_openai() for m in CREATE] + [{"role": "assistant", "content": "<tool_call>xx</tool_call>"}]
    reply = post(server, messages=broken, tools=load_tools(), max_tokens=8)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (500, "unparsable_tool_call")
    assert isinstance(error["raw_text"], str)
    records = [
        json.loads(line) for line in (server.folder / REQUEST_LOG).read_text(encoding="utf-8").splitlines()
    ]
    assert any(record.get("retried") and record["error"] == "unparsable_tool_call" for record in records)


def test_the_request_log_has_counts_and_no_contents(server: ServerHandle) -> None:
    post(server, messages=[{"role": "user", "content": "a very private sentence"}], max_tokens=4)
    log = (server.folder / REQUEST_LOG).read_text(encoding="utf-8")
    assert "private" not in log
    record = json.loads(log.splitlines()[-1])
    assert record["status"] == 200
    assert record["completion_tokens"] == 4
    assert record["seconds"] > 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(server: ServerHandle, stream: bool) -> None:
    endless = {
        "messages": [{"role": "user", "content": "Tell a story"}],
        "max_tokens": 1800,
        "ignore_eos": True,
    }
    started = time.monotonic()
    for _ in range(2):  # one for each slot
        begin_and_leave(server, endless | {"stream": stream})
    post(server, max_tokens=2)
    # 1800 tokens take at least 18 s at the 100 tokens/s that two cores reach at best.
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 400), (b"[]", 400), (b"[" * 100_000, 400), (b" " * (4 << 20) + b"{}", 413)]
)
def test_a_bad_body_is_refused_and_the_server_lives_on(
    server: ServerHandle, content: bytes, status: int
) -> None:
    reply = httpx.post(f"{server.base_url}/chat/completions", content=content, timeout=30)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]
    assert httpx.get(f"{server.root_url}/health").json() == {"status": "ok", "models": ["task-agent"]}


def test_raw_endpoints_are_closed_unless_asked_for(server: ServerHandle, starter_gguf: Path) -> None:
    assert httpx.get(f"{server.root_url}/props").status_code == 404
    with start_server(make_spec(starter_gguf, expose_raw=True, warm_up=None, exact_numerics=True)) as raw:
        assert (
            httpx.get(f"{raw.root_url}/props").json()["chat_template"].strip() == TEMPLATE.read_text().strip()
        )
        tokens = httpx.post(f"{raw.root_url}/tokenize", json={"content": "Hello world"}).json()["tokens"]
        assert len(tokens) == 2


def test_a_key_is_asked_for_everywhere_but_health(
    starter_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_API_KEY", "s3cret")
    with start_server(make_spec(starter_gguf, warm_up=None)) as handle:
        assert httpx.get(f"{handle.root_url}/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert httpx.get(f"{handle.base_url}/models", headers=headers).status_code == 401
            reply = httpx.post(f"{handle.base_url}/chat/completions", json={}, headers=headers)
            assert reply.json()["error"]["code"] == "invalid_api_key"
        with ChatClient(handle.base_url, "task-agent") as client:
            assert client.list_models() == ["task-agent"]
        assert "s3cret" not in "".join(p.read_text() for p in handle.folder.iterdir())


def test_a_truncated_model_is_named_as_damaged_and_leaves_no_process(
    starter_gguf: Path, tmp_path: Path
) -> None:
    before = psutil.Process().children()
    whole = starter_gguf.read_bytes()
    for size in (len(whole) // 2, 50_000):
        cut = tmp_path / f"cut-{size}.gguf"
        cut.write_bytes(whole[:size])
        with pytest.raises(IntegrityError, match="cannot be loaded"):
            start_server(make_spec(cut), timeout_seconds=60)
    # Children of earlier tests may end meanwhile; what counts is that none was added.
    assert [child for child in psutil.Process().children() if child not in before] == []


def test_a_template_that_does_not_compile_is_an_error_with_the_log(
    starter_gguf: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jinja"
    bad.write_text("{% for %}", encoding="utf-8")
    with pytest.raises(OperationFailedError) as failed:
        start_server(make_spec(starter_gguf, warm_up=None, chat_template=str(bad)), timeout_seconds=60)
    assert failed.value.details["log"]


def test_the_server_ends_when_its_parent_is_killed(starter_gguf: Path, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import time
        from pipeline.inference.server import start_server
        from pipeline.inference.server_spec import ServerSpec
        handle = start_server(ServerSpec(model_path={str(starter_gguf)!r}, chat_template={str(TEMPLATE)!r}))
        print(handle.pid, flush=True)
        time.sleep(600)
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5)


def test_a_killed_server_breaks_its_requests_clearly_and_comes_back_on_the_same_port(
    starter_gguf: Path, tmp_path: Path
) -> None:
    stop = threading.Event()
    handles: list[ServerHandle] = []

    def remember(handle: ServerHandle, num_restarts: int) -> None:
        handles.append(handle)

    with ThreadPoolExecutor(2) as pool:
        supervisor = pool.submit(supervise, make_spec(starter_gguf, warm_up=None), tmp_path, stop, remember)
        try:
            assert wait_until(lambda: len(handles) == 1, 30)
            with ChatClient(handles[0].base_url, "task-agent") as client:
                request = pool.submit(client.complete, CREATE, max_tokens=1500, extra={"ignore_eos": True})
                time.sleep(1)
                os.kill(handles[0].pid, signal.SIGKILL)
                with pytest.raises(MissingDependencyError, match="broke off"):
                    request.result(30)
                assert wait_until(lambda: len(handles) == 2, 30)
                assert handles[1].port == handles[0].port
                assert client.complete(CREATE, max_tokens=4).completion_tokens == 4
        finally:
            stop.set()
        assert supervisor.result(20) == 1
    assert not handles[1].is_alive()


def test_a_server_that_keeps_dying_is_given_up(starter_gguf: Path, tmp_path: Path) -> None:
    def kill(handle: ServerHandle, num_restarts: int) -> None:
        os.kill(handle.pid, signal.SIGKILL)

    with pytest.raises(OperationFailedError, match="died 4 times in a minute"):
        supervise(make_spec(starter_gguf, warm_up=None), tmp_path, threading.Event(), kill)


def test_serve_answers_until_sigterm_and_then_reports(starter_gguf: Path, workspace: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "deploy",
        "serve",
        "--model",
        str(starter_gguf),
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=workspace,
    )
    assert process.stderr is not None
    with process:
        ready = next(line for line in process.stderr if line.startswith("Ready in"))
        url = ready.split("): ")[1].split()[0]
        with ChatClient(url, "starter-f16") as client:
            tools = load_tools()
            assert client.complete(
                CREATE, tools=tools, tool_choice="required", max_tokens=256
            ).message.tool_calls
        children = psutil.Process(process.pid).children()
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    result = json.loads(output)
    assert (result["base_url"], result["num_requests"], result["num_restarts"]) == (url, 1, 0)
    assert children
    assert not [child for child in children if child.is_running()]
