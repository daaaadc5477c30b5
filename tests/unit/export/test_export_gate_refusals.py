"""A server that answers the gate with an error: what it says is written down, and the gate goes on."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from pipeline.export import gate
from pipeline.export.gate_checks import find_call
from pipeline.export.gate_server import GateServer, RefusedRequestError
from pipeline.export.gate_task import HeldOutTurn, context_for, measure_accuracy

if TYPE_CHECKING:
    from pipeline.export.backends.reference import Reference

_UNPARSABLE = {
    "error": {"code": "unparsable_tool_call", "message": "The model wrote no tool call that parses."}
}


def _ask(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def server() -> GateServer:
    """Answers "Hi" and refuses everything else."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if body.get("messages") == _ask("Hi"):
            choice = {"message": {"content": "Hello."}, "finish_reason": "stop"}
            return httpx.Response(200, json={"choices": [choice]})
        return httpx.Response(500, json=_UNPARSABLE)

    client = httpx.Client(base_url="http://gate", transport=httpx.MockTransport(answer))
    return GateServer(client, "m")


def _reference(num_tokens: int = 3) -> "Reference":
    def render(_: object, __: object) -> str:
        return "prompt"

    def tokenize(_: str) -> list[int]:
        return [1] * num_tokens

    return cast("Reference", SimpleNamespace(render=render, tokenize=tokenize, control_texts=[]))


def test_a_held_out_turn_that_the_server_cannot_answer_counts_as_wrong(server: GateServer) -> None:
    turns = [HeldOutTurn(_ask("Hi"), []), HeldOutTurn(_ask("List my tasks"), [])]
    assert measure_accuracy(server, turns, []) == 0.5


@pytest.mark.parametrize("way", ["chat", "chat_streamed"])
def test_a_refusal_says_what_the_server_said(server: GateServer, way: str) -> None:
    with pytest.raises(RefusedRequestError, match="500: The model wrote no tool call that parses"):
        getattr(server, way)(_ask("List my tasks"), None)


def test_behaviour_that_the_server_cannot_show_is_a_failed_check(server: GateServer) -> None:
    files = [Path("m.gguf")]
    subject = cast(
        "gate.Subject", SimpleNamespace(uses_tools=True, system_prompt="Be brief.", preference=files)
    )
    found = gate._check_behaviour(server, subject, _reference())  # pyright: ignore[reportPrivateUsage]
    assert [(check.id, check.passed) for check in found] == [("answers", False)]
    assert "no tool call that parses" in found[0].measured


def _said(text: str) -> dict[str, Any]:
    return {"message": {"content": text}, "finish_reason": "stop"}


def _called(name: str) -> dict[str, Any]:
    call = {"id": "1", "function": {"name": name, "arguments": "{}"}}
    return {"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}


def test_the_round_trip_goes_on_with_the_first_question_that_the_model_answers_by_a_call() -> None:
    asks_back, lists = _said("What should the task be called?"), _called("list_tasks")
    assert find_call([asks_back, lists, _called("create_task")]) == 1
    assert find_call([asks_back, _said("You have three.")]) == 0  # no call at all: that check fails


@pytest.mark.parametrize(("num_tokens", "context"), [(3, 2048), (4000, 4160), (100_000, 8192)])
def test_the_context_grows_with_the_longest_turn_up_to_a_limit(num_tokens: int, context: int) -> None:
    assert context_for([HeldOutTurn(_ask("Hi"), [])], _reference(num_tokens), []) == context
