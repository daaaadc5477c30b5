"""The conversations the gate renders, tokenises and answers: each one is there for a kind of mistake."""

from typing import Any, NamedTuple

from pipeline.core.messages import Message, ToolCall

GATE_DATE = "2026-03-11"
"""The simulated today of every conversation."""


class Case(NamedTuple):
    """One conversation that waits for the assistant's turn."""

    id: str
    messages: list[dict[str, Any]]
    """OpenAI wire form."""
    with_tools: bool = False
    is_answered: bool = True
    """Also compare greedy replies on it; the long one is only rendered and tokenised."""


def build_corpus(system_prompt: str) -> list[Case]:
    """Return the conversations; ``system_prompt`` heads those with tools."""
    create = ToolCall(
        id="call_1", name="create_task", arguments={"title": "Call Priya", "due_date": "Friday"}
    )
    listing = ToolCall(id="call_2", name="list_tasks", arguments={"status": "open"})
    quotes = 'Title: "The \\"final\\" plan" — it\'s {"a": [1, 2.50]} & <b>50%</b>\ttabbed'
    history = [_user("Call Priya on Friday"), _calls(create), _result("call_1", '{"task": {"id": 1}}')]
    pair = [_user("Add it and show me all"), _calls(create, listing)]
    results = [_result("call_1", '{"task": {"id": 1}}'), _result("call_2", '{"tasks": [], "total": 0}')]
    return [
        Case("plain", [_user("What is the capital of France?")]),
        Case("system", [_system("Answer in one word."), _user("What is 2+2?")]),
        Case("turns", [_user("Hi!"), _says("Hello. How can I help?"), _user("Name three fruits.")]),
        Case("unicode", [_user("Übersetze: naïve café 🚀 你好 — 2026年3月11日, 3,14 €")]),
        Case("quotes", [_user(quotes)]),
        Case("whitespace", [_user("  two  spaces\n\n\nthree lines\n\tand a tab 1234567 ")]),
        Case("tools", [_system(system_prompt), _user("Create a task to call Priya on Friday.")], True),
        Case("tools_alone", [_user("Which tasks are still open?")], True),
        Case("tools_talk", [_system(system_prompt), _user("Thanks, that was quick!")], True),
        Case("result", [_system(system_prompt), *history], True),
        Case("results", [_system(system_prompt), *pair, *results], True),
        Case(
            "after_result", [_system(system_prompt), *history, _says("Done ✓"), _user("Delete task 1.")], True
        ),
        Case("long", [_user("The quick brown fox, number 12, jumps. " * 120)], is_answered=False),
    ]


def build_questions(system_prompt: str, *, with_tools: bool) -> list[list[dict[str, Any]]]:
    """Return short questions whose answers must end by themselves; with tools the first asks for a new task."""
    if not with_tools:
        return [[_user("What is the capital of France?")], [_user("What is 2+2?")]]
    texts = (
        "Create a task to call Priya on Friday.",
        "Which tasks are still open?",
        "Thanks, that was quick!",
    )
    return [[_system(system_prompt), _user(text)] for text in texts]


def _system(text: str) -> dict[str, Any]:
    return Message(role="system", content=text).to_openai()


def _user(text: str) -> dict[str, Any]:
    return Message(role="user", content=text).to_openai()


def _says(text: str) -> dict[str, Any]:
    return Message(role="assistant", content=text).to_openai()


def _calls(*calls: ToolCall) -> dict[str, Any]:
    return Message(role="assistant", tool_calls=calls).to_openai()


def _result(call_id: str, text: str) -> dict[str, Any]:
    return Message(role="tool", content=text, tool_call_id=call_id).to_openai()
