"""Lost turns are found in the text alone: each turn's words where that turn should stand."""

from typing import Any

import pytest

from pipeline.rendering.row import IGNORED, EncodedRow
from pipeline.rendering.turn_checks import find_lost_turns

CALL = {"function": {"name": "find", "arguments": {"q": 'a "b"', "n": 3, "deep": [{"x": True}]}}}


def lost(
    messages: list[dict[str, Any]], text: str, spans: list[str], *, is_printed: bool = True
) -> list[str]:
    ranges: list[tuple[int, int]] = []
    for span in spans:
        start = text.index(span, ranges[-1][1] if ranges else 0)
        ranges.append((start, start + len(span)))
    return [f"{p.kind} {p.turn}" for p in find_lost_turns(messages, text, ranges, lambda _: is_printed)]


def test_a_text_that_says_everything_loses_nothing() -> None:
    messages = [
        {"role": "user", "content": " hello there, general "},
        {"role": "assistant", "content": "General Kenobi!"},
    ]
    assert lost(messages, "U: hello there, general\nA: General Kenobi!", ["General Kenobi!"]) == []


def test_words_in_another_turn_do_not_count() -> None:
    messages = [
        {"role": "user", "content": "a long enough sentence"},
        {"role": "assistant", "content": "a long enough sentence"},
    ]
    assert lost(messages, "A: a long enough sentence", ["a long enough sentence"], is_printed=False) == [
        "dropped 0"
    ]


def test_a_changed_text_is_altered_and_a_missing_one_dropped() -> None:
    messages = [
        {"role": "user", "content": "I said THIS and no other"},
        {"role": "assistant", "content": "ok, understood by me"},
    ]
    text = "U: i said this and no other\nA: ok, understood by me"
    assert lost(messages, text, ["ok, understood by me"], is_printed=True) == ["altered 0"]
    assert lost(messages, text, ["ok, understood by me"], is_printed=False) == ["dropped 0"]


def test_a_short_text_that_stands_in_the_markup_is_asked_for() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a long enough answer"}]
    text = "assistant: a long enough answer"
    assert lost(messages, text, ["a long enough answer"], is_printed=False) == ["dropped 0"]


def test_a_system_text_may_stand_anywhere() -> None:
    messages = [
        {"role": "system", "content": "be brief and to the point"},
        {"role": "user", "content": "one question of mine"},
        {"role": "assistant", "content": "one answer for you"},
    ]
    text = "U: one question of mine\n\nbe brief and to the point\nA: one answer for you"
    assert lost(messages, text, ["one answer for you"]) == []


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ('find {"q": "a \\"b\\"", "n": 3, "deep": [{"x": true}]}', []),
        ('find <q>a "b"</q> 3 True', []),
        ("", ["dropped 1"]),
        ("find {}", ["altered 1"]),
        ('find {"q": "a", "n": 3, "deep": true}', ["altered 1"]),
    ],
)
def test_calls_are_looked_for_by_name_and_every_value_in_any_notation(
    printed: str, expected: list[str]
) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "please look for it now"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ]
    assert lost(messages, f"U: please look for it now\nA: {printed}<end>", [f"{printed}<end>"]) == expected


def test_empty_content_printed_as_none_is_an_alteration() -> None:
    call: dict[str, Any] = {"function": {"name": "find", "arguments": {}}}
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert lost(messages, "None find<end>", ["None find<end>"]) == ["altered 0"]


def test_a_tool_result_may_be_printed_as_a_json_string() -> None:
    messages = [
        {"role": "tool", "content": '{"a": "and a long result"}'},
        {"role": "assistant", "content": "the final answer to you"},
    ]
    assert (
        lost(
            messages,
            '"{\\"a\\": \\"and a long result\\"}" the final answer to you',
            ["the final answer to you"],
        )
        == []
    )


def test_trained_ranges_join_neighbouring_tokens() -> None:
    row = EncodedRow("abcdef", [1, 2, 3, 4], [IGNORED, 2, 3, IGNORED], [(0, 1), (1, 3), (3, 4), (4, 6)], ())
    assert row.trained_ranges() == [(1, 4)]
    assert row.num_trained_tokens == 2
