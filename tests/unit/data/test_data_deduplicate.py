"""What counts as the same or nearly the same conversation, and that the search finds all of it."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh32_intdigest

from pipeline.data.backends.near_duplicates import DuplicateSearch
from pipeline.data.backends.work_tables import WorkTables
from pipeline.data.clusters import DisjointSets
from pipeline.data.conversation import Conversation, parse_conversation
from pipeline.data.deduplicate import Fingerprint, Turns, find_similarity, jaccard, list_answers

WORDS = [f"word{number}" for number in range(500)]
TOOL = {"type": "function", "function": {"name": "delete", "parameters": {"type": "object"}}}


def talk(*texts: str, system: str = "") -> Conversation:
    turns = [
        {"role": ("user", "assistant")[position % 2], "content": text} for position, text in enumerate(texts)
    ]
    return parse_conversation({"messages": [{"role": "system", "content": system}] * bool(system) + turns})


def calling(text: str, arguments: dict[str, Any], tools: Sequence[Any] = (TOOL,)) -> Conversation:
    call = {"id": "c1", "type": "function", "function": {"name": "delete", "arguments": arguments}}
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    return parse_conversation({"messages": turns, "tools": list(tools)})


def similarity(one: Conversation, other: Conversation, threshold: float = 0.8) -> float | None:
    return find_similarity(Turns.of(one.messages), Turns.of(other.messages), threshold)


def sentence(source: random.Random, num_words: int) -> str:
    return " ".join(source.choices(WORDS, k=num_words))


def search_near(folder: Path, rows: Sequence[Conversation], threshold: float = 0.8) -> dict[int, int]:
    with WorkTables(folder) as tables:
        search = DuplicateSearch(tables, threshold, within_labels=True)
        for row in rows:
            search.add(Fingerprint.of(row))
        search.finish()
        equal = dict(search.find_equal())
        near = {repeat.row: repeat.kept for repeat in search.find_near(lambda _: None)}
        return {row: near.get(first, first) for row, first in equal.items()} | near


def test_shingles_are_word_3_grams_of_all_turns_with_role_marks() -> None:
    # By hand: <user> add milk now <assistant> done ok has 7 tokens, so 5 shingles.
    assert Turns.of(talk("Add milk, NOW!", "Done: ok").messages).shingles() == {
        "<user> add milk", "add milk now", "milk now <assistant>", "now <assistant> done", "<assistant> done ok",
    }  # fmt: skip


def test_a_script_without_spaces_is_cut_into_5_characters() -> None:
    turns = Turns.of(talk("今天天气好", "是").messages)
    assert turns.ngram == 5
    assert "今 天 天 气 好" in turns.shingles()
    assert "<user> 今 天 天 气" in turns.shingles()


def test_words_survive_the_work_file() -> None:
    turns = Turns.of(talk("Grüße, \uff21\uff22 = 👍", "ok", "", "再见", system="be kind").messages)
    assert Turns.unpack(turns.pack()) == turns


def test_similarity_is_the_exact_jaccard_index() -> None:
    shared = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
    # 28 tokens make 26 shingles on each side; a changed last word of the second turn changes one of them.
    found = similarity(talk(shared, "one two"), talk(shared, "one three"), 0.5)
    assert found is None  # one of two words of a turn is not half of the words of both
    found = similarity(talk(shared, "one two four"), talk(shared, "one two three"), 0.5)
    # tokens: <user> + 26 + <assistant> + 3 = 31, so 29 shingles; 28 common, 30 together
    assert found == pytest.approx(28 / 30)


@given(st.sets(st.text(max_size=2)), st.sets(st.text(max_size=2)))
def test_jaccard_is_symmetric_and_between_0_and_1(one: set[str], other: set[str]) -> None:
    assert jaccard(one, other) == jaccard(other, one)
    assert 0 <= jaccard(one, other) <= 1
    assert jaccard(one, one) == 1


ANSWER = "this is one long answer with quite a few words in it, so that there are enough shingles"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("👍", "👎"),
        ("x = a + b", "x = a - b"),
        ("is a < b", "is a > b"),
        ("costs 5 €", "costs 5 $"),
        ("a \u2212 b", "a + b"),  # the minus sign of mathematics
        ("\U0001fadf", "👍"),  # newer than the tables of some Python versions
        ("", "👍"),
    ],
)
def test_other_symbols_make_another_turn(tmp_path: Path, one: str, other: str) -> None:
    assert similarity(talk(one, ANSWER), talk(other, ANSWER)) is None
    assert search_near(tmp_path, [talk(one, ANSWER), talk(other, ANSWER)]) == {}
    assert similarity(talk(one, ANSWER), talk(one, f"{ANSWER}!")) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("it's (a) test - yes; no?", "it\u2019s \u201ca\u201d test \u2014 yes\u2026 no!"),
        ("你好\uff0c再见\u3002", "你好,再见"),
        ("हिन्दी की बात", "हिन्दी का बात"),  # vowel signs differ
        ("ไม่ใช่", "ไม้ใช่"),  # tone marks differ
        ("soft\u00adware\u200b", "soft ware"),
        ("👍\ufe0f", "👍"),
    ],
)
def test_punctuation_marks_of_words_and_invisible_characters_are_no_symbols(one: str, other: str) -> None:
    assert similarity(talk(one, ANSWER), talk(other, ANSWER)) is not None


def test_across_labels_symbols_do_not_count() -> None:
    one, other = (Fingerprint.across_labels(talk(text, ANSWER)).turns for text in ("a + b", "**a** - b 👍"))
    assert find_similarity(one, other, 0.8) == 1


def test_conversations_that_share_an_opening_and_differ_later_are_not_near_duplicates(tmp_path: Path) -> None:
    # The course plan's cleaning hashes the first turn only: it would keep one row of each opening (5 of 300).
    source = random.Random(1)
    openings = [sentence(source, 120) for _ in range(5)]
    rows = [
        talk(opening, "Sure.", sentence(source, 6), sentence(source, 8))
        for opening in openings
        for _ in range(60)
    ]
    first, second = Turns.of(rows[0].messages), Turns.of(rows[1].messages)
    assert jaccard(first.shingles(), second.shingles()) > 0.7  # the trap is a real one
    assert search_near(tmp_path, rows) == {}


def test_a_long_shared_system_prompt_makes_no_near_duplicates(tmp_path: Path) -> None:
    source = random.Random(2)
    system = sentence(source, 400)
    rows = [talk(sentence(source, 12), sentence(source, 12), system=system) for _ in range(50)]
    assert search_near(tmp_path, rows) == {}


def test_rows_with_different_calls_or_tools_are_never_repeats(tmp_path: Path) -> None:
    text = "please delete the task about the dentist appointment on Friday morning at nine"
    rows = [calling(text, {"id": 1}), calling(text, {"id": 2}), calling(f"{text} now", {"id": 1})]
    assert search_near(tmp_path, rows) == {2: 0}
    other_tool: dict[str, Any] = {"type": "function", "function": {"name": "delete", "parameters": {}}}
    folder = tmp_path / "tools"
    folder.mkdir()
    assert search_near(folder, [rows[0], calling(text, {"id": 1}, [other_tool])]) == {}


def test_under_8_shingles_only_equal_rows_are_repeats(tmp_path: Path) -> None:
    rows = [talk("add some milk", "milk was added"), talk("Add  some milk", "milk was added")]
    assert search_near(tmp_path, rows) == {}  # 8 tokens, 6 shingles; equal but for a capital letter
    folder = tmp_path / "equal"
    folder.mkdir()
    assert search_near(folder, [rows[0], talk("add  some milk ", "milk was added")]) == {1: 0}


def test_call_ids_and_the_order_of_arguments_do_not_make_rows_different() -> None:
    one, other = calling("drop it", {"a": 1, "b": 2}), calling("drop it", {"b": 2, "a": 1})
    assert Fingerprint.of(one).exact == Fingerprint.of(other).exact


def test_what_a_conversation_was_set_up_with_counts_for_cleaning_only() -> None:
    plain, told = talk("drop it", "done"), talk("drop it", "done", system="You are helpful.")
    assert Fingerprint.of(plain).exact != Fingerprint.of(told).exact
    assert Fingerprint.across_labels(plain) == Fingerprint.across_labels(told)
    called, without_tools = calling("drop it", {"id": 1}), calling("drop it", {"id": 1}, ())
    assert Fingerprint.of(called).exact != Fingerprint.of(without_tools).exact
    assert Fingerprint.across_labels(called).exact == Fingerprint.across_labels(without_tools).exact


def test_rows_of_system_turns_alone_stay_different_across_labels() -> None:
    one, other = talk(system="Be kind."), talk(system="Be brief.")
    assert Fingerprint.across_labels(one).exact != Fingerprint.across_labels(other).exact


def test_keep_first_compares_with_kept_rows_only(tmp_path: Path) -> None:
    words = WORDS[:60]
    changed = [*words[:30], "x", *words[31:]]
    changed_more = [*changed[:50], "y", *changed[51:]]
    rows = [talk(" ".join(text), "that is a fine answer") for text in (words, changed, changed_more)]
    # 67 tokens, 65 shingles; each change takes 3 away: 62/68 = 0.91 between neighbours, 59/71 = 0.83 over both.
    assert search_near(tmp_path, rows, threshold=0.85) == {1: 0}
    folder = tmp_path / "lower"
    folder.mkdir()
    assert search_near(folder, rows, threshold=0.8) == {1: 0, 2: 0}


def make_corpus(seed: int, num_rows: int) -> list[Conversation]:
    source = random.Random(seed)
    texts: list[list[str]] = []
    for _ in range(num_rows):
        words = list(source.choice(texts)) if texts and source.random() < 0.5 else source.choices(WORDS, k=30)
        for _ in range(source.randrange(4)):
            words[source.randrange(len(words))] = source.choice(WORDS)
        texts.append(words)
    return [talk(" ".join(words[:15]), " ".join(words[15:])) for words in texts]


def test_the_search_drops_what_comparing_every_pair_drops(tmp_path: Path) -> None:
    rows = make_corpus(seed=3, num_rows=200)
    expected: dict[int, int] = {}
    for row, conversation in enumerate(rows):
        kept = (first for first in range(row) if first not in expected)
        match = next((first for first in kept if similarity(rows[first], conversation) is not None), None)
        if match is not None:
            expected[row] = match
    assert len(expected) > 25
    assert search_near(tmp_path, rows) == expected


def test_candidates_are_those_of_datasketchs_own_index(tmp_path: Path) -> None:
    rows = make_corpus(seed=4, num_rows=300)
    index: Any = MinHashLSH(num_perm=128, params=(25, 5))
    expected: set[tuple[int, int]] = set()
    for number, row in enumerate(rows):
        signature: Any = MinHash(num_perm=128, hashfunc=xxh32_intdigest)
        for shingle in Fingerprint.of(row).shingles:
            signature.update(shingle.encode("utf-8"))
        expected |= {(number, found) for found in index.query(signature)}
        index.insert(number, signature)
    with WorkTables(tmp_path) as tables:
        search = DuplicateSearch(tables, 0.8, within_labels=True)
        for row in rows:
            search.add(Fingerprint.of(row))
        search.finish()
        found = {(row, int(other)) for row, candidates in search.walk() for other in candidates}
    assert len(expected) > 100
    assert found == expected


def test_links_join_chains_whatever_the_order(tmp_path: Path) -> None:
    rows = make_corpus(seed=5, num_rows=120)
    expected = DisjointSets()
    for row in range(len(rows)):
        expected.add()
        for first in range(row):
            if similarity(rows[first], rows[row]) is not None:
                expected.union(first, row)
    sets = DisjointSets()
    with WorkTables(tmp_path) as tables:
        search = DuplicateSearch(tables, 0.8, within_labels=False)
        for row in rows:
            sets.add()
            search.add(Fingerprint.of(row))
        search.finish()
        search.link(sets, lambda _: None)
    assert max(sets.number()) < len(rows) - 1
    assert sets.number() == expected.number()


def test_a_search_works_in_little_memory(tmp_path: Path) -> None:
    with WorkTables(tmp_path, memory_limit="48MB") as tables:
        search = DuplicateSearch(tables, 0.8, within_labels=True)
        for row in make_corpus(seed=6, num_rows=300):
            search.add(Fingerprint.of(row))
        search.finish()
        assert list(search.find_near(lambda _: None))


def test_the_same_words_before_an_answer_make_the_same_prefix_and_other_calls_another_answer() -> None:
    (one,), (other,) = (
        list_answers(calling("drop it", {"id": 1})),
        list_answers(calling("drop  it", {"id": 2})),
    )
    assert one.prefix == other.prefix
    assert one.calls != other.calls
    assert list(list_answers(talk("hello", "hi"))) == []
