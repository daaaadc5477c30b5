import socket
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.core.errors import (
    DoesNotFitError,
    InvalidInputError,
    MissingDependencyError,
    OperationFailedError,
)
from pipeline.core.messages import Message
from pipeline.inference.client import ChatClient, UnparsableToolCallError
from pipeline.inference.scripted_server import ScriptedServer, completion

HELLO = [Message(role="user", content="hi")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr("pipeline.inference.client._BACKOFF_SECONDS", 0.01)
    monkeypatch.delenv("LLMOPS_API_KEY", raising=False)
    return iter(())


def ask(server: ScriptedServer) -> object:
    with ChatClient(server.base_url, "task-agent") as client:
        return client.complete(HELLO)


def test_a_call_arrives_as_typed_arguments() -> None:
    with (
        ScriptedServer((200, completion(None, ("create_task", '{"title": "Büro"}')))) as server,
        ChatClient(server.base_url, "task-agent") as client,
    ):
        answer = client.complete(HELLO, max_tokens=9, extra={"seed": 3})
    (call,) = answer.message.tool_calls
    assert (call.name, call.arguments) == ("create_task", {"title": "Büro"})
    assert (call.id or "").startswith("call_")
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("tool_calls", 10, 5)
    body = server.requests[0].body
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.0, 9, 3)
    assert "tools" not in body


def test_a_server_that_is_not_there_is_named_after_a_few_tries() -> None:
    with (
        ChatClient(f"http://127.0.0.1:{free_port()}/v1", "m") as client,
        pytest.raises(MissingDependencyError, match="does not answer") as failed,
    ):
        client.complete(HELLO)
    assert "llmops deploy serve" in failed.value.hint


def test_a_request_that_reached_the_server_is_never_sent_twice() -> None:
    with ScriptedServer((200, None)) as server, pytest.raises(MissingDependencyError, match="broke off"):
        ask(server)
    assert len(server.requests) == 1


def test_an_unknown_model_is_refused_with_the_list() -> None:
    missing = {"error": {"message": "There is no model", "code": "model_not_found"}}
    models = {"data": [{"id": "a"}, {"id": "b"}]}
    with (
        ScriptedServer((404, missing), (200, models)) as server,
        pytest.raises(InvalidInputError, match="has no model 'task-agent'") as failed,
    ):
        ask(server)
    assert failed.value.hint == "Use one of: a, b."


def test_an_overlong_conversation_says_both_numbers() -> None:
    error = {
        "message": "too long",
        "code": "context_length_exceeded",
        "prompt_tokens": 9,
        "context_tokens": 8,
    }
    with ScriptedServer((400, {"error": error})) as server, pytest.raises(DoesNotFitError) as failed:
        ask(server)
    assert failed.value.details == {"prompt_tokens": 9, "context_tokens": 8}


def test_an_unparsable_call_keeps_what_the_model_wrote() -> None:
    error = {"message": "cannot be parsed", "code": "unparsable_tool_call", "raw_text": "<tool_call>{"}
    with ScriptedServer((500, {"error": error})) as server, pytest.raises(UnparsableToolCallError) as failed:
        ask(server)
    assert failed.value.details["raw_text"] == "<tool_call>{"


@pytest.mark.parametrize("arguments", ['{"title": "Bu', "[1]", '"text"'])
def test_arguments_that_are_no_object_are_an_unparsable_call(arguments: str) -> None:
    with (
        ScriptedServer((200, completion(None, ("create_task", arguments)))) as server,
        pytest.raises(UnparsableToolCallError) as failed,
    ):
        ask(server)
    assert failed.value.details["raw_text"] == arguments


def test_another_web_server_is_recognised_as_such() -> None:
    answers: list[Any] = ["<html>hello</html>", {"hello": 1}, {"choices": []}]
    for answer in answers:
        with (
            ScriptedServer((200, answer)) as server,
            pytest.raises(OperationFailedError, match="not answer like an OpenAI server"),
        ):
            ask(server)


def test_the_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_API_KEY", "s3cret")
    with ScriptedServer((200, completion("hi"))) as server:
        ask(server)
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"


def test_a_wrong_key_names_the_variable() -> None:
    with (
        ScriptedServer((401, {"error": {"message": "no"}})) as server,
        pytest.raises(InvalidInputError) as failed,
    ):
        ask(server)
    assert "LLMOPS_API_KEY" in failed.value.hint


def test_a_malformed_url_is_the_callers_mistake() -> None:
    with (
        ChatClient("ftp://example.org/v1", "m") as client,
        pytest.raises(InvalidInputError, match="not a URL"),
    ):
        client.complete(HELLO)


def test_proxies_of_the_environment_do_not_catch_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with ScriptedServer((200, completion("hi"))) as server:
        ask(server)
    assert len(server.requests) == 1
