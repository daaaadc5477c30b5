"""Use case "fine-tune the TaskMaster persona": real Claude Code and real Codex, with a scripted model behind them.

The script is what a sensible agent would do: it reads each answer, waits for jobs, says yes to dry runs, and takes the
next call's arguments from the last answer. Asserted are the artifacts that the workspace holds in the end.
"""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, cast

import pytest

from pipeline.core.jobs import stop_process_tree
from pipeline.core.runs import list_runs
from pipeline.train.recipe import cpu_smoke

pytestmark = pytest.mark.slow

Client = Callable[..., "CompletedProcess[str]"]
Values = dict[str, Any]
Script = Generator[tuple[str, Values], Values, None]
REPOSITORY = Path(__file__).resolve().parents[2]
MAX_CALLS = 30
MAX_ANSWER_CHARACTERS = 10_000
RECIPE: Values = cpu_smoke().model_dump(mode="json")
RUN_SECONDS = 2700  # only ends what hangs; on idle cores it takes minutes
PERSONA = REPOSITORY / "datasets" / "personas"
MAX_FIRST_TRIES = 5
CODEX_START_SECONDS = 6.0  # Codex asks its model before its MCP servers are up


def start(tool: str, **arguments: Any) -> Generator[tuple[str, Values], Values, Values]:
    """Call an operation; say yes to its dry run; wait for its job; return its result."""
    answer = yield tool, arguments
    if token := answer.get("confirm_token"):
        answer = yield tool, {**arguments, "confirm_token": token}
    if "run_id" not in answer or "state" in answer:
        return answer
    status: Values = {"state": "queued"}
    while status["state"] in {"queued", "running"}:
        status = yield "jobs_status", {"run_id": answer["run_id"], "wait_seconds": 50}
    assert status["state"] == "succeeded", status
    return {**status["result"], "run_id": answer["run_id"]}


def fine_tune_the_taskmaster_persona() -> Script:
    """Decision, compute, data, training, evaluation, export, deployment."""
    decision = yield (
        "decide_recommend",
        {
            "use_case": "a task assistant that always speaks as TaskMaster",
            "requests_per_day": 5000,
            "is_measurable": True,
            "num_examples": 600,
            "stable_months": 12,
            "behaviours": ["persona", "tool_calls"],
            "prompt_success": 0.4,
            "privacy": "local_only",
            "costs": {
                "input_tokens": 500,
                "output_tokens": 100,
                "api_model": "gpt-4o-mini",
                "training_usd": 5,
                "serving_usd_per_month": 30,
            },
            "out": "decision",
        },
    )
    assert decision["approach"] in {"fine-tune", "hybrid"}, decision
    estimate = yield (
        "vram_estimate",
        {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "method": "lora", "max_length": 1024},
    )
    assert estimate["reserved_bytes"]
    yield from start("models_pull", model="smollm2-135m")
    checked = yield "data_validate", {"file": "data/train.jsonl"}
    assert checked["num_invalid"] == 0, checked
    shown = yield from start("data_preview", data="data/train.jsonl", num_rows=2)
    assert shown["num_untrained"] == 0, shown
    trained = yield from start("train_run", data="data", recipe=RECIPE)
    exported = yield from start("export_run", run=trained["run_id"], name="taskmaster", quantizations=["f16"])
    assert exported["gate_passed"], exported
    measured = yield from start("evals_run", cases="data/test.jsonl", serve="models/taskmaster", limit=4)
    assert measured["num_cases"] == 4
    served = yield "deploy_serve", {"model": "models/taskmaster", "port": 0}
    answered = yield from start("agent_run", text="Add a task to call the dentist", model="taskmaster")
    assert "output" in answered
    yield from start("jobs_cancel", run_id=served["run_id"])


