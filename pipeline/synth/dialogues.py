"""Conversations of several steps: a task named by its title, a second turn about the same task, a question back."""

import re

from pipeline.core.messages import Example
from pipeline.synth.formulations import Formulation
from pipeline.synth.replies import QUESTIONS, nothing_found, several_found
from pipeline.synth.scene import RejectedError, Scene
from pipeline.synth.single_turns import MAX_SHOWN, check_change, choose_target, list_arguments, stock_for_list
from pipeline.synth.wording import Wording, ordered
from pipeline.task_api.store import Task

_NONE_FOUND_RATIO = 0.12
_SEVERAL_FOUND_RATIO = 0.06
_NAMED_FROM_LIST_RATIO = 0.25
_ANSWERED_RATIO = 0.55
_LIST_FIRST_RATIO = 0.35

# Words that fit only a task which was created a moment ago, or only one that was shown in a list.
AFTER_CREATE = re.compile(
    r"add|creat|just (made|had)|undo|again|forg|wrong|mean|\bmeant|misspoke|mistake|sorry|typo|oops|should have said"
    r"|spoke|scratch|joking|changed my mind|new one|came out|^no\b|no wait|actually|wording|on that list"
)
AFTER_LIST = re.compile(r"show")
# Words about a date that is there already, or that is missing still.
DATE_WAS_GIVEN = re.compile(
    r"wrong|meant|instead|mixed|not what|second thought|moved|postpone|push|bring|scratch|reschedule|more time|mistake"
    r"|^no|no wait|rather|change|better|move|hang on|actually|two corrections|two changes|hm"
)
DATE_WAS_MISSING = re.compile(r"forg|give it|put .* on it|add that|deadline on that|oh and|and it|should add")

_NO_ANSWER = re.compile(r"urgent|asap|rush|important|\btwo\b|\bfew\b|critical|same as usual|more work")
_DELETES = re.compile(r"delet|remove|get rid|drop|erase|scratch|trash|kill")
_COMPLETES = re.compile(r"done|finish|complet|\btick|check off|check it off|check the|mark|close")
_ANY_CHANGE = "description|rename|priority|due"
_CHANGED_FIELD = (
    ("description", re.compile(r"note|descri")),
    ("rename", re.compile(r"rename|title|wording|call task|reword|rephrase")),
    ("priority", re.compile(r"priorit")),
    ("due", re.compile(r"due|deadline|schedul|postpone|push|delay|another day|moved")),
)


def make_by_title(scene: Scene) -> Example:
    """Return a row whose user names a task by its title, so that the assistant must look up the number first."""
    line = scene.supply.formulation("by_title")
    slot = "noun" if "noun" in line.slots else "title"
    name = scene.supply.value("nouns" if slot == "noun" else "titles")
    chance = scene.rng.random()
    copies = (
        0 if chance < _NONE_FOUND_RATIO else 2 if chance < _NONE_FOUND_RATIO + _SEVERAL_FOUND_RATIO else 1
    )
    others = scene.rng.randint(0, 4)
    tasks = scene.make_tasks(copies + others, [name] * copies)
    action = line.constants["action"]
    target = (
        choose_target(scene, [task for task in tasks if task["title"] == name], action) if copies == 1 else {}
    )
    wording = scene.word(line, {slot: name}, avoid=target)
    search = wording.value(slot) or ""
    scene.user(wording)
    found = scene.call(("list_tasks", {"search": search}))[0]
    if found["total"] != copies:
        raise RejectedError("the title also matches another task")
    if copies == 1:
        _act(scene, wording, action, target)
    else:
        scene.say(several_found(found) if copies else nothing_found(search))
    outcome = ("none_found", "ok", "several_found")[copies]
    return scene.finish(line, kind="by_title", intent=action, outcome=outcome)


def make_followup(scene: Scene) -> Example:
    """Return a row whose second turn is about the task of the first."""
    if scene.rng.random() < _NAMED_FROM_LIST_RATIO:
        return _make_named_from_list(scene)
    line = scene.supply.formulation("followup")
    words = line.text.lower()
    list_fits = not AFTER_CREATE.search(words)
    if AFTER_LIST.search(words) or (list_fits and scene.rng.random() < _LIST_FIRST_RATIO):
        task = _list_tasks(scene, 1, 1)[0]
    else:
        task = _create_first(scene, line)
    action = line.constants["action"]
    if action != "delete" and task["status"] == "completed":
        raise RejectedError("the task is completed")
    wording = scene.word(line, avoid=task)
    scene.user(wording)
    _act(scene, wording, action, task)
    return scene.finish(line, kind="followup", intent=action, outcome="ok")


