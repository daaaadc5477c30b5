"""Tipping points: which facts, changed alone, would turn the verdict. Found by deciding again, never written by hand.

Every fact is tried in both directions. Numbers are stepped away from their value until the verdict turns and then
narrowed down to the nearest value that turns it. How far a change is: the natural logarithm of the ratio for numbers,
four times the difference for shares, 1 for anything else; so a number changed 2.7-fold counts like a yes changed to no.
When fewer than two facts turn it alone, the next answer is a small set of facts that turn it together.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from pydantic import JsonValue, ValidationError

from pipeline.core.operation import Part
from pipeline.decide.facts import Behaviour, DecideRecommendRequest
from pipeline.decide.verdict import Approach, Verdict, decide

NUM_FLIPS = 2
_STEPS = (1.5, 2, 3, 5, 10, 30, 100, 1000, 10_000)
_MAX_HALVINGS = 60
_GATE_GAIN = 100  # points cannot make up for a closed gate
_SHARES = tuple(step / 20 for step in range(21))
_SWITCHES = ("needs_reasoning", "is_measurable", "can_generate_examples")
_SHARE_FACTS = ("prompt_success",)  # the target is a decision, not a fact
_NUMBERS = (
    "requests_per_day",
    "knowledge_change_days",
    "num_examples",
    "num_preference_pairs",
    "stable_months",
    "hours_available",
    "max_latency_ms",
    "prompted_latency_ms",
    "costs.api_usd_per_request",
    "costs.input_tokens",
    "costs.output_tokens",
    "costs.serving_usd_per_month",
    "costs.rented_gpu.usd_per_hour",
    "costs.own_hardware.purchase_usd",
    "costs.training_usd",
    "costs.hourly_usd",
)
# Values to try for facts that are not known or do not apply.
_IF_NONE: dict[str, tuple[float, ...]] = {
    "knowledge_change_days": (1, 365),
    "prompt_success": (0.0, 1.0),
    "hours_available": (10, 100),
    "max_latency_ms": (50, 1000),
    "costs.hourly_usd": (50,),
}


class FactChange(Part):
    """One fact, changed."""

    fact: str
    """Field of the request, with dots into nested ones."""
    now: JsonValue
    """Its value."""
    changed: JsonValue
    """The value that turns the verdict."""


class Flip(Part):
    """Changes that turn the verdict: send the same request with them and it says so."""

    changes: list[FactChange]
    """One fact, or several together when fewer than two facts turn it alone."""
    approach: Approach
    """The verdict then."""
    distance: float
    """How far the change is from the facts; the smallest comes first."""


class _Try(NamedTuple):
    fact: str
    value: Any
    distance: float


def find_flips(request: DecideRecommendRequest, approach: Approach) -> list[Flip]:
    """Return the two nearest changes that turn the verdict, on different facts where there are two."""
    base = request.model_dump(mode="json")
    search = _Search(base, approach)
    singles = [flip for fact in _list_facts(base) if (flip := search.nearest(fact)) is not None]
    found = sorted(singles, key=lambda flip: flip.distance)[:NUM_FLIPS]
    if len(found) == NUM_FLIPS:
        return found
    together = search.fewest_together(exclude={change.fact for flip in found for change in flip.changes})
    return found if together is None else [*found, together]


class _Search:
    """Decides again with facts changed."""

    def __init__(self, base: dict[str, Any], approach: Approach) -> None:
        self._base, self._approach = base, approach

    def nearest(self, fact: str) -> Flip | None:
        """Return the nearest change of one fact that turns the verdict."""
        flips = [self._flip([change]) for change in self._narrowed(fact)]
        return min((flip for flip in flips if flip is not None), key=lambda flip: flip.distance, default=None)

    def fewest_together(self, exclude: set[str]) -> Flip | None:
        """Return a small set of changes that only together turn the verdict.

        The changes that move points and gates most towards training, or away from it when it is the verdict, come
        first, and those that turn out not to be needed are dropped again.
        """
        sign = -1 if self._approach in {"fine-tune", "hybrid"} else 1
        facts = [fact for fact in _list_facts(self._base) if fact not in exclude]
        gains = [gain for fact in facts if (gain := self._best_gain(fact, sign)) is not None]
        chosen: list[_Try] = []
        for _, change in sorted(gains, key=lambda gain: (-gain[0], gain[1].distance)):
            chosen.append(change)
            if self._turns(chosen):
                break
        else:
            return None
        for change in sorted(chosen, key=lambda change: -change.distance):
            others = [kept for kept in chosen if kept is not change]
            if self._turns(others):
                chosen = others
        for index, change in enumerate(chosen):
            chosen[index] = self._narrow(change, [*chosen[:index], *chosen[index + 1 :]])
        return self._flip(chosen)

    def _best_gain(self, fact: str, sign: int) -> tuple[float, _Try] | None:
        """Return the change of one fact that moves furthest towards training (or away), and by how many points."""
        base = self._decide([])
        assert base is not None  # the facts as they are
        steps = [*_list_steps(self._base, fact, -1), *_list_steps(self._base, fact, 1)]
        tries = sorted([*_list_switches(self._base, fact), *steps], key=lambda change: change.distance)
        best: tuple[float, _Try] | None = None
        for change in tries:
            verdict = self._decide([change])
            if verdict is None:
                continue
            opened = verdict.num_gates_passed - base.num_gates_passed
            gain = sign * (verdict.fine_tune_points - base.fine_tune_points + _GATE_GAIN * opened)
            if gain > 0 and (best is None or gain > best[0]):
                best = gain, change
        return best

    def _decide(self, changes: list[_Try]) -> Verdict | None:
        """Return the verdict on changed facts; None when they contradict or leave their range."""
        values = self._base
        for change in changes:
            values = _with(values, change.fact.split("."), change.value)
        try:
            return decide(DecideRecommendRequest.model_validate(values))
        except ValidationError:
            return None

    def _turns(self, changes: list[_Try]) -> bool:
        verdict = self._decide(changes)
        return verdict is not None and verdict.approach != self._approach

    def _flip(self, changes: list[_Try]) -> Flip | None:
        verdict = self._decide(changes)
        if verdict is None or verdict.approach == self._approach:
            return None
        facts = [
            FactChange(fact=change.fact, now=_get(self._base, change.fact), changed=change.value)
            for change in changes
        ]
        return Flip(
            changes=facts,
            approach=verdict.approach,
            distance=round(sum(change.distance for change in changes), 4),
        )

    def _narrowed(self, fact: str) -> Iterator[_Try]:
        """Yield the changes of one fact that may turn the verdict, numbers as near as they turn it."""
        yield from _list_switches(self._base, fact)
        for direction in (-1, 1):
            steps = _list_steps(self._base, fact, direction)
            turning = next((step for step in steps if self._turns([step])), None)
            if turning is not None:
                yield self._narrow(turning, [])

    def _narrow(self, change: _Try, fixed: list[_Try]) -> _Try:
        """Return the change with the number nearest to today's that still turns the verdict, to three digits."""
        fact, stays, turns = change.fact, _get(self._base, change.fact), change.value
        if not _is_number(stays) or not _is_number(turns):
            return change
        is_whole = isinstance(stays, int)
        for _ in range(_MAX_HALVINGS):
            middle = (stays + turns) // 2 if is_whole else (stays + turns) / 2
            if middle in (stays, turns) or math.isclose(stays, turns, rel_tol=1e-4):
                break
            if self._turns([_Try(fact, middle, 0), *fixed]):
                turns = middle
            else:
                stays = middle
        candidates = [turns] if is_whole else [*_round_away(stays, turns), turns]
        best = next((value for value in candidates if self._turns([_Try(fact, value, 0), *fixed])), turns)
        return _Try(fact, best, _measure(fact, _get(self._base, fact), best))


