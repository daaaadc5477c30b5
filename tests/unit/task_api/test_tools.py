from datetime import date
from typing import Any

import jsonschema
import pytest

from pipeline.task_api.tools import check_arguments, load_tools, order_arguments, system_prompt


def test_there_are_five_tools_in_openai_form() -> None:
    tools = load_tools()
    names = [tool["function"]["name"] for tool in tools]
    assert names == ["create_task", "update_task", "complete_task", "delete_task", "list_tasks"]
    assert all(tool["function"]["parameters"]["additionalProperties"] is False for tool in tools)


def test_the_system_prompt_is_the_documented_one() -> None:
    assert system_prompt(date(2026, 3, 11)) == "You are a task assistant. Today is 2026-03-11."


def test_arguments_are_ordered_required_first_then_as_declared() -> None:
    given = {"priority": "high", "colour": "red", "due_date": "Friday", "task_id": 3}
    assert list(order_arguments("update_task", given).items()) == [
        ("task_id", 3), ("due_date", "Friday"), ("priority", "high"), ("colour", "red"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("create_task", {"title": "x", "due_date": "Friday"}, None),
        ("list_tasks", {}, None),
        ("complete_task", {"task_id": 7}, None),
        ("nope", {}, "no tool 'nope'"),
        ("create_task", {"titel": "x"}, "no argument 'titel'"),
        ("create_task", {}, "needs the argument 'title'"),
        ("create_task", {"title": 5}, "title must be a text"),
        ("create_task", {"title": ""}, "title must not be empty"),
        ("create_task", {"title": "x", "priority": "urgent"}, "one of low, medium, high"),
        ("complete_task", {"task_id": "7"}, "task_id must be a whole number"),
        ("complete_task", {"task_id": 7.5}, "task_id must be a whole number"),
        ("complete_task", {"task_id": True}, "task_id must be a whole number"),
        ("complete_task", {"task_id": 0}, "at least 1"),
        ("update_task", {"task_id": 7, "title": None}, "title must be a text"),
    ],
)
def test_the_check_says_what_is_wrong_in_plain_words(
    name: str, arguments: dict[str, Any], words: str | None
) -> None:
    problem = check_arguments(name, arguments)
    assert problem is None if words is None else words in (problem or "")


def test_the_check_agrees_with_a_full_json_schema_validator() -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in load_tools()}
    values: list[Any] = ["", "x", "high", 0, 1, 7, 7.0, 7.5, True, None, [], {}, -3]
    for name, schema in schemas.items():
        validator: Any = jsonschema.Draft202012Validator(schema)
        for key in [*schema["properties"], "other"]:
            for value in values:
                base = {required: 1 if required == "task_id" else "x" for required in schema["required"]}
                arguments = {**base, key: value}
                valid = validator.is_valid(arguments)
                assert (check_arguments(name, arguments) is None) == valid, (name, arguments)
