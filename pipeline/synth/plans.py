"""One plan for each shape of :mod:`pipeline.synth.cells`: what is in the store, what is said, what is called."""

from collections.abc import Callable

from pipeline.synth.cells import Cell
from pipeline.synth.plan_steps import MAX_SHOWN, act, create, list_some, look_up, refer, talk, target
from pipeline.synth.planner import Plan, slot_names, to_arguments
from pipeline.synth.plans_trouble import TROUBLE_PLANS
from pipeline.synth.scenario import Scenario
from pipeline.synth.scene import RejectedError, Supply
from pipeline.synth.sides import Side


def make_scenario(cell: Cell, side: Side, supply: Supply, number: str) -> Scenario:
    """Return one scenario of a cell.

    Raises:
        RejectedError: If this draw does not come out as the cell says.
    """
    plan = Plan(cell, side, supply)
    try:
        _PLANS[cell.shape](plan)
        return plan.finish(number)
    finally:
        plan.store.close()


def _plan_create(plan: Plan) -> None:
    plan.stock(plan.rng.choices(range(6), [3, 1, 1, 1, 1, 1])[0])
    create(plan, slot_names(plan.cell))
    plan.say("report")


def _plan_by_id(plan: Plan) -> None:
    task, values = refer(plan)
    act(plan, task, values)
    plan.say("report")


def _plan_lookup(plan: Plan) -> None:
    matches, values = look_up(plan, 1)
    act(plan, matches[0], values)
    plan.say("report")


def _plan_list(plan: Plan) -> None:
    nothing = plan.cell.outcome == "none_found"
    list_some(plan, slot_names(plan.cell), *((0, 0) if nothing else (1, MAX_SHOWN)))


def _plan_parallel(plan: Plan) -> None:
    actions = plan.cell.intent.split("+")
    tasks = plan.stock(plan.rng.randint(2, 6), status="open")
    first, second = (str(task["id"]) for task in plan.rng.sample(tasks, 2))
    if plan.cell.outcome == "not_found":
        second = str(plan.free_id())
    lines = [
        line for line in plan.supply.bank.formulations["multi"] if line.constants["calls"] == plan.cell.intent
    ]
    if not lines:
        raise RejectedError(f"nothing words {plan.cell.intent}")
    least = min(plan.supply.used[line.id] for line in lines)
    # The bank says which slots two requests in one sentence can have; the words are chosen later.
    line = plan.rng.choice([line for line in lines if plan.supply.used[line.id] == least])
    implied = {key: value for key, value in line.constants.items() if key != "priority"}
    slots = sorted({*line.slots, *line.constants.keys() & {"priority"}})
    values: dict[str, str] = {}
    for slot in ("due" if name == "when" else "due2" if name == "when2" else name for name in slots):
        if slot.startswith("id"):
            values[slot] = second if slot == "id2" else first
        else:
            values |= plan.values([slot.removesuffix("2")], suffix="2" if slot.endswith("2") else "")
    if len(set(values.values())) < len(values):
        raise RejectedError("two slots have one value")
    own = [to_arguments(values), to_arguments(values, "2")]
    if shared := line.constants.get("shared"):
        key = "due_date" if shared == "due" else shared
        own[1][key] = own[0][key]
    for i, number in enumerate((values.get("id"), values.get("id2"))):
        own[i] |= {"task_id": int(number)} if number else {}
    plan.user("multi", values, **implied)
    results = plan.call(*((f"{action}_task", own[i]) for i, action in enumerate(actions)))
    if any("error" in result for result in results) != (plan.cell.outcome == "not_found"):
        raise RejectedError("not the outcome that was planned")
    plan.say("report")


# --- several turns ---------------------------------------------------------------------------------------------------


def _plan_followup(plan: Plan) -> None:
    slots = slot_names(plan.cell)
    if plan.rng.random() < 0.35:
        task, context = list_some(plan, ["search"], 1, 1)[0], "listed"
    else:
        plan.stock(plan.rng.randint(0, 4))
        free = [slot for slot in ("due", "priority", "description") if slot not in slots or slot == "due"]
        extra = [slot for slot in free if plan.rng.random() < 0.3]
        create(plan, extra)
        plan.say("report")
        task, context = plan.store.snapshot()[-1], "created_with_date" if "due" in extra else "created"
    if plan.cell.intent != "delete" and task["status"] == "completed":
        raise RejectedError("the task is completed")
    values = plan.values(slots, task)
    plan.user("followup", values, context, action=plan.cell.intent)
    act(plan, task, values)
    plan.say("report")


def _plan_correction(plan: Plan) -> None:
    slots = slot_names(plan.cell)
    plan.stock(plan.rng.randint(0, 4))
    create(plan, [slot for slot in slots if slot != "title"])
    plan.say("report")
    task = plan.store.snapshot()[-1]
    values = plan.values(slots, task)
    plan.user("followup", values, "correction", action="update")
    act(plan, task, values)
    plan.say("report")


def _plan_from_list(plan: Plan) -> None:
    slot = plan.rng.choice(["title", "noun"])
    name = plan.supply.value("titles" if slot == "title" else "nouns")
    shown = list_some(plan, plan.rng.choice([[], [], ["status"], ["priority"], ["due"]]), 2, MAX_SHOWN, name)
    task = target(plan, [task for task in shown if task["title"] == name])
    values = plan.values(slot_names(plan.cell), task)
    plan.user("by_title", {slot: name, **values}, action=plan.cell.intent)
    act(plan, task, values)
    plan.say("report")


def _plan_long(plan: Plan) -> None:
    tasks = plan.stock(plan.rng.randint(1, 3))
    create(plan, ["priority"] if plan.rng.random() < 0.3 and "priority" not in plan.cell.slots else [])
    plan.say("report")
    by_number = plan.cell.reference == "id"
    task = target(plan, tasks) if by_number else plan.store.snapshot()[-1]
    values = plan.values(slot_names(plan.cell), task)
    if by_number:
        plan.user(plan.cell.intent, {"id": str(task["id"]), **values})
    else:
        plan.user("followup", values, "created", action=plan.cell.intent)
    act(plan, task, values)
    plan.say("report")
    plan.user("list", {})
    plan.call(("list_tasks", {}))
    plan.say("report")
    talk(plan, plan.rng.choice(["thanks", "goodbye", "acknowledge"]))


_PLANS: dict[str, Callable[[Plan], None]] = {
    "create": _plan_create, "change": _plan_by_id, "close": _plan_by_id, "lookup": _plan_lookup, "list": _plan_list,
    "followup": _plan_followup, "correction": _plan_correction, "from_list": _plan_from_list, "long": _plan_long,
    "list_empty": _plan_list, "parallel": _plan_parallel, "parallel_missing": _plan_parallel, **TROUBLE_PLANS,
}  # fmt: skip
