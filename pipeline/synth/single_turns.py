"""Conversations of one user turn: one call, two calls at once, or no call."""

from pipeline.core.messages import Example
from pipeline.synth.replies import SMALL_TALK
from pipeline.synth.scene import RejectedError, Scene
from pipeline.synth.wording import Wording, ordered
from pipeline.task_api.due_dates import resolve_due_date
from pipeline.task_api.store import Task

_NOT_FOUND_RATIO = 0.045
_ALREADY_COMPLETED_RATIO = 0.08
_EMPTY_LIST_RATIO = 0.2
MAX_SHOWN = 5
"""Tasks in a list: enough to learn the form, and few tokens."""
_MAX_DRAWS = 30
_IMPOSSIBLE_DATE_RATIO = 0.07  # of the creates that name a date, so about 3 % of all creates
_AFTER_A_TURN_RATIO = 0.4


def make_create(scene: Scene) -> Example:
    """Return a row whose user asks for a new task."""
    scene.make_tasks(scene.rng.choices(range(7), [3, 1, 1, 1, 1, 1, 1])[0])
    line = scene.supply.formulation("create")
    impossible = bool(line.slots & {"due", "when"}) and scene.rng.random() < _IMPOSSIBLE_DATE_RATIO
    wording = scene.word(line, impossible=impossible)
    scene.user(wording)
    result = scene.report(("create_task", ordered("create_task", wording.arguments())))[0]
    if ("error" in result) != impossible:
        raise RejectedError("a date meant as good was refused, or the other way round")
    return scene.finish(line, kind="create", intent="create", outcome=result.get("error", "ok"))


def make_by_id(scene: Scene, action: str) -> Example:
    """Return a row whose user updates, completes or deletes a task by its number."""
    line = scene.supply.formulation(action)
    chance = scene.rng.random()
    already = action == "complete" and _NOT_FOUND_RATIO < chance < _NOT_FOUND_RATIO + _ALREADY_COMPLETED_RATIO
    tasks = scene.make_tasks(scene.rng.randint(1, 6), status="completed" if already else None)
    target: Task = {}
    if chance < _NOT_FOUND_RATIO:
        number = scene.free_id()
    else:
        target = scene.rng.choice(tasks) if already else choose_target(scene, tasks, action)
        number = target["id"]
    wording = scene.word(line, {"id": str(number)}, avoid=target)
    check_change(scene, wording, target)
    scene.user(wording)
    tool = f"{action}_task"
    result = scene.report((tool, ordered(tool, wording.arguments())))[0]
    return scene.finish(line, kind=action, intent=action, outcome=result.get("error", "ok"))


def make_list(scene: Scene) -> Example:
    """Return a row whose user asks for tasks."""
    line = scene.supply.formulation("list")
    wording = scene.word(line)
    stock_for_list(scene, wording, int(scene.rng.random() > _EMPTY_LIST_RATIO), MAX_SHOWN)
    scene.user(wording)
    result = scene.report(("list_tasks", list_arguments(wording)))[0]
    return scene.finish(line, kind="list", intent="list", outcome="ok" if result["total"] else "none_found")


def stock_for_list(scene: Scene, wording: Wording, fewest: int, most: int, name: str = "") -> list[Task]:
    """Make a store in which the list asked for shows ``fewest`` to ``most`` tasks, one called ``name``; return them.

    Raises:
        RejectedError: If no such store comes up.
    """
    arguments = list_arguments(wording)
    for _ in range(_MAX_DRAWS):
        titles = [name] if name else []
        if fewest and not name and (title := scene.supply.title_holding(arguments.get("search", " "))):
            titles.append(title)
        count = scene.rng.randint(fewest, most + (2 if arguments else 0))
        scene.make_tasks(max(count, len(titles)), titles)
        shown = scene.store.list_tasks(**arguments)["tasks"]
        if fewest <= len(shown) <= most and (not name or any(task["title"] == name for task in shown)):
            return shown
    raise RejectedError("the list does not show what it should")


def make_multi(scene: Scene) -> Example:
    """Return a row whose user asks for two things at once."""
    line = scene.supply.formulation("multi")
    actions = line.constants["calls"].split("+")
    tasks = scene.make_tasks(scene.rng.randint(2, 6), status="open")
    first, second = (str(task["id"]) for task in scene.rng.sample(tasks, 2))
    if "create" not in actions and scene.rng.random() < _NOT_FOUND_RATIO:
        second = str(scene.free_id())
    wording = scene.word(line, {"id": first, "id2": second})
    own = [wording.arguments(), wording.arguments("2")]
    if shared := line.constants.get("shared"):
        key = "due_date" if shared == "due" else shared
        own[1][key] = own[0][key]
    scene.user(wording)
    calls = [(f"{action}_task", ordered(f"{action}_task", own[i])) for i, action in enumerate(actions)]
    results = scene.report(*calls)
    outcome = next((result["error"] for result in results if "error" in result), "ok")
    return scene.finish(line, kind="multi", intent=line.constants["calls"], outcome=outcome)


def make_talk(scene: Scene) -> Example:
    """Return a row whose user asks for nothing that a tool can do."""
    scene.make_tasks(scene.rng.randint(0, 4))
    line = scene.supply.formulation("talk")
    reply = line.constants["reply"]
    if reply in {"thanks", "goodbye", "acknowledge"} and scene.rng.random() < _AFTER_A_TURN_RATIO:
        earlier = scene.word(scene.supply.formulation("list"))
        scene.user(earlier)
        scene.report(("list_tasks", list_arguments(earlier)))
    scene.user(scene.word(line))
    scene.say(SMALL_TALK[reply])
    return scene.finish(line, kind="talk", intent=reply, outcome="no_call")


def list_arguments(wording: Wording) -> dict[str, str]:
    """Return the arguments of ``list_tasks``, where a date is the end of a span."""
    given = wording.arguments()
    if "due_date" in given:
        given["due_before"] = given.pop("due_date")
    return ordered("list_tasks", given)


def choose_target(scene: Scene, tasks: list[Task], action: str) -> Task:
    """Return a task that the action makes sense for: an open one, or any to delete.

    Raises:
        RejectedError: If there is none.
    """
    fitting = [task for task in tasks if action == "delete" or task["status"] == "open"]
    if not fitting:
        raise RejectedError(f"no open task to {action}")
    return scene.rng.choice(fitting)


def check_change(scene: Scene, wording: Wording, task: Task) -> None:
    """Check that an update asks for something new.

    Raises:
        RejectedError: If the words name the priority or the due date that the task has already.
    """
    wanted = wording.arguments()
    if "due_date" in wanted:
        wanted["due_date"] = resolve_due_date(wanted["due_date"], scene.today).isoformat()
    if any(wanted.get(key, "") == task.get(key) for key in ("priority", "due_date")):
        raise RejectedError("the task has that priority or due date already")
