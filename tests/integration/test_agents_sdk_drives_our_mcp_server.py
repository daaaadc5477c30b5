"""The OpenAI Agents SDK on our own MCP server over stdio; what the model chooses is scripted, all the rest is real."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from agents.mcp import MCPServerStdio

from pipeline.inference.scripted_server import ScriptedServer, completion

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0


def drive(model_url: str, workspace: Path) -> str:
    """Let an agent with our MCP server answer one message."""

    async def run() -> str:
        server = MCPServerStdio(
            params={
                "command": sys.executable,
                "args": ["-m", "mcp_server"],
                "cwd": str(workspace),
                "env": {**os.environ, "PYTHONPATH": str(REPOSITORY), "LLMOPS_WORKSPACE": str(workspace)},
            },
            client_session_timeout_seconds=START_SECONDS,
        )
        client = openai.AsyncOpenAI(base_url=model_url, api_key="none")
        async with server, client:
            agent = Agent(
                name="Operator",
                model=OpenAIChatCompletionsModel(model="task-agent", openai_client=client),
                model_settings=ModelSettings(temperature=0),
                mcp_servers=[server],
            )
            result = await Runner.run(agent, "Does it fit, and what runs?", max_turns=4)
            return str(result.final_output)

    set_tracing_disabled(True)
    return asyncio.run(run())


def read_tool_result(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    parsed = json.loads(text)
    return json.loads(parsed["text"]) if set(parsed) >= {"type", "text"} else parsed


def test_the_sdk_lists_our_tools_calls_them_and_reads_results_and_errors(workspace: Path) -> None:
    script = (
        completion(None, ("jobs_list", "{}")),
        completion(None, ("lesson_show", '{"number": "99.9"}')),
        completion("Nothing runs, and there is no lesson 99.9."),
    )
    with ScriptedServer(*((200, answer) for answer in script)) as model:
        assert drive(model.base_url, workspace) == "Nothing runs, and there is no lesson 99.9."
    offered = {tool["function"]["name"] for tool in model.requests[0].body["tools"]}
    assert {"jobs_list", "lesson_show", "train_run", "deploy_serve"} <= offered
    listed, refused = (request.body["messages"][-1] for request in model.requests[1:])
    assert listed["role"] == refused["role"] == "tool"
    assert (read_tool_result(listed)["total"], read_tool_result(listed)["jobs"]) == (0, [])
    assert "99.9" in str(refused["content"])
    assert "hint" in str(refused["content"])
