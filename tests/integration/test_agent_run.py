"""The whole loop on real weights: Agents SDK, gateway, llama.cpp, Task API.

The starter model is not trained on tools, so its template is given four worked examples; with them it calls.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psutil
import pytest

from pipeline.agent.run import AGENT_RUN, AgentRunRequest
from pipeline.inference.server import ServerHandle, start_server
from pipeline.inference.server_spec import ServerSpec
from pipeline.task_api.store import TaskStore

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATE = REPOSITORY / "pipeline" / "models" / "tool_chat.jinja"
LOOP_START = "{%- for message in messages -%}"


def worked_example(task_id: int, title: str) -> str:
    task = json.dumps({"task": {"id": task_id, "title": title, "priority": "medium", "status": "open"}})
    call = json.dumps({"name": "create_task", "arguments": {"title": title}})
    turns = [
        f"<|im_start|>user\nAdd a task: {title}<|im_end|>",
        f"<|im_start|>assistant\n<tool_call>{call}</tool_call><|im_end|>",
        f"<|im_start|>user\n<tool_response>\n{task}\n</tool_response><|im_end|>",
        f"<|im_start|>assistant\nI added task {task_id}.<|im_end|>\n",
    ]
    return "\n".join(turns)


@pytest.fixture(scope="module")
def server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerHandle]:
    titles = ["buy milk", "wash the car", "write a letter", "pay the rent"]
    shots = "".join(worked_example(number, title) for number, title in enumerate(titles, 4))
    template = tmp_path_factory.mktemp("template") / "examples.jinja"
    source = TEMPLATE.read_text(encoding="utf-8")
    # tojson-like quoting gives a jinja string literal
    template.write_text(
        source.replace(LOOP_START, "{{- " + json.dumps(shots) + " -}}" + LOOP_START), encoding="utf-8"
    )
    with start_server(ServerSpec(model_path=str(starter_gguf), chat_template=str(template))) as handle:
        yield handle


def test_a_sentence_becomes_a_task_and_a_reply(server: ServerHandle, workspace: Path) -> None:
    request = AgentRunRequest(
        text="Add a task: water the plants", base_url=server.base_url, today=date(2026, 3, 11)
    )
    result = AGENT_RUN.execute(request)
    assert [item.role for item in result.items] == ["user", "tool", "assistant"]
    assert result.items[1].tool == "create_task"
    assert "1" in result.output
    assert result.num_model_calls == 2
    with TaskStore(workspace / "tasks.db") as store:
        tasks = store.list_tasks()["tasks"]
    assert [task["title"].lower() for task in tasks] == ["water the plants"]


def test_a_piped_chat_on_the_command_line_ends_with_one_json_object(
    server: ServerHandle, workspace: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "agent",
        "chat",
        "--base-url",
        server.base_url,
        "--store",
        ":memory:",
    ]
    finished = subprocess.run(
        command,
        input="Add a task: water the plants\n/tasks\n/quit\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=workspace,
        timeout=120,
        check=True,
    )
    result = json.loads(finished.stdout)
    assert result["num_messages"] == 1
    assert result["items"][1]["tool"] == "create_task"
    assert "tool> create_task(" in finished.stderr


def test_without_a_server_one_is_started_and_stopped_again(starter_gguf: Path, workspace: Path) -> None:
    unproven = workspace / starter_gguf.name
    unproven.hardlink_to(starter_gguf)  # other tests may leave a gate's report beside the original
    before = psutil.Process().children()
    result = AGENT_RUN.execute(AgentRunRequest(text="Say hello", model=str(unproven), store=":memory:"))
    assert result.output
    assert result.model == "starter-f16"
    assert "nothing proves" in result.warnings[0]
    assert psutil.Process().children() == before
