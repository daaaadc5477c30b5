"""What the plans of several shapes have in common: a user asks, the assistant looks up, acts and reports."""

import re

from pipeline.synth.planner import Plan, slot_names, to_arguments
from pipeline.synth.replies import SMALL_TALK
from pipeline.synth.scene import RejectedError
from pipeline.task_api.store import Task

MAX_SHOWN = 5
_MAX_DRAWS = 40


def act(plan: Plan, task: Task, values: dict[str, str], fault: str = "") -> None:
    """Do what the cell's intent says with a task; it must succeed unless a fault is planned."""
    result = plan.call(
        (f"{plan.cell.intent}_task", {"task_id": task["id"], **to_arguments(values)}), fault=fault
    )[0]
    if not fault and "error" in result:
        raise RejectedError(result["error"])


def target(plan: Plan, tasks: list[Task]) -> Task:
    """Return a task that the cell's intent makes sense for."""
    return plan.rng.choice(tasks) if plan.cell.intent == "delete" else plan.open_task(tasks)


def new_values(plan: Plan, extra: list[str], suffix: str = "") -> dict[str, str]:
    """Draw a title of either form and more slots."""
    kind = plan.rng.choices(["title", "noun"], [6, 4])[0]
    return plan.values([kind, *extra], suffix=suffix)


def create(plan: Plan, extra: list[str], fault: str = "") -> dict[str, str]:
    """Let the user ask for a new task and the assistant make it; return what was told."""
    values = new_values(plan, extra)
    plan.user("create", values)
    result = plan.call(("create_task", to_arguments(values)), fault=fault)[0]
    if not fault and "error" in result:
        raise RejectedError(result["error"])
    return values


def _list_arguments(values: dict[str, str], status: str) -> dict[str, str]:
    """Return the arguments of ``list_tasks``, where a date is the end of a span."""
    arguments = to_arguments(values)
    if "due_date" in arguments:
        arguments["due_before"] = arguments.pop("due_date")
    return {**arguments, **({"status": status} if status else {})}


def list_some(plan: Plan, slots: list[str], fewest: int, most: int, name: str = "") -> list[Task]:
    """Let the user ask for a list of so many tasks, one of them called ``name``; return what is shown."""
    status = plan.rng.choice(["open", "completed"]) if "status" in slots else ""
    values = plan.values([slot for slot in slots if slot != "status"])
    arguments = _list_arguments(values, status)
    for _ in range(_MAX_DRAWS):
        titles = [name] if name else []
        if fewest and "search" in values and (title := plan.supply.title_holding(values["search"])):
            titles.append(title)
        plan.stock(plan.rng.randint(min(fewest, 1), most + (1 if arguments else 0)), titles)
        shown = plan.store.list_tasks(**arguments)["tasks"]
        if fewest <= len(shown) <= most and (not name or any(task["title"] == name for task in shown)):
            break
    else:
        raise RejectedError("the list does not show what it should")
    plan.user("list", values, **({"status": status} if status else {}))
    plan.call(("list_tasks", arguments))
    plan.say("report")
    return shown


def look_up(plan: Plan, copies: int) -> tuple[list[Task], dict[str, str]]:
    """Let the user name a task by its title and the assistant look for it; return the matches and what else was told."""
    slot = plan.rng.choice(["title", "noun"])
    title = name = plan.supply.value("titles" if slot == "title" else "nouns")
    if plan.cell.reference == "partial_title":
        title, name, slot = plan.supply.value("titles"), "", "noun"
        words = title.split()
        name = re.sub(r"^(?:the|an?|to|for|of|in|on|with|from|my|about) ", "", " ".join(words[-2:]))
        if len(words) < 4 or not re.fullmatch(r"[\w' -]{5,}", name):
            raise RejectedError("the title has no part to be named by")
    tasks = plan.stock(copies + plan.rng.randint(0, 4), [title] * copies)
    matches = [task for task in tasks if task["title"] == title]
    if copies == 1 and plan.cell.intent != "delete" and matches[0]["status"] == "completed":
        raise RejectedError("the task is completed")
    values = plan.values(slot_names(plan.cell), matches[0] if copies == 1 else None)
    plan.user("by_title", {slot: name, **values}, action=plan.cell.intent)
    found = plan.call(("list_tasks", {"search": name}))[0]
    if found["total"] != copies:
        raise RejectedError("the title also matches another task")
    return matches, values


def refer(plan: Plan) -> tuple[Task, dict[str, str]]:
    """Let the user name a task by its number and tell what the cell says."""
    tasks = plan.stock(plan.rng.randint(1, 6))
    task = target(plan, tasks)
    values = plan.values(slot_names(plan.cell), task)
    plan.user(plan.cell.intent, {"id": str(task["id"]), **values})
    return task, values


def talk(plan: Plan, reply: str) -> None:
    """Let the user say something that needs no call, and the assistant answer."""
    plan.user("talk", {}, reply=reply)
    plan.say("text", SMALL_TALK[reply])
