"""`evals run` on neutral cases: engines, storage, resuming, reports. A scripted server answers over real HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json, read_jsonl
from pipeline.core.runs import Run
from pipeline.evals.answers import Decoding, read_answers
from pipeline.evals.asking import Asking, Question, ask_all
from pipeline.evals.cases import read_case_file
from pipeline.evals.compare import EVALS_COMPARE
from pipeline.evals.engines import HttpEngine, Source, open_engine
from pipeline.evals.run import EVALS_RUN, EvalRunResult
from pipeline.inference.scripted_server import ScriptedServer, completion

HOME = Path(__file__).resolve().parents[2] / "assets" / "home_cases.jsonl"
MODELS = {"object": "list", "data": [{"id": "m"}]}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def home_cases(tmp_path: Path, *ids: str) -> Path:
    rows = {row["id"]: row for row in read_jsonl(HOME)}
    return write_rows(tmp_path / "cases.jsonl", [rows[name] for name in ids])


def run(**request: Any) -> EvalRunResult:
    return EVALS_RUN.call({key: str(v) if isinstance(v, Path) else v for key, v in request.items()})


def test_a_tool_set_that_is_not_the_task_api_is_scored_from_a_replay_file(
    workspace: Path, tmp_path: Path
) -> None:
    cases = home_cases(tmp_path, "cancel", "heat-two", "read-kitchen", "thanks", "ask-date")
    heat = [
        {"name": "set_temperature", "arguments": {"room": "living room", "celsius": 21.0}},
        {"name": "set_temperature", "arguments": {"room": "bedroom", "celsius": 17}},
    ]
    replay = write_rows(
        tmp_path / "made.jsonl",
        [
            {
                "id": "cancel",
                "text": '<tool_call>\n{"name": "cancel_event", "arguments": {"event_id": 21}}\n</tool_call>',
            },
            {"id": "heat-two", "calls": heat},
            {"id": "read-kitchen", "message": {"role": "assistant", "content": "It is warm."}},
            {"id": "thanks", "text": "<tool_call>\n{oops"},
            {"id": "ask-date", "text": "On which day?"},
        ],
    )
    result = run(cases=cases, replay=replay)
    # By hand: wrong id, right in any order, silent, broken call is no restraint, right question.
    assert (result.whole_turn.right, result.whole_turn.total) == (2, 5)
    assert (result.no_call.right, result.no_call.total) == (1, 2)
    assert result.errors["silent_when_call"] == 1
    stored = read_json(workspace / "runs" / result.run_id / "artifacts" / "eval_report.json")
    assert stored["by_tag"]["phenomenon=parallel"]["right"] == 1
    assert stored["confusion"]["read_temperature"] == {"(no call)": 1}
    folder = workspace / "runs" / result.run_id / "artifacts"
    assert "data:image/png;base64" in (folder / "eval_report.html").read_text(encoding="utf-8")
    assert "2 cases" not in (folder / "model_card_section.md").read_text(encoding="utf-8")


def test_a_missing_prediction_counts_as_no_output(workspace: Path, tmp_path: Path) -> None:
    replay = write_rows(tmp_path / "made.jsonl", [{"id": "someone else", "text": "hi"}])
    result = run(cases=home_cases(tmp_path, "cancel"), replay=replay)
    assert result.whole_turn.right == 0
    assert result.errors == {"no_output": 1}


def test_a_case_that_breaks_its_own_schema_is_left_out_and_named(workspace: Path, tmp_path: Path) -> None:
    rows = [row for row in read_jsonl(HOME) if row["id"] in {"cancel", "read-kitchen"}]
    rows[0]["expected"]["calls"][0]["args"] = {"room": {"any_of": ["cellar"]}}
    cases = write_rows(tmp_path / "cases.jsonl", rows)
    replay = write_rows(tmp_path / "made.jsonl", [{"id": "cancel", "text": "no"}])
    result = run(cases=cases, replay=replay)
    assert result.num_turns == 1
    assert "read-kitchen (reference_enum_violation)" in result.warnings[0]


def test_raw_answers_of_a_server_are_kept_and_scored(workspace: Path, tmp_path: Path) -> None:
    answer = completion(None, ("cancel_event", '{"event_id": 12}'))
    with ScriptedServer((200, MODELS), (200, answer)) as server:
        result = run(cases=home_cases(tmp_path, "cancel"), base_url=server.base_url, concurrency=1)
        sent = server.requests[1].body
    assert sent["tools"][0]["function"]["name"] == "set_temperature"
    assert (sent["temperature"], sent["seed"]) == (0.0, 0)
    assert result.whole_turn.right == 1
    kept = read_jsonl(workspace / "runs" / result.run_id / "artifacts" / "predictions.jsonl")
    assert kept[0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"event_id": 12}'
    assert kept[0]["completion_tokens"] == 5


def test_arguments_that_are_no_json_are_the_models_error_not_a_crash(workspace: Path, tmp_path: Path) -> None:
    answer = completion(None, ("cancel_event", '{"event_id": '))
    with ScriptedServer((200, MODELS), (200, answer)) as server:
        result = run(cases=home_cases(tmp_path, "cancel"), base_url=server.base_url, concurrency=1)
    assert result.errors == {"not_json": 1}


def test_repeats_are_asked_with_other_seeds_and_judged_one_by_one(workspace: Path, tmp_path: Path) -> None:
    right, wrong = (completion(None, ("cancel_event", f'{{"event_id": {n}}}')) for n in (12, 13))
    with ScriptedServer((200, MODELS), (200, right), (200, wrong), (200, right)) as server:
        result = run(
            cases=home_cases(tmp_path, "cancel"),
            base_url=server.base_url,
            concurrency=1,
            repeats=3,
            temperature=0.7,
        )
        assert [request.body["seed"] for request in server.requests[1:]] == [0, 1, 2]
    assert (result.whole_turn.right, result.whole_turn.total, result.num_cases) == (2, 3, 1)


def test_an_interrupted_run_asks_only_what_is_missing_or_changed(workspace: Path, tmp_path: Path) -> None:
    cases = read_case_file(home_cases(tmp_path, "cancel", "read-kitchen"))
    questions = [Question(case.id, case.messages, case.openai_tools) for case in cases]
    path = tmp_path / "predictions.jsonl"
    asking = Asking(Decoding(), 1, path, "ask")
    with ScriptedServer(
        (200, MODELS), (200, completion("a")), (200, completion("b")), (200, completion("c"))
    ) as server:
        with open_engine(Source(base_url=server.base_url, concurrency=1)) as engine:
            assert isinstance(engine, HttpEngine)
            ask_all(engine, questions, asking)
            path.write_text(path.read_text(encoding="utf-8") + '{"id": "half', encoding="utf-8")
            changed = [questions[0], questions[1]._replace(messages=[{"role": "user", "content": "other"}])]
            answers = ask_all(engine, changed, asking)
        assert len(server.requests) == 4  # one list of models, two answers, one for the changed question
    assert [answer.visible_text for answer in answers] == ["a", "c"]
    assert len(read_answers(path)) == 2


def test_two_neutral_runs_are_compared(workspace: Path, tmp_path: Path) -> None:
    cases = home_cases(tmp_path, "cancel", "thanks", "joke")
    right = {"id": "cancel", "calls": [{"name": "cancel_event", "arguments": {"event_id": 12}}]}
    talk = [{"id": "thanks", "text": "Bye."}, {"id": "joke", "text": "Snow joke."}]
    before = run(cases=cases, replay=write_rows(tmp_path / "one.jsonl", talk))
    after = run(cases=cases, replay=write_rows(tmp_path / "two.jsonl", [right, *talk]))
    compared = EVALS_COMPARE.call(
        {"before": before.run_id, "after": after.run_id, "out": str(tmp_path / "c")}
    )
    assert (compared.num_fixed, compared.num_broken, compared.verdict) == (1, 0, "not proven")


def test_exactly_one_source_of_answers_is_taken(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="give either"):
        run(cases=HOME, base_url="http://127.0.0.1:9/v1", replay="x.jsonl")


def test_conversations_cannot_be_replayed_and_say_what_to_do(workspace: Path) -> None:
    conversations = HOME.with_name("eval_cases.jsonl")
    with pytest.raises(InvalidInputError, match="freely and once"):
        run(cases=conversations, base_url="http://127.0.0.1:9/v1", constrained=True)


def test_the_predictions_file_of_a_run_can_be_replayed(workspace: Path, tmp_path: Path) -> None:
    cases = home_cases(tmp_path, "thanks")
    first = run(cases=cases, replay=write_rows(tmp_path / "one.jsonl", [{"id": "thanks", "text": "Bye."}]))
    kept = Run.open(first.run_id).artifacts / "predictions.jsonl"
    assert run(cases=cases, replay=kept).whole_turn == first.whole_turn
