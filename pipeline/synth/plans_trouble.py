"""Plans in which something goes wrong, is missing, or nothing is to be done."""

from collections.abc import Callable

from pipeline.synth.plan_steps import (
    MAX_SHOWN,
    act,
    create,
    list_some,
    look_up,
    new_values,
    refer,
    talk,
    target,
)
from pipeline.synth.planner import Plan, slot_names, to_arguments
from pipeline.synth.replies import GAVE_UP, QUESTIONS
from pipeline.synth.scene import RejectedError

_GIVE_UP_RATIO = 0.3
_NO_PRIORITIES = (
    "P1", "P2", "level 4", "level 9", "purple", "red", "amber", "diamond", "extreme", "gigantic", "number 7", "A+",
)  # fmt: skip
_SMALL_TALK_WEIGHTS = {
    "offtopic": 8, "capability": 2, "acknowledge": 2, "greeting": 1.5, "thanks": 1.5, "goodbye": 1.5
}  # fmt: skip
_ANSWER_SLOTS = {"due": "due", "priority": "priority", "rename": "title", "description": "description"}


def _plan_missing(plan: Plan) -> None:
    plan.stock(plan.rng.randint(1, 6))
    number = plan.free_id()
    values = plan.values(slot_names(plan.cell))
    plan.user(plan.cell.intent, {"id": str(number), **values})
    plan.call((f"{plan.cell.intent}_task", {"task_id": number, **to_arguments(values)}))
    plan.say("report")


def _plan_done_already(plan: Plan) -> None:
    task = plan.rng.choice(plan.stock(plan.rng.randint(1, 6), status="completed"))
    plan.user("complete", {"id": str(task["id"])})
    plan.call(("complete_task", {"task_id": task["id"]}))
    plan.say("report")


def _plan_bad_date(plan: Plan) -> None:
    tasks = plan.stock(plan.rng.randint(1, 6))
    slots = slot_names(plan.cell)
    if plan.cell.intent == "create":
        values, known = new_values(plan, slots), {}
        plan.user("create", values)
    else:
        task = plan.open_task(tasks)
        values, known = plan.values(slots, task), {"task_id": task["id"]}
        plan.user("update", {"id": str(task["id"]), **values})
    tool = f"{plan.cell.intent}_task"
    plan.call((tool, {**known, **to_arguments(values)}))
    plan.say("report")
    if plan.cell.turns == "1":
        return
    better = plan.date(plan.rng.choice(["weekday", "relative", "calendar", "iso"]))
    plan.user("answers", {"due": better}, to="due")
    result = plan.call((tool, {**known, **to_arguments({**values, "due": better})}))[0]
    if "error" in result:
        raise RejectedError(result["error"])
    plan.say("report")


def _plan_timeout(plan: Plan) -> None:
    gives_up = plan.rng.random() < _GIVE_UP_RATIO
    if plan.cell.intent == "create":
        plan.stock(plan.rng.randint(0, 4))
        values, task = create(plan, slot_names(plan.cell), "timeout"), None
    else:
        task, values = refer(plan)
        act(plan, task, values, "timeout")
    again = "timeout" if gives_up else ""
    if task:
        act(plan, task, values, again)
    else:
        plan.call(("create_task", to_arguments(values)), fault=again)
    plan.say(*(("text", GAVE_UP) if gives_up else ("report",)))


def _plan_conflict(plan: Plan) -> None:
    task, values = refer(plan)
    act(plan, task, values, "conflict")
    plan.call(("list_tasks", {}))
    act(plan, task, values)
    plan.say("report")


def _plan_no_title(plan: Plan) -> None:
    look_up(plan, 0)
    plan.say("nothing_found")


def _plan_ambiguous(plan: Plan) -> None:
    matches, values = look_up(plan, 2)
    plan.say("several_found")
    if plan.cell.turns == "1":
        return
    task = target(plan, matches)
    plan.user("answers", {"id": str(task["id"])}, to="task_id")
    act(plan, task, values)
    plan.say("report")


