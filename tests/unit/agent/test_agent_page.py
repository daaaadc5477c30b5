"""What the page's requests do, over real HTTP; what a person sees of it is in tests/integration/test_agent_web.py."""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.agent.web_app import AgentPage, serve_page
from pipeline.core.errors import InvalidInputError
from pipeline.inference.scripted_server import ScriptedServer, completion
from pipeline.task_api.store import TaskStore

CREATE = ("create_task", '{"title": "Call <b>Bob</b>"}')
DELETE = ("delete_task", '{"task_id": 1}')


@contextmanager
def open_page(*answers: Any, **options: Any) -> Generator[httpx.Client]:
    with (
        ScriptedServer(*((200, answer) for answer in answers), **options) as model,
        TaskStore(clock=date(2026, 3, 11)) as store,
        AgentPage(model.base_url, "task-agent", store) as page,
        serve_page(page, 0) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        yield client


def say(
    client: httpx.Client, text: str, on_question: Callable[[dict[str, Any]], Any] = lambda question: None
) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    with client.stream("POST", "/messages", json={"text": text}) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            events.append(json.loads(line))
            if events[-1]["kind"] == "question":
                on_question(events[-1])
    return events


def test_a_message_is_answered_event_by_event_and_kept(workspace: Path) -> None:
    with open_page(completion(None, CREATE), completion("Added it.")) as client:
        events = say(client, "Call Bob")
        state = client.get("/state").json()
    kinds = [event["kind"] for event in events if event.get("text") != ""]
    assert kinds == ["call", "text", "text", "end"]
    assert [item["role"] for item in state["items"]] == ["user", "tool", "assistant"]
    assert [task["title"] for task in state["tasks"]] == ["Call <b>Bob</b>"]


@pytest.mark.parametrize(("agree", "num_left"), [(True, 0), (False, 1)])
def test_a_deletion_waits_for_the_answer_on_the_page(workspace: Path, agree: bool, num_left: int) -> None:
    script = [completion(None, CREATE), completion("Added."), completion(None, DELETE), completion("Well.")]
    with open_page(*script) as client:
        assert client.post("/consent", json={"agree": True}).status_code == 409  # nothing was asked yet
        say(client, "Call Bob")
        events = say(
            client,
            "Delete it",
            lambda asked: client.post("/consent", json={"id": asked["id"], "agree": agree}),
        )
        assert "question" in [event["kind"] for event in events]
        assert len(client.get("/state").json()["tasks"]) == num_left


def test_a_yes_to_a_question_that_has_expired_does_not_approve_the_next_deletion(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.agent.web_app._CONSENT_SECONDS", 0.5)
    answers = [completion(None, CREATE), completion("Added.")]
    answers += [completion(None, DELETE), completion("You did not agree.")] * 2
    asked: list[dict[str, Any]] = []
    statuses: list[int] = []

    def answer_the_first(question: dict[str, Any]) -> None:
        asked.append(question)
        if len(asked) == 2:
            for names in ({"id": asked[0]["id"]}, {}):
                statuses.append(client.post("/consent", json={**names, "agree": True}).status_code)

    with open_page(*answers) as client:
        for text in ("Call Bob", "Delete it", "Delete it after all"):
            say(client, text, answer_the_first)
        assert statuses == [409, 409]
        assert len(client.get("/state").json()["tasks"]) == 1


def test_a_page_that_was_loaded_anew_can_answer_the_open_question(workspace: Path) -> None:
    script = [completion(None, CREATE), completion("Added."), completion(None, DELETE), completion("Gone.")]
    with open_page(*script) as client:
        say(client, "Call Bob")

        def answer_from_state(asked: dict[str, Any]) -> None:
            question = client.get("/state").json()["question"]
            assert question == {"id": asked["id"], "text": asked["text"]}
            assert client.post("/consent", json={"id": question["id"], "agree": True}).status_code == 200

        say(client, "Delete it", answer_from_state)
        state = client.get("/state").json()
    assert (state["tasks"], state["question"]) == ([], None)


def test_a_failure_is_an_event_and_the_conversation_goes_on(workspace: Path) -> None:
    with open_page('data: {"error": {"message": "engine lost"}}\n\n', completion("Here.")) as client:
        failed = say(client, "one")[-1]
        assert (failed["kind"], "engine lost" in failed["text"]) == ("error", True)
        assert say(client, "two")[-1]["kind"] == "end"
        assert client.post("/reset", json={}).status_code == 200
        assert client.get("/state").json()["items"] == []


def test_the_calls_of_a_message_that_failed_are_kept_and_the_person_is_told(workspace: Path) -> None:
    lost = 'data: {"error": {"message": "engine lost"}}\n\n'
    with open_page(completion(None, CREATE), lost, completion("Here.")) as client:
        failed = say(client, "Call Bob")[-1]
        assert "1 tool call was made" in failed["text"]
        say(client, "Anybody there?")
        items = client.get("/state").json()["items"]
    assert [item["role"] for item in items] == ["user", "tool", "user", "assistant"]
    assert items[1]["result"]["task"]["title"] == "Call <b>Bob</b>"


def test_one_message_at_a_time(workspace: Path) -> None:
    arrived, release = threading.Event(), threading.Event()

    def respond(received: Any) -> tuple[int, Any]:
        arrived.set()
        release.wait(30)
        return 200, completion("Done.")

    with open_page(respond=respond) as client:
        first = threading.Thread(target=say, args=(client, "one"))
        first.start()
        assert arrived.wait(30)
        assert client.post("/messages", json={"text": "two"}).status_code == 409
        assert client.post("/reset", json={}).status_code == 409
        release.set()
        first.join()


def test_other_sites_are_not_listened_to(workspace: Path) -> None:
    with open_page(completion("Done.")) as client:
        assert client.get("/state", headers={"Host": "evil.example"}).status_code == 400
        for path in ("/messages", "/consent", "/reset"):
            assert client.post(path, content=b'{"text": "x"}').status_code == 415
            assert (
                client.post(path, content=b"[", headers={"Content-Type": "application/json"}).status_code
                == 400
            )
        assert client.post("/messages", json={"text": "  "}).status_code == 400
        policy = client.get("/").headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'nonce-")


def test_a_taken_port_is_named(workspace: Path) -> None:
    with (
        open_page(completion("Done.")) as client,
        TaskStore() as store,
        AgentPage(str(client.base_url), "m", store) as page,
        pytest.raises(InvalidInputError, match="in use"),
        serve_page(page, client.base_url.port or 0),
    ):
        pass