class ScriptedModel:
    """A model endpoint that says what the script says, in the protocol of the client that asks."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[str] = []
        self.answers: list[str] = []
        self.error = ""
        self._lock = threading.Lock()
        self._seen = 0
        self._next: tuple[str, Values] | None = next(script)

    def num_decided(self) -> int:
        """Calls made, waiting again for the same job left out: how often that is needed, the machine decides."""
        followers = zip(["", *self.calls], self.calls, strict=False)
        return sum(not before == name == "jobs_status" for before, name in followers)

    def turn(self, answers: list[str]) -> tuple[str, Values] | None:
        """Take the tool answers so far; return the next call, or None when the script is over."""
        with self._lock:
            new, self._seen = answers[self._seen :], len(answers)
            self.answers += new
            try:
                for answer in new:
                    values: Values = json.loads(answer)
                    if "refused" in values and len(self.calls) < MAX_FIRST_TRIES:
                        time.sleep(CODEX_START_SECONDS)  # the client's server was not up yet: ask again
                    else:
                        self._next = self.script.send(values)
            except StopIteration:
                self._next = None
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.error, self._next = repr(error)[:2000], None
            if self._next is not None:
                self.calls.append(self._next[0])
            return self._next


def serve(model: ScriptedModel, *, first_delay: float) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._send("application/json", '{"data": [], "models": []}')

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            if "count_tokens" in self.path:
                self._send("application/json", '{"input_tokens": 10}')
                return
            if not model.calls:
                time.sleep(first_delay)
            events = anthropic_events(model, body) if "/messages" in self.path else openai_events(model, body)
            lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
            self._send("text/event-stream", "".join(lines))

        def _send(self, kind: str, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def anthropic_events(model: ScriptedModel, body: Values) -> list[Values]:
    """One streamed answer of the Messages API."""
    blocks = [
        block
        for message in body.get("messages", [])
        if isinstance(message["content"], list)
        for block in cast("list[Values]", message["content"])
        if block.get("type") == "tool_result"
    ]
    call = model.turn([text_of(block["content"]) for block in blocks]) if body.get("tools") else None
    head: Values = {"id": "msg", "type": "message", "role": "assistant", "model": "scripted", "content": []}
    usage = {"input_tokens": 1, "output_tokens": 1}
    events: list[Values] = [
        {"type": "message_start", "message": {**head, "stop_reason": None, "usage": usage}}
    ]
    if call is None:
        start_block: Values = {"type": "text", "text": ""}
        delta: Values = {"type": "text_delta", "text": "Done."}
    else:
        start_block = {
            "type": "tool_use",
            "id": f"toolu_{len(blocks)}",
            "name": f"mcp__llmops__{call[0]}",
            "input": {},
        }
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call[1])}
    reason = "end_turn" if call is None else "tool_use"
    return [
        *events,
        {"type": "content_block_start", "index": 0, "content_block": start_block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


def openai_events(model: ScriptedModel, body: Values) -> list[Values]:
    """One streamed answer of the Responses API."""
    items = [item for item in body.get("input", []) if item.get("type") == "function_call_output"]
    call = model.turn([text_of(item["output"]) for item in items])
    if call is None:
        content = [{"type": "output_text", "text": "Done.", "annotations": list[Any]()}]
        item: Values = {"type": "message", "id": "m", "role": "assistant", "content": content}
    else:
        item = {
            "type": "function_call",
            "id": f"fc_{len(items)}",
            "call_id": f"call_{len(items)}",
            "namespace": "mcp__llmops",
            "name": call[0],
            "arguments": json.dumps(call[1]),
        }
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    response: Values = {"id": "resp", "object": "response", "status": "in_progress", "output": []}
    return [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {
            "type": "response.completed",
            "response": {**response, "status": "completed", "output": [item], "usage": usage},
        },
    ]


def text_of(content: object) -> str:
    """The JSON text of a tool answer, however the client wraps it."""
    if isinstance(content, list):
        blocks = cast("list[Values]", content)
        return next(
            str(block["text"]) for block in blocks if str(block.get("text", "")).lstrip().startswith("{")
        )
    text = str(content)
    if "{" not in text:  # the client's own words: the server was not there
        return json.dumps({"refused": text})
    return text[text.index("{") :]


@pytest.fixture
def data(workspace: Path) -> Path:
    """A workspace that holds a small part of the TaskMaster rows."""
    folder = workspace / "data"
    folder.mkdir()
    for name, source, limit in (("train", "taskmaster_train", 160), ("test", "taskmaster_test", 8)):
        lines = (PERSONA / f"{source}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:limit]), encoding="utf-8")
    models = REPOSITORY / "models" / "smollm2-135m"
    if models.exists():
        shutil.copytree(models, workspace / "models" / "smollm2-135m")
    return folder


@pytest.fixture
def no_process_left(workspace: Path) -> Generator[None]:
    yield
    for run in list_runs():
        if (worker := run.process()) is not None:
            stop_process_tree(worker)


def assert_the_persona_was_made(model: ScriptedModel, workspace: Path, done: "CompletedProcess[str]") -> None:
    assert model.error == "", model.error
    assert model.calls, done.stderr[-2000:] + done.stdout[-2000:]
    print(f"{len(model.calls)} tool calls, {model.num_decided()} without waiting again")
    assert model.num_decided() <= MAX_CALLS, model.calls
    assert max(len(answer) for answer in model.answers) <= MAX_ANSWER_CHARACTERS
    states = {run.manifest()["operation"]: run.state() for run in list_runs()}
    for operation in ("data.preview", "train.run", "export.run", "evals.run", "agent.run"):
        assert states[operation] == "succeeded", states
    assert states["deploy.serve"] in {"cancelled", "succeeded"}  # asked to stop, it ends well
    assert (workspace / "decision" / "decision_report.json").is_file()
    gate = json.loads((workspace / "models" / "taskmaster" / "gate.json").read_text(encoding="utf-8"))
    assert gate["passed"] is True


@pytest.mark.usefixtures("data", "no_process_left")
def test_claude_code_fine_tunes_the_taskmaster_persona(
    run_client: Client, workspace: Path, tmp_path: Path
) -> None:
    model = ScriptedModel(fine_tune_the_taskmaster_persona())
    endpoint = serve(model, first_delay=0)
    entry = {
        "type": "stdio",
        "command": sys.executable,
        "args": ["-m", "mcp_server"],
        "env": {"LLMOPS_WORKSPACE": str(workspace)},
    }
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"llmops": entry}}), encoding="utf-8")
    done = run_client(
        "claude", "-p", "Fine-tune the TaskMaster persona.", "--mcp-config", config, "--strict-mcp-config",
        "--allowedTools", "mcp__llmops", "--output-format", "stream-json", "--verbose",
        timeout=RUN_SECONDS,
        ANTHROPIC_BASE_URL=f"http://127.0.0.1:{endpoint.server_port}",
        ANTHROPIC_API_KEY="none",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )  # fmt: skip
    endpoint.shutdown()
    endpoint.server_close()
    assert_the_persona_was_made(model, workspace, done)


@pytest.mark.usefixtures("data", "no_process_left")
def test_codex_fine_tunes_the_taskmaster_persona(run_client: Client, workspace: Path, tmp_path: Path) -> None:
    model = ScriptedModel(fine_tune_the_taskmaster_persona())
    endpoint = serve(model, first_delay=CODEX_START_SECONDS)
    (tmp_path / "home" / "config.toml").write_text(
        f"""
model = "scripted"
model_provider = "local"
approval_policy = "never"
sandbox_mode = "danger-full-access"
[model_providers.local]
name = "local"
base_url = "http://127.0.0.1:{endpoint.server_port}/v1"
wire_api = "responses"
env_key = "LOCAL_KEY"
[mcp_servers.llmops]
command = {json.dumps(sys.executable)}
args = ["-m", "mcp_server"]
env = {{ LLMOPS_WORKSPACE = {json.dumps(str(workspace))} }}
""",
        encoding="utf-8",
    )
    done = run_client(
        "codex", "exec", "--json", "--skip-git-repo-check", "Fine-tune the TaskMaster persona.",
        timeout=RUN_SECONDS, LOCAL_KEY="none",
    )  # fmt: skip
    endpoint.shutdown()
    endpoint.server_close()
    assert_the_persona_was_made(model, workspace, done)
