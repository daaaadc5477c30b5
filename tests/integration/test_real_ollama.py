"""A real Ollama, when one answers on 11434 (or OLLAMA_HOST): create, show, chat with tools, /v1, delete.

The payloads themselves are held against Ollama's rules by test_ollama_wire.py, which runs everywhere.
"""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.core.messages import Message
from pipeline.core.settings import Settings
from pipeline.deploy.serve import DEPLOY_SERVE, DeployServeRequest, DeployServeResult
from pipeline.inference.client import ChatClient
from pipeline.task_api.tools import load_tools, system_prompt

pytestmark = pytest.mark.slow

NAME = "llmops-test-starter"
ANSWER_SECONDS = 600.0
ASK = [
    Message(role="system", content=system_prompt(date(2026, 3, 11))),
    Message(role="user", content="Add a task"),
]


def _answers() -> bool:
    try:
        reply = httpx.get(f"{Settings.load().ollama_url}/api/version", timeout=2, trust_env=False)
        return reply.is_success and "llmops" not in reply.json()["version"]  # our own gateway says what it is
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return False


@pytest.fixture(scope="module")
def ollama() -> Iterator[httpx.Client]:
    if not _answers():
        pytest.skip("no Ollama answers; start one with `ollama serve` to run these tests")
    with httpx.Client(base_url=Settings.load().ollama_url, timeout=ANSWER_SECONDS, trust_env=False) as client:
        yield client
        client.request("DELETE", "/api/delete", json={"model": NAME})


@pytest.fixture(scope="module")
def deployed(
    ollama: httpx.Client, starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeployServeResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
        request = DeployServeRequest(model=str(starter_gguf), engine="ollama", name=NAME, context_length=2048)
        yield DEPLOY_SERVE.execute(request)


def test_ollama_shows_our_template_parameters_and_tools(
    ollama: httpx.Client, deployed: DeployServeResult
) -> None:
    shown: dict[str, Any] = ollama.post("/api/show", json={"model": NAME}).json()
    assert "tools" in shown["capabilities"]
    parameters = {
        line.split()[0]: line.split()[1] for line in shown["parameters"].splitlines() if line.split()
    }
    assert (parameters["num_ctx"], float(parameters["temperature"])) == ("2048", 0.0)
    assert deployed.models == [NAME]


def test_ollama_answers_a_chat_with_tools_on_its_own_api(
    ollama: httpx.Client, deployed: DeployServeResult
) -> None:
    body = {
        "model": NAME,
        "messages": [message.to_openai() for message in ASK],
        "tools": load_tools(),
        "stream": False,
        "options": {"num_predict": 16},
    }
    answer = ollama.post("/api/chat", json=body).json()
    assert answer["message"]["role"] == "assistant"
    # The five tools alone are far more than this, so a template that drops them cannot pass.
    assert answer["prompt_eval_count"] > 150


def test_ollama_answers_on_v1_like_the_embedded_server(deployed: DeployServeResult) -> None:
    with ChatClient(deployed.base_url, NAME, timeout_seconds=ANSWER_SECONDS) as client:
        assert any(name.startswith(NAME) for name in client.list_models())
        with_tools = client.complete(ASK, tools=load_tools(), max_tokens=16)
        without = client.complete(ASK, max_tokens=16)
    assert with_tools.prompt_tokens - without.prompt_tokens > 150


def test_the_same_prompt_gives_the_same_text_in_both(deployed: DeployServeResult, starter_gguf: Path) -> None:
    from pipeline.inference.server import start_server
    from pipeline.inference.server_spec import ServerSpec

    question = [Message(role="user", content="What is the capital of France?")]
    with ChatClient(deployed.base_url, NAME, timeout_seconds=ANSWER_SECONDS) as client:
        theirs = client.complete(question, max_tokens=12)
    with (
        start_server(ServerSpec(model_path=str(starter_gguf))) as server,
        ChatClient(server.base_url, "task-agent") as client,
    ):
        ours = client.complete(question, max_tokens=12)
    assert theirs.prompt_tokens == ours.prompt_tokens
    assert json.dumps(theirs.message.to_openai()) == json.dumps(ours.message.to_openai())


def test_deleting_it_leaves_nothing(ollama: httpx.Client, deployed: DeployServeResult) -> None:
    assert ollama.request("DELETE", "/api/delete", json={"model": NAME}).status_code == 200
    assert ollama.post("/api/show", json={"model": NAME}).status_code == 404
