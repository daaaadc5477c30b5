"""Other names for tools and their parameters, and the way back: what a renamed call means under the old names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.evals.tool_calls.prediction import PredictedCall


@dataclass(frozen=True, slots=True)
class Renaming:
    """What names became; what is not in it kept its name."""

    tools: Mapping[str, str] = field(default_factory=dict[str, str])
    """New name by old name."""
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """New parameter names by old ones, by the old name of the tool."""

    def restore(self, call: PredictedCall) -> PredictedCall:
        """Return a call under the old names; an old name used instead of its new one means nothing."""
        name = _restore(call.name, self.tools)
        names = self.parameters.get(name, {})
        return PredictedCall(name, {_restore(key, names): value for key, value in call.arguments.items()})


def turn_round(names: Iterable[str]) -> dict[str, str]:
    """Return another name for each: its words turned round, or one word more; no two are equal."""
    new: dict[str, str] = {}
    for name in names:
        words = [word for word in re.split(r"[_.\-]|(?<=[a-z0-9])(?=[A-Z])", name) if word]
        turned = "_".join(reversed(words)).lower()
        chosen = turned if len(words) > 1 and turned != name else f"{name}_field"
        while chosen in new.values():
            chosen += "_2"
        new[name] = chosen
    return new


def _restore(name: str, new: Mapping[str, str]) -> str:
    old = {after: before for before, after in new.items()}
    if name in old:
        return old[name]
    return f"{name} (not offered)" if name in new else name
