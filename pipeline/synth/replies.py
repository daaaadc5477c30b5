"""What the assistant says: one fixed phrasing per situation, holding only what the call and its result hold.

Few phrasings, because a small model has to learn them all, and each is graded on its facts.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.core.messages import ToolCall

QUESTIONS = {
    "title": "What should the task be called?",
    "task_id": "Which task do you mean? Please give me its number.",
    "change": "What should I change about task {id}?",
    "priority": "A priority is low, medium or high. What priority should it have?",
    "empty_title": "A task needs a title. What should it be called?",
}
GAVE_UP = (
    "The Task API did not answer, also not the second time. Nothing was changed; please try again later."
)
SMALL_TALK = {
    "greeting": "Hello! What can I do for your task list?",
    "thanks": "You're welcome!",
    "goodbye": "Goodbye!",
    "capability": "I can create, change, complete, delete and list tasks. Just tell me what you need.",
    "acknowledge": "All right. Tell me when you need anything else.",
    "offtopic": "I can only help with your tasks.",
}
_OFFER = "Shall I list your tasks?"

Result = dict[str, Any]


def reply_to(calls: Sequence[ToolCall], results: Sequence[Result]) -> str:
    """Return the reply to the results of one round of calls."""
    return " ".join(_report(call, result) for call, result in zip(calls, results, strict=True))


def nothing_found(search: str) -> str:
    """Return the reply when a task named by its title is not in the store."""
    return f'There is no task matching "{search}". {_OFFER}'


def several_found(result: Result) -> str:
    """Return the question when more than one task matches a title."""
    tasks = "\n".join(list_item(task) for task in result["tasks"])
    return f"{result['total']} tasks match:\n{tasks}\nWhich one do you mean?"


def _report(call: ToolCall, result: Result) -> str:
    if "error" in result:
        return _report_error(call, result["error"])
    if "tasks" in result:
        return _report_list(call, result)
    if "deleted" in result:
        return f'Deleted task {result["deleted"]["id"]}: "{result["deleted"]["title"]}".'
    task = result["task"]
    if call.name == "complete_task":
        return f'Task {task["id"]} "{task["title"]}" is completed.'
    verb = "Created" if call.name == "create_task" else "Updated"
    return f"{verb} task {task['id']}: {_describe(task)}."


def _report_error(call: ToolCall, code: str) -> str:
    if code == "not_found":
        return f"There is no task {call.arguments['task_id']}. {_OFFER}"
    if code == "already_completed":
        return f"Task {call.arguments['task_id']} is already completed."
    if code == "past_due_date":
        return f'"{call.arguments["due_date"]}" is in the past. Which due date should I use?'
    if code == "invalid_due_date":
        return f'"{call.arguments["due_date"]}" is not a valid date. Which due date should I use?'
    raise ValueError(f"no reply for the error {code!r}")


def _report_list(call: ToolCall, result: Result) -> str:
    status = f"{call.arguments['status']} " if "status" in call.arguments else ""
    if not result["total"]:
        return f"No {status}tasks found."
    noun = "task" if result["total"] == 1 else "tasks"
    return "\n".join([f"{result['total']} {status}{noun}:", *(list_item(task) for task in result["tasks"])])


def list_item(task: dict[str, Any]) -> str:
    """Return one line of a list of tasks."""
    facts = [f"due {task['due_date']}"] if "due_date" in task else []
    facts += [task["priority"]] + (["completed"] if task["status"] == "completed" else [])
    return f'- {task["id"]}: "{task["title"]}" ({", ".join(facts)})'


def _describe(task: dict[str, Any]) -> str:
    return f'"{task["title"]}", {describe_task(task)}'


def describe_task(task: dict[str, Any]) -> str:
    """Return due date, priority and description of a task, those it has."""
    facts = [f"due {task['due_date']}"] if "due_date" in task else []
    facts.append(f"{task['priority']} priority")
    if "description" in task:
        facts.append(f'description "{task["description"]}"')
    return ", ".join(facts)
