import json
from typing import Any

import pytest

from pipeline.inference.chat_rules import (
    ChatPlan,
    ChunkFilter,
    CompletionBuilder,
    RequestError,
    explain_engine_error,
    plan_chat,
)

OUR_TEMPLATE = '... <tool_call>{"name": <tool> ...'
QWEN_TEMPLATE = "... <tool_call>\n ..."
USAGE: dict[str, Any] = {"choices": [], "usage": {"total_tokens": 3}}
USER = {"role": "user", "content": "hi"}


def tool(name: str) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {}}},
    }


def plan(template: str = OUR_TEMPLATE, models: tuple[str, ...] = ("base",), **fields: Any) -> ChatPlan:
    return plan_chat({"messages": [USER], **fields}, list(models), template)


def delta(index: int = 0, finish: str | None = None, **content: Any) -> dict[str, Any]:
    return {"id": "x", "created": 1, "choices": [{"index": index, "delta": content, "finish_reason": finish}]}


def test_a_required_choice_starts_the_answer_with_the_call_tag() -> None:
    messages = plan(tools=[tool("a")], tool_choice="required").body["messages"]
    assert messages == [USER, {"role": "assistant", "content": "<tool_call>"}]


def test_a_named_choice_keeps_all_tools_in_the_prompt_and_starts_the_named_call() -> None:
    body = plan(
        tools=[tool("a"), tool("b")], tool_choice={"type": "function", "function": {"name": "b"}}
    ).body
    assert body["messages"][-1]["content"] == '<tool_call>{"name": "b'
    assert len(body["tools"]) == 2
    assert body["tool_choice"] == "required"


@pytest.mark.parametrize(("template", "names"), [(QWEN_TEMPLATE, ["ab"]), (OUR_TEMPLATE, ["a"])])
def test_a_named_choice_keeps_only_that_tool_where_its_start_would_be_ambiguous(
    template: str, names: list[str]
) -> None:
    choice = {"type": "function", "function": {"name": names[0]}}
    body = plan(template, tools=[tool("a"), tool("ab")], tool_choice=choice).body
    assert [t["function"]["name"] for t in body["tools"]] == names
    assert body["messages"] == [USER]


def test_a_required_choice_is_left_to_the_engine_when_the_template_has_another_tag() -> None:
    body = plan("no such tag", tools=[tool("a")], tool_choice="required").body
    assert body["messages"] == [USER]


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"model": "zz"}, "model_not_found", "'zz'"),
        ({"n": 2}, "unsupported", "'n'"),
        ({"messages": []}, "invalid_messages", "at least one"),
        ({"messages": "hi"}, "invalid_messages", "list"),
        ({"tool_choice": "required"}, "invalid_tool_choice", "'tools' is empty"),
        (
            {"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}},
            "invalid_tool_choice",
            "'b'; the tools are a",
        ),
        ({"tools": [tool("a")], "tool_choice": "sometimes"}, "invalid_tool_choice", "sometimes"),
        ({"tools": [tool("a")], "response_format": {"type": "json_object"}}, "unsupported", "no tool could"),
    ],
)
def test_a_request_that_cannot_work_is_refused_in_words(
    fields: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(RequestError) as refused:
        plan(**fields)
    assert refused.value.code == code
    assert words in str(refused.value)
    assert refused.value.to_openai()["error"]["type"] == "invalid_request_error"


def test_the_model_name_switches_adapters_on_and_off() -> None:
    scales = {
        name: plan(models=("base", "polite", "terse"), model=name).body["lora"]
        for name in ("base", "polite:latest", "terse")
    }
    assert scales == {
        "base": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}],
        "polite:latest": [{"id": 0, "scale": 1.0}, {"id": 1, "scale": 0.0}],
        "terse": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}],
    }


def test_the_second_try_is_warmer_but_never_cooler_than_asked() -> None:
    assert plan(temperature=0).hotter().body["temperature"] == 0.4
    assert plan(temperature=0.9).hotter().body["temperature"] == 0.9


def test_chunks_carry_the_served_name_and_no_progress() -> None:
    chunk_filter = ChunkFilter(plan(stream=True))
    progress = {"total": 9, "processed": 3}
    assert chunk_filter.change(delta(role="assistant", content=None) | {"prompt_progress": progress}) is None
    assert chunk_filter.change(USAGE) is None
    changed = chunk_filter.change(
        delta(content="hi") | {"prompt_progress": progress, "model": "/path/x.gguf"}
    )
    assert changed is not None
    assert changed["model"] == "base"
    assert "prompt_progress" not in changed


def test_a_stream_shows_usage_only_when_asked() -> None:
    assert ChunkFilter(plan(stream=True, stream_options={"include_usage": True})).change(USAGE) is not None


def test_without_parallel_calls_only_the_first_one_passes_and_the_end_says_tool_calls() -> None:
    chunk_filter = ChunkFilter(plan(stream=True, parallel_tool_calls=False))
    first = chunk_filter.change(delta(tool_calls=[{"index": 0, "function": {"name": "a"}}]))
    second = chunk_filter.change(delta(tool_calls=[{"index": 1, "function": {"name": "b"}}]))
    end = chunk_filter.change(delta(finish="length"))
    assert first is not None
    assert second is None
    assert end is not None
    assert end["choices"][0]["finish_reason"] == "tool_calls"


def test_a_cut_single_call_still_says_that_it_was_cut() -> None:
    chunk_filter = ChunkFilter(plan(stream=True, parallel_tool_calls=False))
    chunk_filter.change(delta(tool_calls=[{"index": 0, "function": {"name": "a"}}]))
    end = chunk_filter.change(delta(finish="length"))
    assert end is not None
    assert end["choices"][0]["finish_reason"] == "length"


def test_chunks_add_up_to_one_completion() -> None:
    builder = CompletionBuilder()
    for chunk in (
        delta(role="assistant", content=None),
        delta(tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": {"name": "a"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"x":'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": " 1}"}}]),
        delta(finish="tool_calls"),
        USAGE,
    ):
        builder.add(chunk)
    whole = builder.build()
    message = whole["choices"][0]["message"]
    assert whole["object"] == "chat.completion"
    assert whole["usage"] == {"total_tokens": 3}
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "a", "arguments": json.dumps({"x": 1})}}
    ]


def test_an_overlong_request_is_explained_with_both_numbers() -> None:
    error = explain_engine_error(
        400, {"type": "exceed_context_size_error", "message": "...", "n_prompt_tokens": 5000, "n_ctx": 4096}
    )
    assert error.code == "context_length_exceeded"
    assert "5000" in str(error)
    assert "4096" in str(error)
