"""The agent's own behaviour, on a server that answers from a script."""

import io
import json
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from pipeline.agent.backends.openai_agents import TaskAgent
from pipeline.agent.chat import AGENT_CHAT, AgentChatRequest, AgentChatResult
from pipeline.agent.run import AGENT_RUN, AgentRunRequest
from pipeline.agent.tool_calls import ToolCaller
from pipeline.agent.transcript import TranscriptItem, describe_call
from pipeline.core.errors import (
    DoesNotFitError,
    InvalidInputError,
    MissingDependencyError,
    OperationFailedError,
)
from pipeline.core.runs import Run, list_runs
from pipeline.inference.endpoints import Endpoint, publish_endpoint
from pipeline.inference.scripted_server import ScriptedServer, completion
from pipeline.task_api.store import TaskStore
from pipeline.task_api.tools import load_tools

TODAY = date(2026, 3, 11)
CREATE = completion(None, ("create_task", '{"title": "Call Bob", "due_date": "tomorrow"}'))
DONE = completion("Done.")


@pytest.fixture
def store() -> Iterator[TaskStore]:
    with TaskStore(clock=TODAY) as store:
        yield store


def ask(server: ScriptedServer, store: TaskStore, **options: Any) -> list[tuple[str, str]]:
    with TaskAgent(server.base_url, "task-agent", ToolCaller(store, **options)) as agent:
        turn = agent.ask("Remind me to call Bob tomorrow")
    return [(item.role, item.tool or item.text) for item in turn.items]


def test_a_call_changes_the_store_and_its_result_goes_back_to_the_model(store: TaskStore) -> None:
    seen: list[TranscriptItem] = []
    with ScriptedServer((200, CREATE), (200, DONE)) as server:
        items = ask(server, store, on_call=seen.append)
    assert items == [
        ("user", "Remind me to call Bob tomorrow"),
        ("tool", "create_task"),
        ("assistant", "Done."),
    ]
    task = store.list_tasks()["tasks"][0]
    assert (task["title"], task["due_date"]) == (
        "Call Bob",
        "2026-03-12",
    )  # the day after the fixed 2026-03-11
    assert seen[0].result is not None
    assert seen[0].result["task"]["id"] == task["id"]
    tool_message = server.requests[1].body["messages"][-1]
    assert (tool_message["role"], json.loads(tool_message["content"])) == ("tool", seen[0].result)


def test_the_request_is_the_one_the_model_was_trained_on(store: TaskStore) -> None:
    with ScriptedServer((200, DONE)) as server:
        ask(server, store)
    body = server.requests[0].body
    assert body["messages"][0] == {
        "role": "system",
        "content": "You are a task assistant. Today is 2026-03-11.",
    }
    assert body["temperature"] == 0
    sent = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body["tools"]}
    assert sent == {tool["function"]["name"]: tool["function"]["parameters"] for tool in load_tools()}


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("complete_task", '{"task_id": 99999}', "not_found"),
        ("create_task", '{"title": "x", "priority": "urgent"}', "invalid_priority"),
        ("create_task", '{"title": ', "invalid_arguments"),
        ("create_task", "[]", "invalid_arguments"),
    ],
)
def test_the_model_reads_why_a_call_failed(store: TaskStore, name: str, arguments: str, code: str) -> None:
    with ScriptedServer((200, completion(None, (name, arguments))), (200, DONE)) as server:
        ask(server, store)
    answer = json.loads(server.requests[1].body["messages"][-1]["content"])
    assert answer["error"] == code
    assert answer["message"]
    assert store.list_tasks()["total"] == 0


def test_two_calls_in_one_turn_are_both_executed(store: TaskStore) -> None:
    both = completion(None, ("create_task", '{"title": "a"}'), ("create_task", '{"title": "b"}'))
    with ScriptedServer((200, both), (200, DONE)) as server:
        ask(server, store)
    assert {task["title"] for task in store.list_tasks()["tasks"]} == {"a", "b"}


def test_an_agent_that_never_ends_is_stopped_and_the_message_forgotten(store: TaskStore) -> None:
    with (
        ScriptedServer((200, completion(None, ("list_tasks", "{}")))) as server,
        TaskAgent(server.base_url, "m", ToolCaller(store), max_turns=3) as agent,
    ):
        with pytest.raises(OperationFailedError, match="not finished after 3 model calls"):
            agent.ask("loop")
        assert len(server.requests) == 3
        with pytest.raises(OperationFailedError):
            agent.ask("again")
    users = [message for message in server.requests[3].body["messages"] if message["role"] == "user"]
    assert [message["content"] for message in users] == ["again"]


