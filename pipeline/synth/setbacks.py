"""Conversations in which something stands in the way: the Task API does not answer, or a priority that does not exist."""

from typing import Any

from pipeline.core.messages import Example
from pipeline.synth.formulations import Formulation
from pipeline.synth.replies import GAVE_UP, QUESTIONS
from pipeline.synth.scene import RejectedError, Scene
from pipeline.synth.single_turns import MAX_SHOWN, check_change, choose_target, list_arguments, stock_for_list
from pipeline.synth.wording import Wording, ordered
from pipeline.task_api.store import Task

_TIMED_OUT = {"create": 4, "update": 2, "complete": 1, "delete": 1, "list": 1}  # what is asked for, by weight
_GIVE_UP_RATIO = 0.3
_ANSWERED_RATIO = 0.4


def make_timeout(scene: Scene) -> Example:
    """Return a row whose first call times out: the assistant tries once more, and says so when that fails too."""
    intent = scene.rng.choices(list(_TIMED_OUT), list(_TIMED_OUT.values()))[0]
    line = scene.supply.formulation(intent)
    wording, call = _ask_for(scene, line, intent)
    scene.user(wording)
    scene.call(call, fault="timeout")
    if scene.rng.random() < _GIVE_UP_RATIO:
        scene.call(call, fault="timeout")
        scene.say(GAVE_UP)
        return scene.finish(line, kind="timeout", intent=intent, outcome="timeout")
    if "error" in scene.report(call)[0]:
        raise RejectedError("the second call is refused for another reason")
    return scene.finish(line, kind="timeout", intent=intent, outcome="ok")


def _ask_for(scene: Scene, line: Formulation, intent: str) -> tuple[Wording, tuple[str, dict[str, Any]]]:
    """Return what the user says and the call that it means."""
    if intent == "list":
        wording = scene.word(line)
        stock_for_list(scene, wording, 0, MAX_SHOWN)
        return wording, ("list_tasks", list_arguments(wording))
    tool = f"{intent}_task"
    if intent == "create":
        scene.make_tasks(scene.rng.randint(0, 4))
        wording = scene.word(line)
    else:
        target = choose_target(scene, scene.make_tasks(scene.rng.randint(1, 5)), intent)
        wording = scene.word(line, {"id": str(target["id"])}, avoid=target)
        check_change(scene, wording, target)
    return wording, (tool, ordered(tool, wording.arguments()))


def make_no_priority(scene: Scene) -> Example:
    """Return a row whose user names a priority that does not exist: the assistant asks; some users then choose one."""
    tasks = scene.make_tasks(scene.rng.randint(1, 5))
    action = scene.rng.choices(["create", "update"], [7, 3])[0]
    line = scene.supply.formulation(action, lambda line: "priority" in line.slots)
    target: Task = choose_target(scene, tasks, "update") if action == "update" else {}
    fixed = {"priority": scene.supply.value("no_priorities")}
    wording = scene.word(line, {**fixed, "id": str(target["id"])} if target else fixed, avoid=target)
    check_change(scene, wording, target)
    scene.user(wording)
    scene.say(QUESTIONS["priority"])
    if scene.rng.random() >= _ANSWERED_RATIO:
        return scene.finish(line, kind="no_priority", intent="ask_priority", outcome="asked")
    answer = scene.word(
        scene.supply.formulation("answers", lambda a: a.constants["to"] == "priority"), avoid=target
    )
    scene.user(answer)
    tool = f"{action}_task"
    if "error" in scene.report((tool, ordered(tool, wording.arguments(), answer.arguments())))[0]:
        raise RejectedError("the call is refused for another reason")
    return scene.finish(line, kind="no_priority", intent=action, outcome="ok")
