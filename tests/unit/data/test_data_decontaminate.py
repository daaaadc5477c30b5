"""``data decontaminate``: equal rows, near-duplicates, 8-grams and the copier, each with a control."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.core.errors import InvalidInputError
from pipeline.data.copier import Answer, score_copies
from pipeline.data.decontaminate import DATA_DECONTAMINATE, DataDecontaminateResult

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("delete", "create")
]


def chat(user: str, assistant: str = "Certainly, that was done for you.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def call(user: str, name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"id": "c1", "type": "function", "function": function}]
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": None, "tool_calls": calls}]
    return {"messages": turns, "tools": TOOLS}


def sentence(seed: int, num_words: int = 20) -> str:
    source = random.Random(seed)
    return " ".join(f"v{source.randrange(10_000)}" for _ in range(num_words))


def compare(workspace: Path, train: list[Any], test: list[Any], **fields: Any) -> DataDecontaminateResult:
    for name, rows in (("train", train), ("test", test)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (workspace / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return DATA_DECONTAMINATE.call({"train": "train.jsonl", "test": "test.jsonl", **fields})


def test_rows_with_nothing_in_common_are_clean(workspace: Path) -> None:
    train = [chat(sentence(n), sentence(100 + n)) for n in range(20)]
    result = compare(workspace, train, [chat(sentence(n), sentence(n + 50)) for n in range(200, 205)])
    found = result.leakage
    assert (found.num_train_rows, found.num_test_rows) == (20, 5)
    assert (found.exact.num_test_rows, found.near.num_test_rows, found.same_prompt.num_test_rows) == (0, 0, 0)
    assert (found.ngram.num_test_rows, found.ngram.num_counted_rows, found.ngram.mean_share) == (0, 5, 0)
    assert not result.is_negative()
    assert result.warnings == []


def test_an_equal_row_makes_the_answer_no_and_is_named_by_both_lines(workspace: Path) -> None:
    train = [chat(sentence(1)), chat(sentence(2)), chat(f" {sentence(3)} ")]
    result = compare(workspace, train, [chat(sentence(9)), chat(sentence(3))])
    assert result.is_negative()
    assert [o.model_dump() for o in result.overlaps] == [
        {"train_line": 3, "test_line": 2, "kind": "exact", "similarity": 1}
    ]
    assert main(["data", "decontaminate", "train.jsonl", "test.jsonl"]) == 1


def test_a_near_duplicate_is_found_whatever_it_calls_and_is_no_negative_answer(workspace: Path) -> None:
    text = sentence(5, 40)
    result = compare(workspace, [call(text, "delete", id=1)], [call(f"{text} please", "delete", id=2)])
    # <user> + 40 words + <assistant> = 42 tokens, 40 shingles; one word more: 41, of which 39 are common
    assert [(o.kind, o.similarity) for o in result.overlaps] == [("near", round(39 / 42, 4))]
    assert (result.leakage.near.num_test_rows, result.leakage.exact.num_test_rows) == (1, 0)
    assert not result.is_negative()


def test_the_same_question_with_another_answer_is_counted(workspace: Path) -> None:
    result = compare(workspace, [chat("Hello there!", sentence(1))], [chat("hello there", sentence(2))])
    assert result.leakage.same_prompt.num_test_rows == 1
    assert result.leakage.exact.num_test_rows == 0
    assert result.warnings == ["1 test rows have the words of a training row in all user turns"]


def test_a_copy_that_only_gained_a_system_turn_or_tools_is_equal(workspace: Path) -> None:
    train = [chat(sentence(n, 30), sentence(100 + n, 30)) for n in range(6)]
    system = {"role": "system", "content": "You are helpful."}
    test: list[dict[str, Any]] = [{"messages": [system, *row["messages"]]} for row in train[:3]]
    test += [{**row, "tools": TOOLS} for row in train[3:]]
    found = compare(workspace, train, test)
    assert found.leakage.exact.num_test_rows == 6
    assert found.is_negative()


def test_a_near_copy_with_a_system_turn_is_near(workspace: Path) -> None:
    text = sentence(5, 40)
    test = chat(f"{text} please")
    test["messages"].insert(0, {"role": "system", "content": "You are helpful."})
    result = compare(workspace, [chat(text)], [test])
    assert (result.leakage.exact.num_test_rows, result.leakage.near.num_test_rows) == (0, 1)


def test_shared_8_grams_are_counted_inside_turns(workspace: Path) -> None:
    shared = sentence(7, 8)
    train = [chat(f"{sentence(1)} {shared} {sentence(2)}", "ok")]
    test = [
        chat(f"{shared} a b", "no"),  # 10 words, 3 8-grams, one of them shared
        chat(sentence(8, 8), "no"),  # one 8-gram, not shared
        chat(" ".join(shared.split()[:4]), " ".join(shared.split()[4:])),  # 4 and 4 words: none at all
    ]
    found = compare(workspace, train, test).leakage.ngram
    assert (found.num_test_rows, found.num_half_rows, found.num_counted_rows) == (1, 0, 2)
    assert found.mean_share == round((1 / 3 + 0) / 2, 4)


def test_the_copier_answers_with_the_most_similar_training_row(workspace: Path) -> None:
    train = [
        call("please delete the task number seven", "delete", id=7),
        call("add a task called water the plants", "create", title="water the plants"),
        chat("how are you today my friend"),
    ]
    test = [
        call("please delete task number seven", "delete", id=7),  # right in everything
        call("add a task called feed the cat", "create", title="feed the cat"),  # right tool only
        call("how are you today, and delete it", "delete", id=1),  # nearest row calls nothing
        chat("how are you my friend"),  # rightly calls nothing
    ]
    copier = compare(workspace, train, test).leakage.copier
    assert (copier.num_rows, copier.num_right_tools) == (4, 3)
    assert (copier.num_rows_with_calls, copier.num_right_calls) == (3, 1)
    assert sum(copier.histogram) == 4


def test_similarity_is_the_mean_of_two_jaccard_indexes(workspace: Path) -> None:
    # " ab cd " and " ab ef ": 4-grams " ab ", "ab c", "b cd", " cd " and " ab ", "ab e", "b ef", " ef ": 1 of 7.
    # Words: 1 of 3.
    copier = compare(workspace, [chat("ab cd")], [chat("ab ef")]).leakage.copier
    assert copier.median_similarity == round((1 / 7 + 1 / 3) / 2, 4)


def test_a_row_without_a_neighbour_is_not_right() -> None:
    wanted = Answer("", "[]")
    score = score_copies([wanted, wanted], [None, wanted], [0.0, 1.0])
    assert (score.num_right_tools, score.histogram) == (1, [1, 0, 0, 0, 0, 0, 0, 0, 0, 1])


def test_removal_writes_a_file_without_equal_and_nearly_equal_rows(workspace: Path) -> None:
    text = sentence(5, 40)
    train = [chat(sentence(1)), chat(text), chat(f"{text} please"), chat(sentence(2))]
    result = compare(workspace, train, [chat(text)], out="clean.jsonl")
    assert result.num_removed == 2
    assert not result.is_negative()
    kept = [json.loads(line) for line in (workspace / "clean.jsonl").read_text(encoding="utf-8").splitlines()]
    assert kept == [train[0], train[3]]
    again = DATA_DECONTAMINATE.call({"train": "clean.jsonl", "test": "test.jsonl"})
    assert (again.overlaps, again.is_negative()) == ([], False)


def test_inputs_cannot_be_replaced_and_have_to_hold_rows(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="replace the input"):
        compare(workspace, [chat("a b")], [chat("c d")], out="test.jsonl")
    with pytest.raises(InvalidInputError, match="has no rows"):
        compare(workspace, [chat("a b")], [])
    with pytest.raises(InvalidInputError, match="No such file"):
        DATA_DECONTAMINATE.call({"train": "train.jsonl", "test": "missing.jsonl"})
