import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.core.files import read_json, read_jsonl, write_jsonl
from pipeline.core.messages import Example
from pipeline.synth.formulations import load_bank, without
from pipeline.synth.generate import SPLITS, SynthGenerateRequest, SynthGenerateResult, generate_conversations
from pipeline.synth.replay import SYNTH_REPLAY, SynthReplayRequest, replay_file
from pipeline.task_api.tools import check_arguments, order_arguments

ROWS = {"train": 500, "validation": 80, "test": 200}
KINDS = {
    "train": {
        "create": 125, "update": 65, "complete": 20, "delete": 20, "list": 70, "multi": 55, "by_title": 45,
        "followup": 25, "ask": 50, "talk": 25,
    },
    "test": {
        "create": 48, "update": 22, "complete": 12, "delete": 12, "list": 26, "multi": 16, "by_title": 18,
        "followup": 16, "ask": 14, "talk": 16,
    },
}  # fmt: skip


def _generate(folder: Path, seed: int = 3) -> SynthGenerateResult:
    return generate_conversations(
        SynthGenerateRequest(out=str(folder), num_rows=500, validation_rows=80, test_rows=200, seed=seed)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    _generate(path)
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, list[Example]]:
    return {
        split: [Example.from_row(row) for row in read_jsonl(folder / f"{split}.jsonl")] for split in SPLITS
    }


def _all(rows: dict[str, list[Example]]) -> list[Example]:
    return [row for split in rows.values() for row in split]


def test_rows_are_as_many_as_asked_and_kinds_are_in_the_shares_of_the_mix(
    rows: dict[str, list[Example]],
) -> None:
    assert {split: len(found) for split, found in rows.items()} == ROWS
    for split, kinds in KINDS.items():
        assert Counter(row.tags["kind"] for row in rows[split]) == kinds


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(folder: Path, tmp_path: Path) -> None:
    again, other = _generate(tmp_path / "again"), _generate(tmp_path / "other", seed=4)
    digests = {f"{s}.jsonl": hashlib.sha256((folder / f"{s}.jsonl").read_bytes()).hexdigest() for s in SPLITS}
    assert again.sha256 == digests == read_json(folder / "data_report.json")["sha256"]
    assert all(other.sha256[name] != digest for name, digest in digests.items())


def test_no_formulation_stands_on_two_sides(rows: dict[str, list[Example]]) -> None:
    groups = {split: {row.group for row in found} for split, found in rows.items()}
    assert not groups["train"] & groups["validation"]
    assert not (groups["train"] | groups["validation"]) & groups["test"]
    texts = {split: {row.tags["formulation"] for row in found} for split, found in rows.items()}
    assert not texts["train"] & texts["test"]


def test_first_turns_of_dialogues_stay_on_their_side_too(rows: dict[str, list[Example]]) -> None:
    def user_texts(split: str) -> set[str]:
        return {m.content or "" for row in rows[split] for m in row.messages if m.role == "user"}

    assert not user_texts("train") & user_texts("test")


def test_test_rows_use_only_values_that_training_cannot_have_seen(rows: dict[str, list[Example]]) -> None:
    bank, _ = without(load_bank("test"), load_bank("train"))
    known = {title.casefold() for title in bank.values["titles"] + bank.values["nouns"]}
    titles = {task["title"].casefold() for row in rows["test"] for task in row.initial_state}
    titles |= {
        call.arguments["title"].casefold()
        for row in rows["test"]
        for call in _calls(row)
        if "title" in call.arguments
    }
    assert titles <= known


def _calls(row: Example) -> list[Any]:
    return [call for message in row.messages for call in message.tool_calls]


def test_every_call_fits_its_schema_in_canonical_order(rows: dict[str, list[Example]]) -> None:
    calls = [call for row in _all(rows) for call in _calls(row)]
    assert len(calls) > 700
    for call in calls:
        assert check_arguments(call.name, call.arguments) is None
        assert list(call.arguments) == list(order_arguments(call.name, call.arguments))


