"""The evaluator against a server on a real socket that knows the right answers, and errs where a test says so."""

import json
import threading
from collections.abc import Callable, Generator, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError, MissingDependencyError, OperationFailedError
from pipeline.core.files import read_json
from pipeline.core.messages import Message
from pipeline.core.runs import Run, list_runs
from pipeline.evals.compare import EVALS_COMPARE, EvalCompareResult
from pipeline.evals.records import read_details, read_finished
from pipeline.evals.run import EVALS_RUN, EvalRunResult, choose_cases
from pipeline.evals.turns import Turn, cut_turns, read_cases

Answer = Callable[[str, int, dict[str, Any]], tuple[int, dict[str, Any]] | None]
"""(case id, turn, right message) -> status and body, or None for the right answer."""


def know_everything(_case: str, _turn: int, _gold: dict[str, Any]) -> None:
    return None


class AnswerServer:
    """Answers every known history with the right message, unless ``answer`` decides otherwise."""

    def __init__(self, turns: dict[tuple[str, int], Turn]) -> None:
        self.answer: Answer = know_everything
        self.bodies: list[dict[str, Any]] = []
        self._known: dict[str, tuple[tuple[str, int], dict[str, Any]]] = {}
        self.learn(turns.values())
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": "replay"}]})

            def do_POST(self) -> None:
                self._send(*owner.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def _send(self, status: int, body: dict[str, Any]) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def learn(self, turns: Iterable[Turn]) -> None:
        self._known |= {_key(turn.history): (turn.key, turn.gold.to_openai()) for turn in turns}

    def reply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.bodies.append(body)
        (case, number), gold = self._known[_key(Message.from_openai(m) for m in body["messages"])]
        decided = self.answer(case, number, gold)
        return decided or (200, completion(gold))

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _key(history: Any) -> str:
    return json.dumps([message.to_openai() for message in history])


def completion(message: dict[str, Any], **extra: Any) -> dict[str, Any]:
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 7}, **extra}


@pytest.fixture
def server(turns: dict[tuple[str, int], Turn], workspace: Path) -> Generator[AnswerServer]:
    server = AnswerServer(turns)
    yield server
    server.stop()


def evaluate(server: AnswerServer, cases_path: Path, run: Run | None = None, **fields: Any) -> EvalRunResult:
    values = {"cases": str(cases_path), "base_url": server.url, "model": "replay", **fields}
    return EVALS_RUN.execute(EVALS_RUN.parse(values), run)


def test_a_model_that_knows_the_answers_gets_everything_right(
    server: AnswerServer, cases_path: Path, workspace: Path
) -> None:
    result = evaluate(server, cases_path, label="perfect", out="copy")
    # 11 turns call, 10 reply to a result, 3 ask, 1 talks.
    assert (result.num_cases, result.num_turns) == (13, 11 + 10 + 3 + 1)
    assert (result.whole_turn.rate, result.whole_turn.total) == (1.0, result.num_turns)
    assert result.conversation.right == 13
    assert (result.no_call.right, result.right_question.total, result.grounded.total) == (4, 3, 10)
    assert result.well_formed.total == result.right_tools.total == 11
    assert result.errors == {}
    assert result.latency.completion_tokens == 7 * result.num_turns
    assert (
        (workspace / "copy" / "eval_report.md")
        .read_text(encoding="utf-8")
        .startswith("# Evaluation of perfect")
    )


def test_requests_are_greedy_and_carry_the_tools_and_the_true_history(
    server: AnswerServer, cases_path: Path
) -> None:
    evaluate(server, cases_path, max_tokens=99, seed=5)
    for body in server.bodies:
        assert (body["temperature"], body["max_tokens"], body["seed"], body["model"]) == (
            0.0,
            99,
            5,
            "replay",
        )
        assert len(body["tools"]) == 5
        assert body["messages"][0]["content"] == "You are a task assistant. Today is 2026-03-11."


