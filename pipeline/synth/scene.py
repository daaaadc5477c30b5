"""One conversation in the making: its clock, its task store, its turns, and the supply of words.

Every call is executed on a real :class:`TaskStore` the moment it is made, so a result in a row is never invented.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Self

from pipeline.core.messages import Example, Message, ToolCall
from pipeline.synth.due_words import draw_due, draw_impossible, draw_when
from pipeline.synth.formulations import PRIORITIES, Bank, Formulation
from pipeline.synth.replies import Result, reply_to
from pipeline.synth.wording import Wording, fill, roughen
from pipeline.task_api.faults import execute
from pipeline.task_api.store import Task, TaskStore
from pipeline.task_api.tools import check_arguments, system_prompt

_VALUE_FILE = {"title": "titles", "noun": "nouns", "description": "descriptions", "search": "searches"}
_MAX_DRAWS = 50


class RejectedError(Exception):
    """This draw makes no sound conversation; never leaves the generator, which draws again."""


class Supply:
    """Deals out formulations and values evenly: nothing is used twice before all that fit were used once."""

    def __init__(self, bank: Bank, rng: random.Random, days: Sequence[date]) -> None:
        self.bank, self.rng, self.days = bank, rng, days
        self.used: Counter[str] = Counter()
        """How often each formulation was dealt, by id."""
        self._decks: dict[str, list[str]] = {}

    def formulation(self, file: str, accept: Callable[[Formulation], bool] | None = None) -> Formulation:
        """Deal one of the least used formulations of a file.

        Raises:
            RejectedError: If none is accepted.
        """
        fitting = [line for line in self.bank.formulations[file] if accept is None or accept(line)]
        if not fitting:
            raise RejectedError(f"no formulation of {file} fits")
        least = min(self.used[line.id] for line in fitting)
        chosen = self.rng.choice([line for line in fitting if self.used[line.id] == least])
        self.used[chosen.id] += 1
        return chosen

    def value(self, file: str) -> str:
        """Deal a title, noun, description or search word."""
        if not self._decks.get(file):
            deck = list(self.bank.values[file])
            self.rng.shuffle(deck)
            self._decks[file] = deck
        return self._decks[file].pop()

    def title_holding(self, word: str) -> str | None:
        """Return a title that holds a word, if the bank has one."""
        words = word.casefold().split()
        titles = self.bank.values["titles"] + self.bank.values["nouns"]
        holding = [title for title in titles if all(part in title.casefold() for part in words)]
        return self.rng.choice(holding) if holding else None


class Scene:
    """A conversation between user and assistant over one store."""

    def __init__(self, supply: Supply) -> None:
        self.supply, self.rng = supply, supply.rng
        self.today = self.rng.choice(supply.days)
        self.store = TaskStore(clock=self.today)
        self.initial_state: list[Task] = []
        self.messages = [Message(role="system", content=system_prompt(self.today))]
        self.register: list[str] = []
        self.faults: dict[str, str] = {}
        self._calls = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def make_tasks(self, count: int, titles: Sequence[str] = (), status: str | None = None) -> list[Task]:
        """Fill the store before the first turn with ``count`` tasks, those titles among them; return them all.

        ``status`` gives all of them that status; without it about three in four are open.
        """
        names = [*titles, *(self.new_title() for _ in range(count - len(titles)))]
        self.rng.shuffle(names)
        number = self.rng.choices(
            [self.rng.randint(1, 9), self.rng.randint(10, 99), self.rng.randint(100, 400)], [5, 4, 1]
        )[0]
        self.initial_state = []
        for name in names:
            self.initial_state.append(self._make_task(number, name, status))
            number += self.rng.choice([1, 1, 1, 2, 3])
        self.store.close()
        self.store = TaskStore.from_state(self.initial_state, self.today)
        return self.initial_state

    def new_title(self) -> str:
        """Deal a title of either form."""
        return self.supply.value(self.rng.choices(["titles", "nouns"], [7, 3])[0])

    def free_id(self) -> int:
        """Return an id that no task has."""
        taken = {task["id"] for task in self.initial_state}
        while (number := self.rng.randint(1, max(taken, default=9) + 20)) in taken:
            pass
        return number

    def word(
        self,
        formulation: Formulation,
        fixed: Mapping[str, str] | None = None,
        avoid: Task | None = None,
        *,
        impossible: bool = False,
    ) -> Wording:
        """Fill a formulation with drawn values.

        Args:
            formulation: What to fill.
            fixed: Values of slots that are decided already.
            avoid: A task whose present priority and due date must not be drawn.
            impossible: Draw due dates that the store refuses.

        Raises:
            RejectedError: If a slot needs a value that only the caller can know.
        """
        values: dict[str, str | tuple[str, str]] = {}
        for slot in sorted(formulation.slots):
            if fixed and slot in fixed:
                values[slot] = fixed[slot]
            else:
                values[slot] = self._draw_other(formulation, slot, values, avoid or {}, impossible=impossible)
        wording = fill(formulation, values)
        roughen(wording, self.rng)
        return wording

    def user(self, wording: Wording) -> None:
        """Let the user say it."""
        self.messages.append(Message(role="user", content=wording.text))
        self.register += wording.register

    def call(self, *calls: tuple[str, dict[str, Any]], fault: str = "") -> list[Result]:
        """Let the assistant make these calls in one turn, execute them (or let them fail), and return their results."""
        made: list[ToolCall] = []
        for name, arguments in calls:
            self._calls += 1
            if problem := check_arguments(name, arguments):
                raise AssertionError(f"{problem} ({name} {arguments})")
            made.append(ToolCall(name=name, arguments=arguments, id=f"call_{self._calls}"))
        self.messages.append(Message(role="assistant", tool_calls=tuple(made)))
        if fault:
            self.faults |= {call.id or "": fault for call in made}
        results = [execute(self.store, call, self.faults) for call in made]
        for call, result in zip(made, results, strict=True):
            content = json.dumps(result, ensure_ascii=False)
            self.messages.append(Message(role="tool", content=content, tool_call_id=call.id))
        return results

    def report(self, *calls: tuple[str, dict[str, Any]]) -> list[Result]:
        """Let the assistant make these calls and tell the user what came of them."""
        results = self.call(*calls)
        self.say(reply_to([ToolCall(name=name, arguments=arguments) for name, arguments in calls], results))
        return results

    def say(self, text: str) -> None:
        """Let the assistant say it."""
        self.messages.append(Message(role="assistant", content=text))

    def finish(self, formulation: Formulation, **tags: str) -> Example:
        """Return the row, still without its id."""
        register = "+".join(dict.fromkeys(self.register)) or "plain"
        return Example(
            id="",
            messages=tuple(self.messages),
            group=formulation.id,
            tags={**tags, "formulation": formulation.text, "register": register},
            today=self.today.isoformat(),
            initial_state=tuple(self.initial_state),
            faults=self.faults,
        )

    def _make_task(self, number: int, title: str, status: str | None) -> Task:
        task: Task = {"id": number, "title": title}
        if self.rng.random() < 0.1:
            task["description"] = self.supply.value("descriptions")
        if self.rng.random() < 0.5:
            task["due_date"] = (self.today + timedelta(days=self.rng.randint(-5, 40))).isoformat()
        task["priority"] = self.rng.choices(PRIORITIES, [2, 5, 3])[0]
        task["status"] = status or self.rng.choices(["open", "completed"], [3, 1])[0]
        return task

    def _draw_other(
        self,
        formulation: Formulation,
        slot: str,
        drawn: Mapping[str, object],
        avoid: Task,
        *,
        impossible: bool,
    ) -> str | tuple[str, str]:
        for _ in range(_MAX_DRAWS):
            value = self._draw(formulation, slot.removesuffix("2"), impossible=impossible)
            is_present = isinstance(value, str) and value in {avoid.get("priority"), avoid.get("due_date")}
            if value not in drawn.values() and not is_present:
                return value
        raise RejectedError(f"no other value for {slot}")

    def _draw(self, formulation: Formulation, slot: str, *, impossible: bool) -> str | tuple[str, str]:
        is_list = formulation.file == "list"
        if slot == "due":
            return (
                draw_impossible(self.rng, self.today)
                if impossible
                else draw_due(self.rng, self.today, distant=is_list)
            )
        if slot == "when":
            if impossible:
                value = draw_impossible(self.rng, self.today)
                return ("" if value == "yesterday" else "on"), value
            return draw_when(self.rng, self.today, distant=is_list)
        if slot == "priority":
            return self.rng.choice(PRIORITIES)
        if slot not in _VALUE_FILE:
            raise RejectedError(f"slot {slot} of {formulation.id} has no value of its own")
        return self.supply.value(_VALUE_FILE[slot])