def test_every_argument_was_said_before_or_shown_by_a_tool(rows: dict[str, list[Example]]) -> None:
    implied = {"priority", "status"}  # "urgent" and "still open" carry these
    for row in _all(rows):
        said = shown = ""
        for message in row.messages:
            said += f"\n{message.content}" if message.role == "user" else ""
            shown += f"\n{message.content}" if message.role == "tool" else ""
            for call in message.tool_calls:
                for key, value in call.arguments.items():
                    if key == "task_id":
                        assert str(value) in said or f'"id": {value}' in shown, row.id
                    elif key not in implied:
                        assert value in said, row.id


def test_every_tool_message_answers_a_call_and_the_assistant_ends(rows: dict[str, list[Example]]) -> None:
    for row in _all(rows):
        last = row.messages[-1]
        assert last.role == "assistant"
        assert bool(last.content) != bool(last.tool_calls)
        answered = [message.tool_call_id for message in row.messages if message.role == "tool"]
        ids = [call.id for call in _calls(row)]
        assert ids == [f"call_{i + 1}" for i in range(len(ids))]
        assert answered == ids[: len(ids) - len(last.tool_calls)]


def test_only_single_action_training_rows_end_with_a_call(rows: dict[str, list[Example]]) -> None:
    ending = {split: [row for row in rows[split] if row.messages[-1].tool_calls] for split in SPLITS}
    assert ending["validation"] == ending["test"] == []
    single = {"create", "update", "complete", "delete", "list", "multi"}
    assert {row.tags["kind"] for row in ending["train"]} <= single
    candidates = sum(row.tags["kind"] in single for row in rows["train"])
    # Seven of ten, within four standard deviations of a draw without replacement.
    deviation = (0.7 * 0.3 / candidates) ** 0.5
    assert abs(len(ending["train"]) / candidates - 0.7) < 4 * deviation


def test_replies_name_only_tasks_of_a_result(rows: dict[str, list[Example]]) -> None:
    listed = 0
    for row in _all(rows):
        results = "\n".join(message.content or "" for message in row.messages if message.role == "tool")
        for line in (row.messages[-1].content or "").splitlines():
            if line.startswith("- "):
                number, _, rest = line[2:].partition(": ")
                title = rest.split('"')[1]
                assert f'"id": {number}, "title": {json.dumps(title, ensure_ascii=False)}' in results, row.id
                listed += 1
    assert listed > 100


def test_the_outcomes_that_need_care_all_occur(rows: dict[str, list[Example]]) -> None:
    outcomes = {row.tags["outcome"] for row in _all(rows)}
    assert {
        "ok",
        "not_found",
        "already_completed",
        "none_found",
        "asked",
        "no_call",
        "several_found",
    } <= outcomes
    assert outcomes & {"past_due_date", "invalid_due_date"}


def test_a_task_named_by_title_is_looked_up_unless_it_was_just_listed(rows: dict[str, list[Example]]) -> None:
    for row in _all(rows):
        if row.group.startswith("by_title:"):
            named_after_list = row.tags["kind"] == "followup"
            calls = _calls(row)
            assert calls[0].name == "list_tasks"
            assert ("search" in calls[0].arguments) or named_after_list
            assert len(calls) == (2 if row.tags["outcome"] == "ok" else 1)


def test_every_row_replays_to_the_same_results(folder: Path) -> None:
    for split in SPLITS:
        result = replay_file(SynthReplayRequest(file=str(folder / f"{split}.jsonl")))
        assert (result.rows, result.different_rows) == (ROWS[split], 0)
        assert not result.is_negative()


