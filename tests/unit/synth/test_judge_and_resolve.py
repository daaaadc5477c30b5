import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_jsonl, write_jsonl
from pipeline.inference.scripted_server import ReceivedRequest, ScriptedServer, completion
from pipeline.synth.calibrate import SYNTH_CALIBRATE, kappa
from pipeline.synth.estimate import SYNTH_ESTIMATE
from pipeline.synth.generate import SynthGenerateRequest, generate_conversations
from pipeline.synth.judge import SYNTH_JUDGE, decide_pair, read_verdict
from pipeline.synth.resolve import SYNTH_RESOLVE

pytestmark = pytest.mark.usefixtures("workspace")
GOOD = {
    "natural_language": 4, "accuracy": 5, "completeness": 4, "format": 4,
    "no_invented_argument": True, "no_false_claim": True, "one_reading": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    generate_conversations(
        SynthGenerateRequest(out=str(folder), num_rows=8, validation_rows=0, test_rows=0, mix="full", seed=5)
    )
    return folder / "train.jsonl"


def judge(server: ScriptedServer, file: Path, out: Path, **more: Any) -> Any:
    values = {"file": str(file), "out": str(out), "base_url": server.base_url, "model": "judge"}
    return SYNTH_JUDGE.call({**values, "pace": {"concurrency": 1, "backoff_seconds": 0.01}, **more})


def test_the_mean_is_computed_here_and_decides_with_the_items(rows_file: Path, tmp_path: Path) -> None:
    answers = [
        GOOD,  # mean 4.25: kept
        {**GOOD, "accuracy": 3},  # 15 / 4 = 3.75
        {**GOOD, "no_false_claim": False},
        {**GOOD, "accuracy": 4},  # exactly 4
        {**GOOD, "accuracy": 6},  # no grade
        {**GOOD, "one_reading": "yes"},  # no boolean
        {"avg_score": 5},
    ]
    script = [(200, completion(json.dumps(answer))) for answer in answers]
    with ScriptedServer(*script, (200, completion("5/5, lovely"))) as server:
        result = judge(server, rows_file, tmp_path / "j")
        shown = server.requests[0].body["messages"][1]["content"]
    assert (result.num_rows, result.num_kept, result.num_unreadable) == (8, 2, 4)
    assert [row["id"] for row in read_jsonl(tmp_path / "j" / "kept.jsonl")] == ["train-00001", "train-00004"]
    assert result.mean_by_criterion["accuracy"] == pytest.approx((5 + 3 + 5 + 4) / 4)
    assert result.no_by_item == {"no_invented_argument": 0, "no_false_claim": 1, "one_reading": 0}
    assert "train-00001" not in shown
    assert "program" not in shown


def test_a_row_that_fails_a_gate_is_dropped_without_asking(rows_file: Path, tmp_path: Path) -> None:
    rows = read_jsonl(rows_file)
    rows[0]["messages"][-1]["content"] = "Task 9999 is done."
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with ScriptedServer((200, completion(json.dumps(GOOD)))) as server:
        result = judge(server, tmp_path / "rows.jsonl", tmp_path / "j")
        assert len(server.requests) == 7
    assert (result.num_gated, result.num_kept) == (1, 7)


def test_a_judge_that_prefers_the_first_place_decides_nothing(rows_file: Path, tmp_path: Path) -> None:
    with ScriptedServer((200, completion('{"winner": "first"}'))) as server:
        result = judge(server, rows_file, tmp_path / "j", against=str(rows_file))
        assert len(server.requests) >= 8
    assert result.pairs == {"tie_by_order": 8}


def test_pairs_are_won_only_when_both_orders_agree() -> None:
    assert decide_pair("first", "second") == "file"
    assert decide_pair("second", "first") == "against"
    assert decide_pair("tie", "tie") == "tie"
    assert decide_pair("first", "tie") == decide_pair("second", "second") == "tie_by_order"
    assert decide_pair("first", "") == "unreadable"


def test_a_verdict_may_stand_between_other_words() -> None:
    verdict = read_verdict({"content": f"Here you are: {json.dumps(GOOD)} Bye"})
    assert (verdict["keep"], verdict["mean"]) == (True, 4.25)
    assert read_verdict(None) == read_verdict({"content": "{"}) == {"keep": False, "unreadable": True}


def test_kappa_is_that_of_the_textbook_table() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: p_o = 0.70, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa = 0.4
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([(True, True)] * 9) == 0.0
    assert kappa([(True, True), (False, False)]) == 1.0


def calibrate(folder: Path, pairs: list[tuple[bool, bool]]) -> Any:
    write_jsonl(folder / "v.jsonl", ({"id": str(i), "keep": judge} for i, (judge, _) in enumerate(pairs)))
    write_jsonl(folder / "l.jsonl", ({"id": str(i), "keep": human} for i, (_, human) in enumerate(pairs)))
    return SYNTH_CALIBRATE.call({"verdicts": str(folder / "v.jsonl"), "labels": str(folder / "l.jsonl")})


def test_a_judge_below_six_tenths_is_unusable_however_often_it_agrees(tmp_path: Path) -> None:
    # 90 of 100 agree, kappa = (0.9 - 0.9004) / (1 - 0.9004): hardly better than chance
    flattering = [(True, True)] * 90 + [(True, False)] * 6 + [(False, True)] * 4
    result = calibrate(tmp_path, flattering)
    assert result.agreement == 0.9
    assert result.kappa < 0.1
    assert not result.usable
    assert result.is_negative()
    good = calibrate(tmp_path, [(True, True)] * 50 + [(False, False)] * 40 + [(True, False)] * 10)
    # p_o 0.9, p_e = 0.6 * 0.5 + 0.4 * 0.5 = 0.5
    assert good.kappa == pytest.approx(0.8)
    assert good.kappa_low < 0.8 < good.kappa_high
    assert good.usable
    assert not good.warnings
    assert any("at least 50" in warning for warning in calibrate(tmp_path, flattering[:9]).warnings)


def test_labels_of_other_rows_are_bad_input(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "v.jsonl", [{"id": "a", "keep": True}])
    write_jsonl(tmp_path / "l.jsonl", [{"id": "b", "keep": True}])
    request = {"verdicts": str(tmp_path / "v.jsonl"), "labels": str(tmp_path / "l.jsonl")}
    with pytest.raises(InvalidInputError, match="no id"):
        SYNTH_CALIBRATE.call(request)
    write_jsonl(tmp_path / "l.jsonl", [{"id": "a", "keep": "yes"}])
    with pytest.raises(InvalidInputError, match="true or false"):
        SYNTH_CALIBRATE.call(request)


def test_rows_stay_when_most_solutions_make_the_same_calls(rows_file: Path, tmp_path: Path) -> None:
    rows = read_jsonl(rows_file)
    wrong = rows[0]["id"]

    def respond(request: ReceivedRequest) -> tuple[int, Any]:
        history = request.body["messages"]
        row = next(row for row in rows if row["messages"][: len(history)] == history)
        gold = row["messages"][len(history)]
        calls = [(c["function"]["name"], c["function"]["arguments"]) for c in gold.get("tool_calls", [])]
        is_wrong = request.body["seed"] == 0 or (row["id"] == wrong and request.body["seed"] == 1)
        answer = [("list_tasks", '{"search": "nothing of the kind"}')] if is_wrong else calls
        return 200, completion("ok", *answer)

    with ScriptedServer(respond=respond) as server:
        result = SYNTH_RESOLVE.call(
            {
                "file": str(rows_file),
                "out": str(tmp_path / "r"),
                "base_url": server.base_url,
                "model": "solver",
            }
        )
    assert (result.num_rows, result.num_kept) == (8, 7)
    assert wrong not in {row["id"] for row in read_jsonl(tmp_path / "r" / "kept.jsonl")}
    votes = read_jsonl(tmp_path / "r" / "votes.jsonl")
    assert {vote["agreed"] for vote in votes if vote["id"] != wrong} == {2}


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-4o-mini"])
def test_five_hundred_kept_rows_cost_less_than_fifteen_cents(model: str) -> None:
    result = SYNTH_ESTIMATE.call({"model": model})
    assert (result.kept_rows, result.made_rows) == (500, 600)
    assert [line.num_requests for line in result.lines] == [60, 600]
    assert 0 < result.usd < 0.15
    price = result.price
    by_hand = sum(
        (line.input_tokens * price.input_usd + line.output_tokens * price.output_usd) / 1e6
        for line in result.lines
    )
    assert result.usd == pytest.approx(by_hand, abs=2e-6)
    assert result.most_usd > result.usd
    half = SYNTH_ESTIMATE.call({"model": model, "batch": True})
    assert half.usd == pytest.approx(result.usd / 2, abs=2e-6)


def test_an_unknown_model_gets_no_estimate() -> None:
    with pytest.raises(InvalidInputError, match="no price is known"):
        SYNTH_ESTIMATE.call({"model": "gpt-9"})


def test_a_batch_is_started_once_and_costs_the_batch_price(tmp_path: Path, rows_file: Path) -> None:
    from pipeline.core.prices import ModelPrice
    from pipeline.inference.batch import ask_in_batch
    from pipeline.inference.metered import MeteredClient, Prompt

    batches: list[dict[str, Any]] = []
    uploads: list[list[dict[str, Any]]] = []
    looks = iter(["in_progress", "completed", "completed"])

    def respond(request: ReceivedRequest) -> tuple[int, Any]:
        path = request.path.removeprefix("/v1")
        if path == "/files":
            lines = [line for line in request.body.split(b"\n") if line.startswith(b'{"custom_id"')]
            uploads.append([json.loads(line) for line in lines])
            return 200, {"id": "file-1"}
        if path == "/batches" and request.method == "POST":
            batches.append({"id": "b1", "status": "validating", "metadata": request.body["metadata"]})
            return 200, batches[-1]
        if path.startswith("/batches?"):
            return 200, {"data": batches}
        if path == "/batches/b1":
            return 200, {**batches[0], "status": next(looks), "output_file_id": "file-2"}
        made = [
            {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": completion("fine")}}
            for line in uploads[0]
        ]
        return 200, "\n".join(
            [*map(json.dumps, made[:-1]), '{"custom_id": "oth', json.dumps({"custom_id": "?"})]
        )

    price = ModelPrice(
        model="m", input_usd=2, output_usd=4, batch_ratio=0.5, as_of="2026-11-25", source="test",  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    prompts = [Prompt([{"role": "user", "content": f"question {i}"}], 20) for i in range(3)]
    with ScriptedServer(respond=respond) as server:
        with MeteredClient(tmp_path / "l.jsonl", server.base_url, "m", price=price, max_cost_usd=1) as client:
            answers = ask_in_batch(client, prompts, poll_seconds=0.01)
        # the last answer is missing; a second run finds the batch of the first for the same requests
        with MeteredClient(tmp_path / "new.jsonl", server.base_url, "m", price=price) as second:
            ask_in_batch(second, prompts, poll_seconds=0.01)
    assert [answer is not None for answer in answers] == [True, True, False]
    assert len(batches) == len(uploads) == 1
    # completion() reports 10 tokens in and 5 out: (10 * 2 + 5 * 4) / 1e6 / 2, twice
    assert client.spending().usd == pytest.approx(4e-5)