def test_wrong_broken_and_hidden_answers_are_counted(server: AnswerServer, cases_path: Path) -> None:
    def answer(case: str, number: int, gold: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if (case, number) == ("talk", 0):
            error = {"code": "unparsable_tool_call", "message": "bad", "raw_text": '<tool_call>{"na'}
            return 500, {"error": error}
        if (case, number) == ("complete", 0):
            call = {
                "id": "x",
                "type": "function",
                "function": {"name": "complete_task", "arguments": '{"task_id": '},
            }
            return 200, completion({"role": "assistant", "content": None, "tool_calls": [call]})
        if (case, number) == ("create-plain", 0):
            call = {
                "id": "x",
                "type": "function",
                "function": {"name": "create_task", "arguments": '{"title": "\\ud800"}'},
            }
            return 200, completion({"role": "assistant", "content": None, "tool_calls": [call]})
        if (case, number) == ("update", 0):
            return 200, completion(gold, retried=True)
        if (case, number) == ("list", 1):
            return 200, completion({"role": "assistant", "content": ""})
        return None

    server.answer = answer
    result = evaluate(server, cases_path)
    assert result.errors == {"not_json": 3, "retried": 1, "no_output": 1}
    assert (result.whole_turn.right, result.conversation.right) == (result.num_turns - 5, 8)
    assert (result.well_formed.right, result.well_formed.total) == (
        8,
        12,
    )  # 11 turns that need calls, and talk
    assert (result.no_call.right, result.no_call.total) == (3, 4)
    report = (Path(list_runs()[0].path) / "artifacts" / "eval_report.md").read_text(encoding="utf-8")
    assert "### talk, turn 0 (talk, thanks)" in report
    assert '- expected: "You\'re welcome!"' in report


def test_a_resumed_run_asks_only_what_is_missing(
    server: AnswerServer, cases_path: Path, workspace: Path
) -> None:
    def fail_at_update(case: str, number: int, gold: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return (500, {"error": {"message": "out of memory"}}) if case == "update" else None

    run = Run.create("evals.run", {})
    server.answer = fail_at_update
    with pytest.raises(OperationFailedError, match="out of memory"):
        evaluate(server, cases_path, run, concurrency=1)
    details = run.artifacts / "details.jsonl"
    kept = read_finished(details)
    assert ("create", 0) in kept
    assert ("update", 0) not in kept
    with details.open("a", encoding="utf-8") as handle:
        handle.write('{"id": "update", "turn": 0, "ki')  # what kill -9 leaves
    server.answer, server.bodies = know_everything, []
    result = evaluate(server, cases_path, run, concurrency=3)
    assert len(server.bodies) == result.num_turns - len(kept)
    assert result.whole_turn.right == result.num_turns
    assert [record.key for record in read_details(details)][:2] == [("create", 0), ("create", 1)]
    assert run.state() == "succeeded"


def test_answers_to_changed_cases_are_not_reused(
    server: AnswerServer, cases_path: Path, tmp_path: Path
) -> None:
    run = Run.create("evals.run", {})
    copy = tmp_path / "cases.jsonl"
    copy.write_text(cases_path.read_text(encoding="utf-8").replace("call Ann", "call Bob"), "utf-8")
    evaluate(server, cases_path, run)
    server.bodies = []
    server.learn(turn for case in read_cases(copy) for turn in cut_turns(case))
    evaluate(server, copy, run)
    assert len(server.bodies) == 2


def test_a_case_whose_own_answer_is_wrong_is_reported_and_not_scored(
    server: AnswerServer, cases_path: Path, tmp_path: Path
) -> None:
    lines = cases_path.read_text(encoding="utf-8").splitlines()
    broken = lines[2].replace(
        'Task 2 \\"pay the rent\\" is completed.', 'Task 7 \\"pay the rent\\" is completed.'
    )
    assert broken != lines[2]
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join([lines[0], broken]), encoding="utf-8")
    result = evaluate(server, path)
    assert result.num_turns == 3
    assert result.warnings == [
        "1 turns were left out because their own right answer fails the scorer: complete turn 1"
    ]
    path.write_text(broken.replace("complete_task", "completed_task"), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="no case passes its own check"):
        evaluate(server, path)


def test_a_limit_draws_the_same_cases_for_the_same_seed(cases_path: Path) -> None:
    cases = read_cases(cases_path)
    first = choose_cases(cases, 5, seed=1)
    assert first == choose_cases(cases, 5, seed=1)
    assert first != choose_cases(cases, 5, seed=2)
    assert [case.id for case in first] == [case.id for case in cases if case in first]
    assert choose_cases(cases, 99, seed=1) == cases


def test_an_unknown_model_and_a_dead_server_are_told_apart(server: AnswerServer, cases_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has no model 'gpt'") as caught:
        evaluate(server, cases_path, model="gpt")
    assert "replay" in caught.value.hint
    assert server.bodies == []
    with pytest.raises(MissingDependencyError, match="does not answer"):
        evaluate(server, cases_path, base_url="http://127.0.0.1:9/v1")


def test_before_and_after_are_paired(server: AnswerServer, cases_path: Path, workspace: Path) -> None:
    def never_call(case: str, number: int, gold: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return (200, completion({"role": "assistant", "content": "OK."})) if gold.get("tool_calls") else None

    def fail_at_talk(case: str, number: int, gold: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return (200, completion({"role": "assistant", "content": "Done!"})) if case == "talk" else None

    server.answer = never_call
    before = evaluate(server, cases_path, base_url=server.url.removesuffix("/v1"))
    server.answer = fail_at_talk
    after = evaluate(server, cases_path)
    result: EvalCompareResult = EVALS_COMPARE.call(
        {"before": before.run_id, "after": f"run:{after.run_id}", "out": "c"}
    )
    assert (result.verdict, result.num_fixed, result.num_broken) == ("better", 11, 1)
    assert result.p_value == pytest.approx(2 * (1 + 12) / 2**12)
    assert result.difference.value == round(10 / after.num_turns, 4)
    assert [case.id for case in result.regressions] == ["talk"]
    assert result.regressions[0].errors == ["claims_undone_action"]
    assert result.rates["right_tools"].before.right == 0
    assert result.rates["kind:talk"].after.right == 0
    assert read_json(workspace / "c" / "compare.json")["verdict"] == "better"
    assert "McNemar p = 0.006348" in (workspace / "c" / "compare.md").read_text(encoding="utf-8")
    back: EvalCompareResult = EVALS_COMPARE.call(
        {"before": after.details, "after": str(Path(before.report).parent)}
    )
    assert (back.verdict, back.num_broken) == ("worse", 11)