# --- asking and talking ----------------------------------------------------------------------------------------------


def _plan_missing_title(plan: Plan) -> None:
    plan.stock(plan.rng.randint(0, 5))
    values = plan.values(slot_names(plan.cell))
    plan.user("ask", values, ask="title", action="create")
    plan.ask("title")
    _answer_title(plan, values)


def _answer_title(plan: Plan, values: dict[str, str]) -> None:
    if plan.cell.turns == "1":
        return
    answer = new_values(plan, [])
    plan.user("answers", answer, to="title")
    plan.call(("create_task", to_arguments({**values, **answer})))
    plan.say("report")


def _plan_missing_id(plan: Plan) -> None:
    task = target(plan, plan.stock(plan.rng.randint(1, 5)))
    values = plan.values(slot_names(plan.cell), task)
    plan.user("ask", values, ask="task_id", action=plan.cell.intent)
    plan.ask("task_id")
    if plan.cell.turns == "1":
        return
    plan.user("answers", {"id": str(task["id"])}, to="task_id")
    act(plan, task, values)
    plan.say("report")


def _plan_missing_change(plan: Plan) -> None:
    task = plan.open_task(plan.stock(plan.rng.randint(1, 5)))
    field = plan.rng.choice(list(_ANSWER_SLOTS))
    plan.user("ask", {"id": str(task["id"])}, ask="change", action="update", field=field)
    plan.ask("change", id=task["id"])
    if plan.cell.turns == "1":
        return
    slot = _ANSWER_SLOTS[field]
    values = plan.values([slot], task)
    plan.user("answers", values, to=field)
    act(plan, task, values)
    plan.say("report")


def _plan_invalid_priority(plan: Plan) -> None:
    tasks = plan.stock(plan.rng.randint(1, 5))
    wrong = plan.rng.choice(_NO_PRIORITIES)
    if plan.cell.intent == "create":
        values, known = new_values(plan, []), {}
        plan.user("create", {**values, "priority": wrong})
    else:
        task = plan.open_task(tasks)
        values, known = {}, {"task_id": task["id"]}
        plan.user("update", {"id": str(task["id"]), "priority": wrong})
    plan.say("text", QUESTIONS["priority"])
    if plan.cell.turns == "1":
        return
    answer = plan.values(["priority"], next((t for t in tasks if t["id"] == known.get("task_id")), None))
    plan.user("answers", answer, to="priority")
    plan.call((f"{plan.cell.intent}_task", {**known, **to_arguments({**values, **answer})}))
    plan.say("report")


def _plan_empty_title(plan: Plan) -> None:
    plan.stock(plan.rng.randint(0, 5))
    values = plan.values(slot_names(plan.cell))
    plan.user("create", {"title": "", **values})
    plan.say("text", QUESTIONS["empty_title"])
    _answer_title(plan, values)


def _plan_talk(plan: Plan) -> None:
    plan.stock(plan.rng.randint(0, 4))
    talk(plan, plan.rng.choices(list(_SMALL_TALK_WEIGHTS), list(_SMALL_TALK_WEIGHTS.values()))[0])


def _plan_talk_after_list(plan: Plan) -> None:
    list_some(plan, plan.rng.choice([[], ["status"], ["priority"]]), 0, MAX_SHOWN)
    talk(plan, plan.rng.choice(["thanks", "goodbye", "acknowledge"]))


TROUBLE_PLANS: dict[str, Callable[[Plan], None]] = {
    "missing": _plan_missing, "done_already": _plan_done_already, "bad_date": _plan_bad_date,
    "timeout": _plan_timeout, "conflict": _plan_conflict, "no_title": _plan_no_title, "ambiguous": _plan_ambiguous,
    "missing_title": _plan_missing_title, "missing_id": _plan_missing_id, "missing_change": _plan_missing_change,
    "invalid_priority": _plan_invalid_priority, "empty_title": _plan_empty_title, "talk": _plan_talk,
    "talk_after_list": _plan_talk_after_list,
}  # fmt: skip