def _list_facts(base: dict[str, Any]) -> list[str]:
    known = ["behaviours", "privacy", *_SWITCHES, *_SHARE_FACTS, *_NUMBERS]
    return [fact for fact in known if fact in _IF_NONE or _get(base, fact) is not None]


def _list_switches(base: dict[str, Any], fact: str) -> Iterator[_Try]:
    """Yield the changes of one fact that are not a matter of degree."""
    value = _get(base, fact)
    if fact == "behaviours":
        for name in get_args(Behaviour):
            yield _Try(
                fact, [*(item for item in value if item != name), *([] if name in value else [name])], 1
            )
    elif fact == "privacy":
        yield _Try(fact, "api_allowed" if value == "local_only" else "local_only", 1)
    elif fact in _SWITCHES:
        yield _Try(fact, not value, 1)
    elif fact in _IF_NONE and value is None:
        yield from (_Try(fact, known, 1) for known in _IF_NONE[fact])
    elif fact in {"knowledge_change_days", "max_latency_ms"}:
        yield _Try(fact, None, 1)


def _list_steps(base: dict[str, Any], fact: str, direction: int) -> list[_Try]:
    """Return values of a number further and further away from today's."""
    now = _get(base, fact)
    if not _is_number(now) or fact not in {*_NUMBERS, *_SHARE_FACTS}:
        return []
    if fact in _SHARE_FACTS:
        beyond = [share for share in _SHARES if (share - now) * direction > 0]
        values = sorted(beyond, key=lambda share: abs(share - now))
    elif now == 0:
        values = [] if direction < 0 else [1, *_STEPS]
    else:
        values = [now * step**direction for step in _STEPS] + ([0] if direction < 0 else [])
    return [
        _Try(fact, round(value) if isinstance(now, int) else float(value), _measure(fact, now, value))
        for value in values
    ]


def _round_away(stays: float, turns: float) -> list[float]:
    """Return ``turns`` to three digits, and the next such number away from ``stays``."""
    nearest = float(f"{turns:.3g}")
    unit = 10.0 ** (math.floor(math.log10(abs(turns))) - 2) if turns else 1e-3
    return [nearest, float(f"{nearest + math.copysign(unit, turns - stays):.3g}")]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _measure(fact: str, now: float, changed: float) -> float:
    if fact in _SHARE_FACTS:
        return 4 * abs(changed - now)
    smallest = 1 if isinstance(now, int) else min(now, changed) or 1e-3 * max(now, changed)
    return abs(math.log(max(changed, smallest) / max(now, smallest)))


def _get(values: dict[str, Any], fact: str) -> Any:
    found: Any = values
    for key in fact.split("."):
        found = None if found is None else found[key]
    return found


def _with(values: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    key, *rest = path
    return {**values, key: _with(values[key], rest, value) if rest else value}