def test_replay_finds_a_result_that_was_tampered_with(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = read_jsonl(folder / "test.jsonl")
    index = next(
        i
        for i, row in enumerate(stored)
        if row["tags"]["kind"] == "delete" and row["tags"]["outcome"] == "ok"
    )
    message = next(message for message in stored[index]["messages"] if message["role"] == "tool")
    message["content"] = message["content"].replace('"title": "', '"title": "not ')
    path = tmp_path / "tampered.jsonl"
    write_jsonl(path, stored)
    assert main(["synth", "replay", str(path), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["different_rows"] == 1
    assert result["differences"][0].startswith(f"{stored[index]['id']}: call_1 delete_task gives")


@pytest.mark.parametrize("line", ["{", '{"id": "x"}', '{"id": "x", "messages": []}', "[]"])
def test_replay_names_the_line_that_is_no_conversation(
    tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"\n{line}\n", encoding="utf-8")
    assert main(["synth", "replay", str(path)]) == 2
    assert "bad.jsonl:2 is not a conversation" in capsys.readouterr().err


def test_replay_of_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    assert main(["synth", "replay", str(tmp_path / "none.jsonl")]) == 2
    assert SYNTH_REPLAY.read_only


def test_the_report_counts_what_the_files_hold(folder: Path, rows: dict[str, list[Example]]) -> None:
    report = read_json(folder / "data_report.json")
    assert report["seed"] == 3
    train = report["splits"]["train"]
    assert train["by_kind"] == dict(Counter(row.tags["kind"] for row in rows["train"]).most_common())
    assert sum(train["formulations_used"].values()) == len({row.group for row in rows["train"]})
    assert train["top_formulation_ratio"] == max(Counter(row.group for row in rows["train"]).values()) / 500
    assert "| create | 125 |" in (folder / "data_report.md").read_text(encoding="utf-8")


def test_formulations_are_used_evenly(rows: dict[str, list[Example]]) -> None:
    for kind in ("complete", "delete", "list", "talk", "multi"):
        used = Counter(row.group for row in rows["train"] if row.tags["kind"] == kind)
        assert max(used.values()) <= 2


@pytest.fixture(scope="module")
def with_setbacks(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    out = tmp_path_factory.mktemp("setbacks")
    generate_conversations(
        SynthGenerateRequest(out=str(out), mix="setbacks", num_rows=500, validation_rows=80, test_rows=200)
    )
    return [Example.from_row(row) for split in SPLITS for row in read_jsonl(out / f"{split}.jsonl")]


def test_setbacks_are_eight_percent_of_their_mix_and_absent_from_the_quickstarts(
    rows: dict[str, list[Example]], with_setbacks: list[Example]
) -> None:
    found = Counter(row.tags["kind"] for row in with_setbacks)
    # 4 % each of 500, 80 and 200 rows: 20 + 3 + 8; a share that ends between two rows gains or loses one a split.
    assert abs(found["timeout"] - 31) <= 2
    assert abs(found["no_priority"] - 31) <= 2
    assert not {"timeout", "no_priority"} & {row.tags["kind"] for row in _all(rows)}


def test_a_call_that_timed_out_is_made_once_more_and_nothing_is_claimed_when_that_fails_too(
    with_setbacks: list[Example],
) -> None:
    timed_out = [row for row in with_setbacks if row.tags["kind"] == "timeout"]
    gave_up = 0
    for row in timed_out:
        first, second = _calls(row)
        assert (first.name, first.arguments) == (second.name, second.arguments)
        results = [json.loads(message.content or "") for message in row.messages if message.role == "tool"]
        assert results[0]["error"] == "timeout"
        if "error" in results[1]:
            gave_up += 1
            assert row.messages[-1].content
            assert "Nothing was changed" in row.messages[-1].content
    assert 0 < gave_up < len(timed_out)


def test_a_priority_that_does_not_exist_is_asked_about_and_never_called(
    with_setbacks: list[Example],
) -> None:
    unknown = [row for row in with_setbacks if row.tags["kind"] == "no_priority"]
    for row in unknown:
        asked = row.messages[2]
        assert asked.role == "assistant"
        assert not asked.tool_calls
        assert asked.content
        assert asked.content.endswith("?")
        assert all(call.arguments["priority"] in {"low", "medium", "high"} for call in _calls(row))
    assert {len(_calls(row)) for row in unknown} == {0, 1}
