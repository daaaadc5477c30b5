"""Load and logs against a server whose answers are scripted; the real one is in tests/integration."""

import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError, MissingDependencyError
from pipeline.core.runs import Run
from pipeline.deploy.load import DEPLOY_LOAD, DeployLoadRequest, DeployLoadResult
from pipeline.deploy.logs import DeployLogsRequest, show_server_logs
from pipeline.inference.endpoints import Endpoint, publish_endpoint
from pipeline.inference.scripted_server import ReceivedRequest, ScriptedServer, completion

MODELS = {"data": [{"id": "task-agent"}, {"id": "polite"}]}


def forced_answer(body: dict[str, Any]) -> str:
    return f'"{body["response_format"]["json_schema"]["schema"]["enum"][0]}"'


def load(server: ScriptedServer, **changes: Any) -> DeployLoadResult:
    request = DeployLoadRequest(base_url=server.base_url, num_requests=20, num_clients=10, **changes)
    return DEPLOY_LOAD.execute(request)


def test_a_server_that_gives_everyone_his_own_passes(workspace: Path) -> None:
    def respond(received: ReceivedRequest) -> tuple[int, Any]:
        return (200, completion(forced_answer(received.body))) if received.method == "POST" else (200, MODELS)

    with ScriptedServer(respond=respond) as server:
        result = load(server)
        asked = {
            received.body["messages"][0]["content"]
            for received in server.requests
            if received.method == "POST"
        }
    assert (result.num_answered, result.num_mixed_up, result.num_lost) == (20, 0, 0)
    assert asked == {f"Repeat: request-{number}" for number in range(20)}
    assert (result.model, result.num_clients, result.is_negative()) == ("task-agent", 10, False)
    assert result.latency is not None


def test_an_answer_of_another_client_and_an_error_are_both_noticed(workspace: Path) -> None:
    lock, others = threading.Lock(), ["x"]

    def respond(received: ReceivedRequest) -> tuple[int, Any]:
        answer = forced_answer(received.body)
        if answer == '"request-7"':
            return 500, {"error": {"message": "the engine broke off"}}
        with lock:  # each gets what the one before should have had
            others.append(answer)
            return 200, completion(others[-2])

    with ScriptedServer(respond=respond) as server:
        result = load(server, model="task-agent")
    assert (result.num_answered, result.num_mixed_up, result.num_lost) == (0, 19, 1)
    assert result.errors == {"the engine broke off": 1}
    assert result.is_negative()


def test_nothing_to_load_is_said_before_anything_is_sent(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="no server is running"):
        DEPLOY_LOAD.execute(DeployLoadRequest())


def test_no_server_at_the_url_is_a_missing_service(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inference.client._BACKOFF_SECONDS", 0.01)
    with pytest.raises(MissingDependencyError):
        DEPLOY_LOAD.execute(DeployLoadRequest(base_url="http://127.0.0.1:9/v1"))


def publish(engine: Any) -> Run:
    run = Run.create("deploy.serve", {})
    publish_endpoint(
        run, Endpoint(base_url="http://127.0.0.1:9/v1", models=["a"], engine=engine, model_path="x")
    )
    return run


def test_the_end_of_the_log_comes_with_the_figures(workspace: Path) -> None:
    run = publish("embedded")
    empty = show_server_logs(DeployLogsRequest(run_id=run.id))
    assert (empty.log, empty.requests.num_requests, empty.warnings) == ("", 0, [])
    folder = run.path / "server"
    folder.mkdir()
    (folder / "server.log").write_text("one\n\ntwo\nthree\n", encoding="utf-8")
    (folder / "requests.jsonl").write_text('{"status": 200, "seconds": 0.5}\n', encoding="utf-8")
    result = show_server_logs(DeployLogsRequest(tail=2))
    assert (result.run_id, result.log, result.requests.num_requests) == (run.id, "two\nthree", 1)


def test_the_line_that_every_server_prints_is_explained(workspace: Path) -> None:
    folder = publish("embedded").path / "server"
    folder.mkdir()
    line = "0.01.980.454 W spec common_specu: ngram_mod n_match=8 is too small - poor quality is possible"
    (folder / "server.log").write_text(line + "\n", encoding="utf-8")
    result = show_server_logs(DeployLogsRequest())
    assert result.log == line
    assert "expected" in result.warnings[0]


def test_the_log_of_ollama_is_not_ours(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="keeps its own log"):
        show_server_logs(DeployLogsRequest(run_id=publish("ollama").id))