def test_a_wrong_call_is_repaired_by_the_model_that_reads_why(store: TaskStore) -> None:
    answers = [
        completion(None, ("fly", "{}")),
        completion(None, ("create_task", '{"name": "Call Bob"}')),
        completion(None, ("create_task", '{"title": "Call Bob"}')),
        DONE,
    ]
    seen: list[TranscriptItem] = []
    with ScriptedServer(*((200, answer) for answer in answers)) as server:
        items = ask(server, store, on_call=seen.append)
    assert [name for role, name in items if role == "tool"] == ["fly", "create_task", "create_task"]
    read = [json.loads(request.body["messages"][-1]["content"]) for request in server.requests[1:]]
    assert "There is no tool 'fly'; the tools are create_task" in read[0]["message"]
    assert "'name'" in read[1]["message"]
    assert read[2]["task"]["title"] == "Call Bob"
    assert [item.result for item in seen] == read


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "too long", "code": "context_length_exceeded"}, DoesNotFitError),
        (404, {"message": "There is no model 'x' here", "code": "model_not_found"}, InvalidInputError),
        (401, {"message": "no"}, InvalidInputError),
        (500, {"message": "cannot be parsed", "code": "unparsable_tool_call"}, OperationFailedError),
    ],
)
def test_a_refusal_of_the_server_keeps_its_kind(
    store: TaskStore, status: int, error: dict[str, str], kind: type[Exception]
) -> None:
    with ScriptedServer((status, {"error": error})) as server, pytest.raises(kind):
        ask(server, store)


def test_no_server_is_a_missing_service(store: TaskStore) -> None:
    with (
        TaskAgent("http://127.0.0.1:9/v1", "m", ToolCaller(store)) as agent,
        pytest.raises(MissingDependencyError, match="does not answer"),
    ):
        agent.ask("hi")