def make_ask(scene: Scene) -> Example:
    """Return a row whose user leaves out what the call needs; in about half of them the user then tells it."""
    tasks = scene.make_tasks(scene.rng.randint(1, 5))
    line = scene.supply.formulation("ask")
    missing = line.constants["ask"]
    target = choose_target(scene, tasks, "update")
    wording = scene.word(line, {"id": str(target["id"])}, avoid=target)
    check_change(scene, wording, target)
    scene.user(wording)
    scene.say(QUESTIONS[missing].format(id=target["id"]))
    wanted, action = find_answer(line)
    answered = bool(action) and scene.rng.random() < _ANSWERED_RATIO
    if answered:
        taken = {"when" if slot == "due" else slot for slot in line.slots}
        answer = scene.word(
            scene.supply.formulation(
                "answers", lambda a: a.constants["to"] in wanted.split("|") and not _clashes(a, taken)
            ),
            {"id": str(target["id"])},
            avoid=target,
        )
        check_change(scene, answer, target if action == "update" else {})
        scene.user(answer)
        tool = f"{action}_task"
        scene.report((tool, ordered(tool, wording.arguments(), answer.arguments())))
    return scene.finish(
        line,
        kind="ask",
        intent=action if answered else f"ask_{missing}",
        outcome="ok" if answered else "asked",
    )


def _act(scene: Scene, wording: Wording, action: str, task: Task) -> None:
    """Let the assistant do what the words ask for with a task whose number it knows by now."""
    arguments = wording.arguments()
    if wording.formulation.file == "by_title":
        arguments.pop("title")
    check_change(scene, wording, task)
    tool = f"{action}_task"
    result = scene.report((tool, ordered(tool, {"task_id": task["id"]}, arguments)))[0]
    if "error" in result:
        raise RejectedError(result["error"])


def _make_named_from_list(scene: Scene) -> Example:
    """Return a row whose user names a task of the list just shown: its number is known, nothing is looked up."""
    line = scene.supply.formulation("by_title")
    slot = "noun" if "noun" in line.slots else "title"
    name = scene.supply.value("nouns" if slot == "noun" else "titles")
    shown = _list_tasks(scene, 2, MAX_SHOWN, name)
    action = line.constants["action"]
    target = choose_target(scene, [task for task in shown if task["title"] == name], action)
    wording = scene.word(line, {slot: name}, avoid=target)
    scene.user(wording)
    _act(scene, wording, action, target)
    return scene.finish(line, kind="followup", intent=action, outcome="ok")


def _list_tasks(scene: Scene, fewest: int, most: int, name: str = "") -> list[Task]:
    """Play a first turn that lists between ``fewest`` and ``most`` tasks, one of them called ``name``."""
    wording = scene.word(
        scene.supply.formulation("list", lambda line: not name or "search" not in line.slots)
    )
    shown = stock_for_list(scene, wording, fewest, most, name)
    scene.user(wording)
    scene.report(("list_tasks", list_arguments(wording)))
    return shown


def _create_first(scene: Scene, line: Formulation) -> Task:
    """Play a first turn that creates a task which the second turn can be about."""
    words = line.text.lower()
    names_date = bool(line.slots & {"due", "when"})

    def fits(first: Formulation) -> bool:
        has_date = bool(first.slots & {"due", "when"})
        if "description" in line.slots and "description" in first.slots:
            return False
        if "priority" in (line.slots | set(line.constants)) and "priority" in first.constants:
            return False
        if names_date and DATE_WAS_MISSING.search(words):
            return not has_date
        if names_date and DATE_WAS_GIVEN.search(words):
            return has_date
        return True

    scene.make_tasks(scene.rng.randint(0, 4))
    wording = scene.word(scene.supply.formulation("create", fits))
    scene.user(wording)
    result = scene.report(("create_task", ordered("create_task", wording.arguments())))[0]
    if "error" in result:
        raise RejectedError(result["error"])
    return result["task"]


def find_answer(line: Formulation) -> tuple[str, str]:
    """Return what the user will answer and the action that follows; no action when the words leave it open."""
    words = line.text.lower()
    missing = line.constants["ask"]
    if missing == "title":
        return "title", "" if _NO_ANSWER.search(words) else "create"
    if missing == "change":
        return next(
            (name for name, pattern in _CHANGED_FIELD if pattern.search(words)), _ANY_CHANGE
        ), "update"
    if line.slots:
        return "task_id", "update"
    deletes, completes = bool(_DELETES.search(words)), bool(_COMPLETES.search(words))
    if deletes == completes:
        return "task_id", ""
    return "task_id", "delete" if deletes else "complete"


def _clashes(answer: Formulation, taken: set[str]) -> bool:
    return bool({"when" if slot == "due" else slot for slot in answer.slots} & (taken - {"id"}))
