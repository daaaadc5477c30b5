"""A message that fails after calls were made: they have changed the tasks, so they are recorded and told."""

import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.agent.backends.openai_agents import TaskAgent
from pipeline.agent.chat import AGENT_CHAT, AgentChatRequest
from pipeline.agent.run import AGENT_RUN, AgentRunRequest
from pipeline.agent.tool_calls import ToolCaller
from pipeline.agent.transcript import TranscriptItem, attach_calls
from pipeline.core.errors import DoesNotFitError, OperationFailedError, PipelineError
from pipeline.core.runs import list_runs
from pipeline.inference.scripted_server import ScriptedServer, completion
from pipeline.task_api.store import TaskStore

TODAY = date(2026, 3, 11)
CREATE = (200, completion(None, ("create_task", '{"title": "Call Bob"}')))
DONE = (200, completion("Done."))
TOO_LONG = (400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
LOST = (500, {"error": {"message": "cannot be parsed", "code": "unparsable_tool_call"}})


def read_transcript() -> list[dict[str, Any]]:
    text = (list_runs()[0].artifacts / "transcript.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("failures", [[TOO_LONG], [LOST, LOST]])  # the client asks a broken server twice
def test_the_error_says_which_calls_were_made_and_the_session_forgets_them(
    failures: list[tuple[int, Any]],
) -> None:
    with (
        TaskStore(clock=TODAY) as store,
        ScriptedServer(CREATE, *failures, DONE) as server,
        TaskAgent(server.base_url, "m", ToolCaller(store)) as agent,
    ):
        with pytest.raises(PipelineError) as raised:
            agent.ask("Call Bob")
        assert [item.tool or item.text for item in agent.last_items] == ["Call Bob", "create_task"]
        agent.ask("again")
        assert [item.text for item in agent.last_items] == ["again", "Done."]
        roles = [message["role"] for message in server.requests[-1].body["messages"]]
    assert roles == ["system", "user"]  # no call without its result, and no result without its call
    assert raised.value.details["num_calls"] == 1
    calls = raised.value.details["calls"]
    assert isinstance(calls, list)
    assert calls[0].startswith('create_task(title="Call Bob") -> {"task": {"id": 1')
    assert "1 tool call was made" in raised.value.hint


def test_an_error_before_any_call_names_none() -> None:
    with (
        TaskStore(clock=TODAY) as store,
        ScriptedServer(CREATE, DONE, TOO_LONG) as server,
        TaskAgent(server.base_url, "m", ToolCaller(store)) as agent,
    ):
        agent.ask("Call Bob")
        with pytest.raises(DoesNotFitError) as raised:
            agent.ask("again")
    assert "calls" not in raised.value.details
    assert "tool call" not in raised.value.hint


def test_a_run_that_fails_leaves_the_transcript_of_its_calls(workspace: Path) -> None:
    with (
        ScriptedServer(CREATE) as server,
        pytest.raises(OperationFailedError, match="1 model calls") as raised,
    ):
        AGENT_RUN.execute(
            AgentRunRequest(text="Call Bob", base_url=server.base_url, today=TODAY, max_turns=1)
        )
    assert [row["tool"] for row in read_transcript()] == [None, "create_task"]
    assert raised.value.details["num_calls"] == 1


def test_a_chat_keeps_the_calls_of_a_message_that_failed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Call Bob\nAnd now?\n"))
    with ScriptedServer(CREATE, TOO_LONG, DONE) as server:
        result = AGENT_CHAT.execute(AgentChatRequest(base_url=server.base_url, store=":memory:", today=TODAY))
    assert [item.role for item in result.items] == ["user", "tool", "user", "assistant"]
    assert [row["role"] for row in read_transcript()] == ["user", "tool", "user", "assistant"]
    assert (result.num_messages, result.num_failures) == (1, 1)
    assert "look at the tasks" in " ".join(capsys.readouterr().err.split())


def test_many_long_calls_are_cut_in_the_error() -> None:
    error = OperationFailedError("failed", hint="Try again.")
    call = TranscriptItem(role="tool", tool="create_task", arguments={"title": "x" * 1000}, result={})
    attach_calls(error, [call] * 30)
    calls = error.details["calls"]
    assert isinstance(calls, list)
    assert (error.details["num_calls"], len(calls), {len(line) for line in calls}) == (30, 20, {300})