def test_no_openai_key_is_needed_or_sent(store: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    monkeypatch.setenv("LLMOPS_API_KEY", "ours")
    with ScriptedServer((200, DONE)) as server:
        ask(server, store)
    assert server.requests[0].headers["authorization"] == "Bearer ours"


def test_run_returns_every_step_and_keeps_the_tasks(workspace: Path) -> None:
    with ScriptedServer((200, CREATE), (200, DONE)) as server:
        result = AGENT_RUN.execute(
            AgentRunRequest(text="Call Bob tomorrow", base_url=server.base_url, today=TODAY)
        )
    assert [item.role for item in result.items] == ["user", "tool", "assistant"]
    assert result.items[1].arguments == {"title": "Call Bob", "due_date": "tomorrow"}
    assert (result.output, result.num_model_calls, result.input_tokens, result.output_tokens) == (
        "Done.",
        2,
        20,
        10,
    )
    with TaskStore(workspace / "tasks.db") as kept:
        assert kept.list_tasks()["total"] == 1
    transcript = list_runs()[0].artifacts / "transcript.jsonl"
    assert [json.loads(line)["role"] for line in transcript.read_text(encoding="utf-8").splitlines()] == [
        "user", "tool", "assistant",
    ]  # fmt: skip


def test_run_uses_the_running_server_of_the_workspace(workspace: Path) -> None:
    with ScriptedServer((200, DONE)) as server:
        serving = Run.create("deploy.serve", {})
        endpoint = Endpoint(
            base_url=server.base_url, models=["task-agent"], engine="embedded", model_path="x"
        )
        publish_endpoint(serving, endpoint)
        result = AGENT_RUN.execute(AgentRunRequest(text="hi", store=":memory:"))
    assert result.base_url == server.base_url
    assert not (workspace / "tasks.db").exists()
    assert not (workspace / ":memory:").exists()


def test_run_without_server_and_model_says_what_is_missing(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no 'task-agent'"):
        AGENT_RUN.execute(AgentRunRequest(text="hi", store=":memory:"))


def chat(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, *lines: str, **fields: Any
) -> AgentChatResult:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return AGENT_CHAT.execute(
        AgentChatRequest(base_url=server.base_url, store=":memory:", today=TODAY, **fields)
    )


def test_a_piped_chat_shows_calls_and_tasks_and_ends_at_quit(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer((200, CREATE), (200, DONE)) as server:
        result = chat(server, monkeypatch, "Call Bob tomorrow", "", "/tasks", "/help", "/quit", "not sent")
    captured = capsys.readouterr()
    assert captured.out == ""
    flat = " ".join(captured.err.split())
    assert 'create_task(title="Call Bob", due_date="tomorrow") ->' in flat
    assert "agent> Done." in flat
    assert "1 Call Bob (open, medium, due 2026-03-12)" in flat
    assert (result.num_messages, result.num_failures, len(server.requests)) == (1, 0, 2)


def test_a_chat_asks_before_it_deletes(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delete = ("delete_task", '{"task_id": 1}')
    script = [CREATE, DONE, completion(None, delete), DONE, completion(None, delete), DONE]
    with ScriptedServer(*((200, answer) for answer in script)) as server:
        result = chat(server, monkeypatch, "Call Bob", "Delete it", "n", "Delete it", "y", "/tasks")
    shown = " ".join(capsys.readouterr().err.split())
    assert "delete_task: task 1, 'Call Bob'? [y/N] n" in shown
    assert "0 tasks in" in shown
    results = [item.result or {} for item in result.items if item.tool == "delete_task"]
    assert [next(iter(answer)) for answer in results] == ["error", "deleted"]


def test_run_deletes_only_when_told_that_it_may(workspace: Path) -> None:
    with TaskStore(workspace / "tasks.db") as store:
        store.create_task("send the invoice")
    delete = ("delete_task", '{"task_id": 1}')
    script = [completion(None, delete), DONE, completion(None, delete), DONE]
    with ScriptedServer(*((200, answer) for answer in script)) as server:
        refused = AGENT_RUN.execute(AgentRunRequest(text="Delete task 1", base_url=server.base_url))
        assert "--allow-deletes" in refused.warnings[0]
        request = AgentRunRequest(text="Delete task 1", base_url=server.base_url, allow_deletes=True)
        assert AGENT_RUN.execute(request).warnings == []
    with TaskStore(workspace / "tasks.db") as store:
        assert store.snapshot() == []


def test_a_chat_remembers_until_reset_and_survives_an_error(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    with ScriptedServer((200, DONE), (400, refused), (200, DONE), (200, DONE)) as server:
        result = chat(server, monkeypatch, "one", "two", "three", "/reset", "four")
    said = [[m["content"] for m in r.body["messages"] if m["role"] == "user"] for r in server.requests]
    assert said == [["one"], ["one", "two"], ["one", "three"], ["four"]]
    assert (result.num_messages, result.num_failures) == (3, 1)


def test_a_named_session_goes_on_in_the_next_chat(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer((200, DONE)) as server:
        chat(server, monkeypatch, "one", session="mine")
        chat(server, monkeypatch, "two", session="mine")
        chat(server, monkeypatch, "three", session="other")
    said = [[m["content"] for m in r.body["messages"] if m["role"] == "user"] for r in server.requests]
    assert said == [["one"], ["one", "two"], ["three"]]


def test_a_call_reads_as_one_line() -> None:
    item = TranscriptItem(
        role="tool", tool="create_task", arguments={"title": "Büro"}, result={"task": {"id": 1}}
    )
    assert describe_call(item) == 'create_task(title="Büro") -> {"task": {"id": 1}}'


def test_a_reply_is_streamed_piece_by_piece_and_is_the_same_in_the_end(store: TaskStore) -> None:
    pieces: list[str] = []
    with (
        ScriptedServer((200, CREATE), (200, completion("I added it."))) as server,
        TaskAgent(server.base_url, "m", ToolCaller(store)) as agent,
    ):
        turn = agent.ask("Call Bob", pieces.append)
    assert [piece for piece in pieces if piece] == ["I", " added", " it."]
    assert turn.output == "I added it."
    assert [item.role for item in turn.items] == ["user", "tool", "assistant"]
    assert (turn.input_tokens, turn.output_tokens) == (20, 10)
    assert store.list_tasks()["total"] == 1


UNPARSABLE_EVENT = 'data: {"error": {"message": "cannot be parsed", "code": "unparsable_tool_call"}}\n\n'


def test_a_streamed_call_that_cannot_be_parsed_is_asked_for_again_hotter(store: TaskStore) -> None:
    begun = {"index": 0, "id": "c1", "type": "function", "function": {"name": "create_task", "arguments": ""}}
    delta = {"role": "assistant", "tool_calls": [begun]}
    chunk = {**completion(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    broken = f"data: {json.dumps(chunk)}\n\n{UNPARSABLE_EVENT}"
    pieces: list[str] = []
    with (
        ScriptedServer((200, CREATE), (200, broken), (200, DONE)) as server,
        TaskAgent(server.base_url, "m", ToolCaller(store)) as agent,
    ):
        turn = agent.ask("Call Bob", pieces.append)
    assert [item.tool or item.text for item in turn.items] == ["Call Bob", "create_task", "Done."]
    assert "".join(pieces) == "Done."
    assert store.list_tasks()["total"] == 1  # the call before is not made again
    assert [request.body["temperature"] for request in server.requests] == [0, 0, 0.4]
    assert server.requests[2].body["messages"] == server.requests[1].body["messages"]


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (UNPARSABLE_EVENT, OperationFailedError),
        ('data: {"error": {"message": "too long", "code": "context_length_exceeded"}}\n\n', DoesNotFitError),
    ],
)
def test_an_error_inside_a_stream_keeps_its_kind(
    store: TaskStore, events: str, kind: type[Exception]
) -> None:
    with (
        ScriptedServer((200, events)) as server,
        TaskAgent(server.base_url, "m", ToolCaller(store)) as agent,
        pytest.raises(kind),
    ):
        agent.ask("hi", lambda text: None)


def test_a_server_that_dies_in_the_middle_of_a_reply_is_a_missing_service(store: TaskStore) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
    chunk = {**completion(), "choices": [{"index": 0, "delta": {"content": "I am"}, "finish_reason": None}]}

    class Dying(StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            self.wfile.write(head + f"data: {json.dumps(chunk)}\n\n".encode())

    pieces: list[str] = []
    with ThreadingTCPServer(("127.0.0.1", 0), Dying) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        with (
            TaskAgent(url, "m", ToolCaller(store)) as agent,
            pytest.raises(MissingDependencyError, match=r"does not answer|broke off"),
        ):
            agent.ask("Who are you?", pieces.append)
        server.shutdown()
    assert pieces == ["I am"]
