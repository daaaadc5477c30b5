"""The endpoint writer against a real HTTP server that words rows from the phrase banks and misbehaves on demand."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import read_jsonl
from pipeline.inference.ledger import read_ledger
from pipeline.inference.metered import CostLimitError
from pipeline.inference.scripted_server import ReceivedRequest, ScriptedServer, completion
from pipeline.synth.endpoint_mix import read_wordings
from pipeline.synth.full_mix import full_sides, plan_scenarios
from pipeline.synth.generate import SYNTH_GENERATE, SynthGenerateResult
from pipeline.synth.program_writer import ProgramWriter
from pipeline.synth.scene import RejectedError, Supply

ROWS = {"num_rows": 12, "validation_rows": 0, "test_rows": 4}
PRICE = {
    "model": "test-model", "input_usd": 1.0, "output_usd": 10.0, "as_of": "2026-11-25", "source": "this test",
}  # fmt: skip
Respond = Callable[[ReceivedRequest], tuple[int, Any]]


@pytest.fixture(scope="module")
def wordings() -> dict[str, list[str]]:
    """Good texts for every conversation that a run with seed 0 plans."""
    found: dict[str, list[str]] = {}
    for name, count in (("train", 12), ("test", 4)):
        supply = Supply(full_sides(0)[name].bank, random.Random(1), ())
        writer = ProgramWriter(supply, 1)
        for scenario in plan_scenarios(0, name, round(count * 1.2)):
            try:
                found[scenario.id] = writer.write(scenario)[0]
            except RejectedError:
                continue
    return found


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.delenv("LLMOPS_API_KEY", raising=False)


def words(request: ReceivedRequest, wordings: dict[str, list[str]]) -> dict[str, Any]:
    """Return the completion of a good writer; usage counts characters / 4, rounded up."""
    items = json.loads(request.body["messages"][1]["content"])["items"]
    rows = [{"id": item["id"], "texts": wordings[item["id"]]} for item in items if item["id"] in wordings]
    answer = completion(json.dumps({"rows": rows}))
    prompt = sum(len(message["content"]) for message in request.body["messages"])
    answer["usage"] = {
        "prompt_tokens": math.ceil(prompt / 4),
        "completion_tokens": math.ceil(len(answer["choices"][0]["message"]["content"]) / 4),
    }
    return answer


def generate(server: ScriptedServer, out: Path, **more: Any) -> SynthGenerateResult:
    pace = {"rows_per_request": 4, "concurrency": 2, "backoff_seconds": 0.01, **more.pop("pace", {})}
    return SYNTH_GENERATE.call(
        {
            "out": str(out), "writer": "endpoint", "base_url": server.base_url, "model": "test-model",
            "prices": [PRICE], "pace": pace, **ROWS, **more,
        }
    )  # fmt: skip


@pytest.mark.usefixtures("workspace")
def test_a_good_endpoint_fills_the_sets_and_the_ledger_adds_up_to_the_price(
    tmp_path: Path, wordings: dict[str, list[str]]
) -> None:
    with ScriptedServer(respond=lambda request: (200, words(request, wordings))) as server:
        result = generate(server, tmp_path / "d", max_cost_usd=5)
        usages = [words(request, wordings)["usage"] for request in server.requests]
    assert (result.num_rows, result.test_rows) == (12, 4)
    assert result.money is not None
    # 1 USD a million in, 10 USD a million out, by hand
    expected = sum(usage["prompt_tokens"] * 1e-6 + usage["completion_tokens"] * 1e-5 for usage in usages)
    assert result.money.usd == pytest.approx(expected, abs=1e-7)
    assert result.money.num_requests == len(usages)
    sent = server.requests[0].body
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert "examples" not in json.dumps(sent)


@pytest.mark.usefixtures("workspace")
def test_a_second_run_asks_and_pays_nothing(tmp_path: Path, wordings: dict[str, list[str]]) -> None:
    with ScriptedServer(respond=lambda request: (200, words(request, wordings))) as server:
        first = generate(server, tmp_path / "d")
        asked = len(server.requests)
        again = generate(server, tmp_path / "d")
        assert len(server.requests) == asked
    assert again.sha256 == first.sha256
    assert again.money == first.money


def misbehaving(wordings: dict[str, list[str]]) -> Iterator[tuple[int, Any] | None]:
    """Yield one fault after the other; None stands for a good answer."""
    yield 429, {"error": {"message": "slow down"}}
    yield 500, {"error": {"message": "oops"}}
    yield 200, "this is no JSON"
    yield 200, None
    yield 200, {"choices": []}
    yield 200, completion("")
    yield 503, "busy"
    while True:
        yield None


@pytest.mark.usefixtures("workspace")
def test_every_fault_is_survived_and_only_answers_that_may_be_charged_are_in_the_ledger(
    tmp_path: Path, wordings: dict[str, list[str]]
) -> None:
    faults = misbehaving(wordings)
    lock = threading.Lock()

    def respond(request: ReceivedRequest) -> tuple[int, Any]:
        with lock:
            fault = next(faults)
        return fault or (200, words(request, wordings))

    with ScriptedServer(respond=respond) as server:
        result = generate(server, tmp_path / "d", pace={"concurrency": 1})
    assert (result.num_rows, result.test_rows) == (12, 4)
    lines = read_ledger(tmp_path / "d" / "ledger.jsonl")
    # no JSON, the broken connection, no choices, the empty answer: four that may have been charged and gave nothing
    assert sum(line["message"] is None for line in lines) == 4
    # of which three came without any usage
    assert sum(line["is_assumed"] for line in lines) == 3
    assert any("believable" in warning for warning in result.warnings)


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": "many", "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 10**9},
        {"prompt_tokens": 10**9, "completion_tokens": 5},
        {"prompt_tokens": 0, "completion_tokens": 0},
    ],
)
def test_an_impossible_usage_is_replaced_by_the_worst_price(
    tmp_path: Path, wordings: dict[str, list[str]], usage: Any
) -> None:
    def respond(request: ReceivedRequest) -> tuple[int, Any]:
        return 200, {**words(request, wordings), "usage": usage}

    with ScriptedServer(respond=respond) as server:
        result = generate(server, tmp_path / "d")
        bodies = [request.body for request in server.requests]
    assert result.money is not None
    assert result.money.num_assumed == result.money.num_requests > 0
    # at least one token a byte of the messages, at most 20 % for the rest of the request
    least = sum(len(m["content"].encode()) for body in bodies for m in body["messages"]) * 1e-6
    least += sum(body["max_tokens"] for body in bodies) * 1e-5
    assert least <= (result.money.usd or 0) <= least * 1.3


@pytest.mark.usefixtures("workspace")
def test_the_cost_limit_stops_before_the_request_that_could_exceed_it_and_a_higher_one_goes_on(
    tmp_path: Path, wordings: dict[str, list[str]]
) -> None:
    with ScriptedServer(respond=lambda request: (200, words(request, wordings))) as server:
        with pytest.raises(CostLimitError) as caught:
            generate(server, tmp_path / "d", max_cost_usd=0.016, pace={"concurrency": 1})
        spent = sum(line["usd"] for line in read_ledger(tmp_path / "d" / "ledger.jsonl"))
        assert 0 < spent <= 0.016
        assert caught.value.details["spent_usd"] == pytest.approx(spent, abs=1e-7)
        asked = len(server.requests)
        result = generate(server, tmp_path / "d", max_cost_usd=1, pace={"concurrency": 1})
        keys = [line["key"] for line in read_ledger(tmp_path / "d" / "ledger.jsonl")]
    assert asked >= 1
    assert result.num_rows == 12
    assert len(keys) == len(set(keys)) == len(server.requests)


@pytest.mark.usefixtures("workspace")
def test_an_unknown_model_is_not_called_free_and_cannot_have_a_limit(
    tmp_path: Path, wordings: dict[str, list[str]]
) -> None:
    with ScriptedServer(respond=lambda request: (200, words(request, wordings))) as server:
        result = generate(server, tmp_path / "d", prices=[])
        with pytest.raises(InvalidInputError, match="no price is known"):
            generate(server, tmp_path / "e", prices=[], max_cost_usd=1)
    assert result.money is not None
    assert result.money.usd is None
    assert any("not known" in warning for warning in result.warnings)
    lines = read_ledger(tmp_path / "d" / "ledger.jsonl")
    assert {line["usd"] for line in lines} == {None}
    with ScriptedServer((500, "down")) as server:
        priced = generate(server, tmp_path / "d")  # the same folder, now with a price: nothing is asked again
    by_hand = sum(line["prompt_tokens"] * 1e-6 + line["completion_tokens"] * 1e-5 for line in lines)
    assert priced.money is not None
    assert priced.money.usd == pytest.approx(by_hand, abs=1e-7)


@pytest.mark.usefixtures("workspace")
def test_a_wrong_key_ends_the_run_at_once(tmp_path: Path) -> None:
    with ScriptedServer((401, {"error": {"message": "bad key"}})) as server:
        with pytest.raises(InvalidInputError, match="401"):
            generate(server, tmp_path / "d", pace={"concurrency": 1})
        assert len(server.requests) == 1


@pytest.mark.usefixtures("workspace")
def test_an_endpoint_that_always_fails_is_an_error_and_not_an_empty_set(tmp_path: Path) -> None:
    with (
        ScriptedServer((500, "down")) as server,
        pytest.raises(OperationFailedError, match="no usable answer"),
    ):
        generate(server, tmp_path / "d", num_rows=2, test_rows=0)
    assert not (tmp_path / "d" / "train.jsonl").exists()


@pytest.mark.usefixtures("workspace")
def test_words_that_never_pass_a_gate_are_an_error_that_counts_the_reasons(tmp_path: Path) -> None:
    with (
        ScriptedServer((200, completion("I would rather not."))) as server,
        pytest.raises(OperationFailedError, match="no wording") as caught,
    ):
        generate(server, tmp_path / "d", num_rows=2, test_rows=0, pace={"max_rounds": 2})
    assert caught.value.details["refused"] == ["no_wording (4)"]


@pytest.mark.usefixtures("workspace")
def test_a_server_without_structured_output_is_asked_without_it(
    tmp_path: Path, wordings: dict[str, list[str]]
) -> None:
    def respond(request: ReceivedRequest) -> tuple[int, Any]:
        if "response_format" in request.body:
            return 400, {"error": {"message": "unknown field response_format"}}
        if "max_tokens" in request.body:
            return 400, {"error": {"message": "max_tokens is not supported, use max_completion_tokens"}}
        return 200, words(request, wordings)

    with ScriptedServer(respond=respond) as server:
        assert generate(server, tmp_path / "d", pace={"concurrency": 1}).num_rows == 12
        assert server.requests[-1].body["max_completion_tokens"] > 0


@pytest.mark.usefixtures("workspace")
def test_wordings_that_fail_a_gate_are_asked_for_again_with_the_reason(
    tmp_path: Path, wordings: dict[str, list[str]]
) -> None:
    def respond(request: ReceivedRequest) -> tuple[int, Any]:
        items = json.loads(request.body["messages"][1]["content"])["items"]
        if any("refused_before_because" in item for item in items):
            return 200, words(request, wordings)
        rows = [
            {"id": item["id"], "texts": ["mail bob.real@gmail.com"] * len(item["turns"])} for item in items
        ]
        return 200, completion(json.dumps({"rows": rows}))

    with ScriptedServer(respond=respond) as server:
        result = generate(server, tmp_path / "d")
    assert result.num_rows == 12
    assert result.rejected >= 12


def test_a_cut_answer_gives_its_whole_rows() -> None:
    text = json.dumps({"rows": [{"id": "a", "texts": ["one {x}"]}, {"id": "b", "texts": ["two"]}]})
    assert read_wordings(text) == {"a": ["one {x}"], "b": ["two"]}
    assert read_wordings(f"Sure!\n```json\n{text}\n```") == {"a": ["one {x}"], "b": ["two"]}
    assert read_wordings(text[:-8]) == {"a": ["one {x}"]}
    for rubbish in ("", "[]", "{", '{"rows": 3}', '{"rows": [{"id": 1, "texts": []}]}', "null"):
        assert read_wordings(rubbish) == {}


def test_a_ledger_line_that_a_kill_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"key": "a"}\n{"key": "b", "mess')
    assert read_ledger(path) == [{"key": "a"}]
    assert path.read_bytes() == b'{"key": "a"}\n'


def test_a_killed_run_loses_nothing_and_pays_nothing_twice(
    workspace: Path, wordings: dict[str, list[str]]
) -> None:
    answered: list[str] = []

    def respond(request: ReceivedRequest) -> tuple[int, Any]:
        time.sleep(0.15)  # so that the kill falls between two answers
        answered.append(json.dumps(request.body, sort_keys=True))
        return 200, words(request, wordings)

    with ScriptedServer(respond=respond) as server:
        command = [
            sys.executable, "-m", "pipeline", "synth", "generate", "--out", "d", "--writer", "endpoint", "--base-url",
            server.base_url, "--model", "test-model", "--num-rows", "12", "--validation-rows", "0", "--test-rows", "4",
            "--pace", '{"rows_per_request": 2, "concurrency": 1}', "--prices", json.dumps([PRICE]),
        ]  # fmt: skip
        killed = subprocess.Popen(
            command, env={**os.environ, "LLMOPS_WORKSPACE": str(workspace)}, stderr=subprocess.DEVNULL
        )
        while len(answered) < 3 and killed.poll() is None:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        before = len(read_ledger(workspace / "d" / "ledger.jsonl"))
        result = generate(server, workspace / "d", pace={"rows_per_request": 2, "concurrency": 1})
    assert 2 <= before < 10
    assert result.num_rows == 12
    lines = read_ledger(workspace / "d" / "ledger.jsonl")
    assert len({line["key"] for line in lines}) == len(lines)
    # only the request that was under way when the process died may have been answered twice
    assert len(answered) - len(set(answered)) <= 1
    assert len(read_jsonl(workspace / "d" / "train.jsonl")) == 12
