"""The page of ``agent web`` in a real browser, driven over the DevTools protocol: type, click, look."""

import json
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from pipeline.agent.web_app import AgentPage, serve_page
from pipeline.inference.scripted_server import ScriptedServer, completion
from pipeline.task_api.store import TaskStore

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_SECONDS = 60.0
SCRIPT = (
    completion(None, ("create_task", '{"title": "<img src=x onerror=alert(1)>", "due_date": "tomorrow"}')),
    completion("I added <b>task 1</b>, due on 2026-03-12."),
    completion(None, ("complete_task", '{"task_id": 99}')),
    completion("There is no task 99. Shall I list the tasks?"),
    completion(None, ("delete_task", '{"task_id": 1}')),
    completion("Task 1 is gone."),
)


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._numbers = connection, count(1)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=START_SECONDS))
            if answer.get("id") == number:
                return answer["result"]

    def run(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.run(expression):
            assert time.monotonic() < deadline, f"{expression}: {self.run('document.body.innerText')}"
            time.sleep(0.05)

    def say(self, text: str) -> None:
        self.run(
            f"document.getElementById('text').value = {json.dumps(text)}; document.getElementById('send').click()"
        )

    def save_picture(self, path: Path) -> None:
        path.write_bytes(b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; `make test` in the development environment has one")
    profile = tmp_path / "profile"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,700",
        "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file, deadline = profile / "DevToolsActivePort", time.monotonic() + START_SECONDS
        while not port_file.exists() or not port_file.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline, "Chromium did not start"
            time.sleep(0.05)
        port = port_file.read_text(encoding="utf-8").split()[0]
        targets = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False).json()
        url = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        with connect(url, max_size=None, proxy=None) as connection:
            yield Browser(connection)
    finally:
        process.terminate()
        process.wait(20)


def test_a_person_sees_replies_calls_questions_and_tasks(browser: Browser, tmp_path: Path) -> None:
    with (
        ScriptedServer(*((200, answer) for answer in SCRIPT)) as model,
        TaskStore(clock=date(2026, 3, 11)) as store,
        AgentPage(model.base_url, "task-agent", store) as page,
        serve_page(page, 0) as url,
    ):
        browser.send("Page.navigate", url=url)
        browser.wait_for("document.getElementById('model')?.textContent === 'task-agent'")
        browser.say("Add a task")
        browser.wait_for("document.querySelectorAll('.note').length === 1")
        browser.wait_for("document.querySelector('#tasks .title')?.textContent.startsWith('1. <img src=x')")
        assert browser.run("document.querySelector('.call').textContent").startswith("create_task(title=")
        # What the model says is shown and never becomes part of the page.
        assert browser.run("document.querySelector('.assistant').textContent") == (
            "I added <b>task 1</b>, due on 2026-03-12."
        )
        assert browser.run("document.querySelectorAll('img, b').length") == 0
        browser.say("Complete task 99")
        browser.wait_for("document.querySelectorAll('.note').length === 2")
        assert browser.run("document.querySelectorAll('.call.failed').length") == 1
        browser.say("Delete task 1")
        browser.wait_for("document.querySelector('.question button') !== null")
        assert store.list_tasks()["total"] == 1
        browser.save_picture(tmp_path / "page.png")
        browser.send("Page.reload")  # the open question is asked again on the new page
        browser.wait_for("document.querySelectorAll('.user').length === 2")
        browser.wait_for("document.querySelector('.question button') !== null")
        browser.run("document.querySelector('.question button').click()")
        browser.wait_for("document.getElementById('count').textContent === 'Tasks (0)'")
        browser.wait_for(
            "fetch('/state').then(answer => answer.json()).then(state => state.items.length === 9)"
        )
        store.create_task("from another program")
        browser.wait_for("document.getElementById('count').textContent === 'Tasks (1)'")
        browser.send("Page.reload")
        browser.wait_for("document.querySelectorAll('.user').length === 3")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_a_question_nobody_answered_disappears(
    browser: Browser, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.agent.web_app._CONSENT_SECONDS", 3.0)
    answers = (completion(None, ("delete_task", '{"task_id": 1}')), completion("You did not agree."))
    with (
        ScriptedServer(*((200, answer) for answer in answers)) as model,
        TaskStore() as store,
        AgentPage(model.base_url, "task-agent", store) as page,
        serve_page(page, 0) as url,
    ):
        store.create_task("Call Bob")
        browser.send("Page.navigate", url=url)
        browser.wait_for("document.getElementById('model')?.textContent === 'task-agent'")
        browser.say("Delete task 1")
        browser.wait_for("document.querySelector('.question button') !== null")
        browser.wait_for("document.querySelectorAll('.note').length === 1")
        browser.wait_for("document.querySelector('.question') === null")
        assert store.list_tasks()["total"] == 1
