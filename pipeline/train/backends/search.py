# pyright: basic
"""Optuna behind a small interface: which values to try next, and whether a trial is worth going on with.

Values are choices out of lists; Optuna sees their places in the list, so that a list in order stays an order. The study
is a journal file: a search that was killed goes on with the same trials (docs/decisions/0061).
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

Space = dict[str, list[Any]]
Strategy = Literal["grid", "one_at_a_time", "sampled"]
_WARM_UP_TRIALS = 2  # nothing is pruned before two trials have shown what is usual
_WARM_UP_EVALUATIONS = 1  # the first evaluation lies in or just after the warm-up of the learning rate


@dataclass(frozen=True, slots=True)
class SearchTrial:
    """One trial."""

    number: int
    values: dict[str, Any]
    run_id: str | None
    """Its run, once there is one."""
    handle: optuna.Trial
    reported: frozenset[int] = frozenset()
    """Evaluations that an earlier process reported already."""

    def set_run(self, run_id: str) -> None:
        """Remember the run, so that a search that is resumed finds it."""
        self.handle.set_user_attr("run_id", run_id)

    def report(self, ordinal: int, loss: float) -> bool:
        """Report an evaluation; True when the trial should be pruned."""
        if math.isfinite(loss) and ordinal not in self.reported:
            self.handle.report(loss, ordinal)
        return self.handle.should_prune()


class Search:
    """A study in a journal file."""

    def __init__(
        self, journal: Path, space: Space, *, strategy: Strategy, num_trials: int, prune: bool, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.num_trials = space, num_trials
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name="tune",
            load_if_exists=True,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(_WARM_UP_TRIALS, _WARM_UP_EVALUATIONS)
            if prune
            else optuna.pruners.NopPruner(),
        )
        # A resumed search must not draw the same numbers again.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(self.study.trials), n_startup_trials=max(3, num_trials // 3)
        )
        if not self.study.trials:
            for places in first_places(space, strategy)[:num_trials]:
                self.study.enqueue_trial(places)

    def unfinished(self) -> list[SearchTrial]:
        """Return trials that an earlier process of this search had begun."""
        begun = self.study.get_trials(states=(TrialState.RUNNING,))
        # Optuna has no other way to go on with a trial.
        return [
            self._wrap(optuna.Trial(self.study, trial._trial_id), frozenset(trial.intermediate_values))
            for trial in begun
        ]

    def ask(self) -> SearchTrial | None:
        """Return the next trial, or None when there have been enough."""
        waiting = self.study.get_trials(states=(TrialState.WAITING,))
        if not waiting and len(self.study.trials) >= self.num_trials:
            return None
        return self._wrap(self.study.ask())

    def find_equal(self, trial: SearchTrial) -> tuple[str, float] | None:
        """Return run and loss of a complete trial with the same values, if there is one."""
        for run_id, values, loss, state in self.closed():
            if state == "complete" and values == trial.values and loss is not None:
                return run_id, loss
        return None

    def tell(self, trial: SearchTrial, loss: float | None, *, pruned: bool = False) -> None:
        """Close a trial: with its loss, as pruned, or as failed."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL if loss is None else TrialState.COMPLETE
        self.study.tell(trial.handle, loss if state is TrialState.COMPLETE else None, state=state)

    def closed(self) -> Iterable[tuple[str, dict[str, Any], float | None, str]]:
        """Yield run id, values, loss and state of each closed trial, in order."""
        for trial in self.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)):
            state = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}[
                trial.state
            ]
            loss = trial.value if trial.state is not TrialState.FAIL else None
            yield str(trial.user_attrs.get("run_id", "")), self._values(trial), loss, state

    def _wrap(self, trial: optuna.Trial, reported: frozenset[int] = frozenset()) -> SearchTrial:
        values = {
            name: choices[trial.suggest_int(name, 0, len(choices) - 1)]
            for name, choices in self.space.items()
        }
        return SearchTrial(trial.number, values, trial.user_attrs.get("run_id"), trial, reported)

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        return {name: self.space[name][place] for name, place in trial.params.items()}


def first_places(space: Space, strategy: Strategy) -> list[dict[str, int]]:
    """Return the places in the lists of the trials that are fixed from the start.

    A grid is all of them. One at a time is the first of every list, then every other value alone beside those firsts.
    A sampled search begins with the first of every list.
    """
    base = dict.fromkeys(space, 0)
    if strategy == "grid":
        return [
            dict(zip(space, places, strict=True))
            for places in itertools.product(*(range(len(v)) for v in space.values()))
        ]
    if strategy == "sampled":
        return [base]
    return [
        base,
        *({**base, name: place} for name, choices in space.items() for place in range(1, len(choices))),
    ]
