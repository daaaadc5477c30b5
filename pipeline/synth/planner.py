"""From a cell to a scenario: draws the values, decides the calls and executes them while it plans.

One function a shape. A plan whose calls do not come out as the cell says is thrown away and drawn again.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

from pipeline.core.messages import ToolCall
from pipeline.synth.cells import Cell
from pipeline.synth.due_words import DueWord
from pipeline.synth.formulations import PRIORITIES
from pipeline.synth.replies import QUESTIONS, Result
from pipeline.synth.scenario import Need, PlannedCall, Scenario, Step
from pipeline.synth.scene import RejectedError, Supply
from pipeline.synth.sides import Side
from pipeline.task_api.faults import FAULTS, execute
from pipeline.task_api.store import Task, TaskStore
from pipeline.task_api.tools import order_arguments

ARGUMENT = {
    "title": "title", "noun": "title", "due": "due_date", "priority": "priority", "description": "description",
    "search": "search", "status": "status",
}  # fmt: skip
"""Slot -> argument."""
_ANY_FORM = ("weekday", "relative", "calendar", "iso")
_MAX_TASKS = 6


class Plan:
    """One scenario in the making, over a store in which everything is executed at once."""

    def __init__(self, cell: Cell, side: Side, supply: Supply) -> None:
        self.cell, self.side, self.supply, self.rng = cell, side, supply, supply.rng
        self.today: date = side.draw_today(self.rng)
        self.initial_state: list[Task] = []
        self.steps: list[Step] = []
        self.store = TaskStore(clock=self.today)
        self.dates: dict[str, DueWord] = {}
        """Date expressions drawn so far, by their text."""

    # --- what is there -------------------------------------------------------------------------------------------

    def stock(self, count: int, titles: Sequence[str] = (), status: str = "") -> list[Task]:
        """Fill the store with tasks, those titles among them, and return all."""
        # In an empty store the first task gets number 1, which belongs to training.
        count = max(count, self.side.name != "train")
        names = [*titles, *(self.new_title() for _ in range(max(0, count - len(titles))))]
        self.rng.shuffle(names)
        self.initial_state = [
            self._task(number, name, status)
            for number, name in zip(self.side.draw_ids(self.rng, len(names)), names, strict=True)
        ]
        self.store.close()
        self.store = TaskStore.from_state(self.initial_state, self.today)
        return self.initial_state

    def new_title(self) -> str:
        """Return a title that is not in the store yet."""
        return self.supply.value(self.rng.choices(["titles", "nouns"], [7, 3])[0])

    def _task(self, number: int, title: str, status: str) -> Task:
        task: Task = {"id": number, "title": title}
        if self.rng.random() < 0.1:
            task["description"] = self.supply.value("descriptions")
        if self.rng.random() < 0.5:
            task["due_date"] = self.side.draw_day(self.rng, self.today).isoformat()
        task["priority"] = self.rng.choices(PRIORITIES, [2, 5, 3])[0]
        task["status"] = status or self.rng.choices(["open", "completed"], [3, 1])[0]
        return task

    def open_task(self, tasks: Sequence[Task]) -> Task:
        """Return one that is not completed.

        Raises:
            RejectedError: If there is none.
        """
        fitting = [task for task in tasks if task["status"] == "open"]
        if not fitting:
            raise RejectedError("no open task")
        return self.rng.choice(fitting)

    def free_id(self) -> int:
        """Return a number of this side that no task has."""
        taken = {task["id"] for task in self.initial_state}
        while (number := self.side.draw_ids(self.rng, 1)[0]) in taken:
            pass
        return number

    # --- what is said --------------------------------------------------------------------------------------------

    def values(self, slots: Sequence[str], avoid: Task | None = None, suffix: str = "") -> dict[str, str]:
        """Draw what the user tells: slot -> value, none of which the task has already."""
        return {slot + suffix: self._value(slot, avoid or {}) for slot in slots}

    def _value(self, slot: str, avoid: Task) -> str:
        if slot == "due":
            form = self.cell.date_form if self.cell.date_form != "any" else self.rng.choice(_ANY_FORM)
            return self.date(form if form != "none" else self.rng.choice(_ANY_FORM))
        if slot == "priority":
            return self.rng.choice([p for p in PRIORITIES if p != avoid.get("priority")])
        if slot == "status":
            return self.rng.choice(["open", "completed"])
        files = {"title": "titles", "noun": "nouns", "description": "descriptions", "search": "searches"}
        return self.supply.value(files[slot])

    def date(self, form: str) -> str:
        """Draw a date expression of this side."""
        word = self.side.draw_date(self.rng, self.today, form)
        self.dates[word.value] = word
        return word.value

    def user(self, bank: str, mentions: dict[str, str], context: str = "", **implied: str) -> None:
        """Let the user say these things."""
        prepositions: dict[str, list[str]] = {}
        for slot, value in mentions.items():
            if slot.startswith("due"):
                word = self.dates[value]
                prepositions[slot] = [*word.prepositions, *(["by"] if word.nominal else [])]
                prepositions[slot] = list(dict.fromkeys(prepositions[slot]))
        self.steps.append(
            Step(
                need=Need(
                    bank=bank, mentions=mentions, implied=implied, prepositions=prepositions, context=context
                )
            )
        )

    # --- what is done --------------------------------------------------------------------------------------------

    def call(self, *calls: tuple[str, dict[str, Any]], fault: str = "") -> list[Result]:
        """Let the assistant make these calls; a fault hits all of them."""
        planned: list[PlannedCall] = []
        results: list[Result] = []
        for name, given in calls:
            arguments = order_arguments(name, given)
            call = ToolCall(name=name, arguments=arguments, id="x")
            result = execute(self.store, call, {"x": fault} if fault in FAULTS else {})
            planned.append(
                PlannedCall(
                    name=name, arguments=arguments, fails=result.get("error", ""), is_fault=bool(fault)
                )
            )
            results.append(result)
        self.steps.append(Step(calls=planned))
        return results

    def say(self, reply: str, text: str = "") -> None:
        """Let the assistant answer."""
        self.steps.append(Step.model_validate({"reply": reply, "text": text}))

    def ask(self, topic: str, **facts: object) -> None:
        """Let the assistant ask for what is missing."""
        self.say("text", QUESTIONS[topic].format(**facts))

    def finish(self, number: str) -> Scenario:
        """Return the scenario."""
        self.store.close()
        cell = {key: str(value) for key, value in self.cell._asdict().items()}
        return Scenario(
            id=number,
            cell=cell,
            today=self.today.isoformat(),
            initial_state=self.initial_state,
            steps=self.steps,
        )


def to_arguments(values: dict[str, str], suffix: str = "") -> dict[str, Any]:
    """Return the arguments that slots carry (``suffix`` "2": those of a second call)."""
    return {
        ARGUMENT[slot.removesuffix("2")]: value
        for slot, value in values.items()
        if slot.endswith("2") == bool(suffix) and slot.removesuffix("2") in ARGUMENT
    }


def slot_names(cell: Cell) -> list[str]:
    """Return the slots of a cell under the names of the phrase banks."""
    return [
        "due" if name == "date" else name for name in cell.slots.split("+") if name not in {"none", "any"}
    ]
