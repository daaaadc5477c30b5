"""``synth.calibrate``: does a judge agree with people? Cohen's kappa with a bootstrap interval, beside raw agreement.

Raw agreement flatters a judge when most rows are good; kappa takes out what chance would give (Cohen 1960). Below 0.6 a
judge is not usable here.
"""

import random
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_jsonl
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path

USABLE_KAPPA = 0.6
FEWEST_LABELS = 50
_NUM_RESAMPLES = 2000
_TAIL = 0.025

Pair = tuple[bool, bool]
"""(judge keeps, human keeps)."""


class SynthCalibrateRequest(Request):
    """Verdicts and labels."""

    verdicts: WorkspacePath = Field(min_length=1)
    """JSON Lines of `synth judge`: `id` and `keep`."""
    labels: WorkspacePath = Field(min_length=1)
    """JSON Lines of people: `id` and `keep`, true or false."""
    seed: int = 0
    """For the resamples."""


class SynthCalibrateResult(Result):
    """How far judge and people agree."""

    num_labels: int
    """Rows with both."""
    agreement: float
    """Share of equal decisions."""
    kappa: float
    """Cohen's kappa."""
    kappa_low: float
    """2.5th percentile of 2,000 resamples of rows."""
    kappa_high: float
    """97.5th percentile."""
    both_keep: int
    """Rows that both keep."""
    only_judge_keeps: int
    """Rows that only the judge keeps."""
    only_human_keeps: int
    """Rows that only people keep."""
    both_drop: int
    """Rows that both drop."""
    usable: bool
    """Kappa is at least 0.6."""

    def is_negative(self) -> bool:
        """True when the judge must not be used."""
        return not self.usable


def calibrate_judge(request: SynthCalibrateRequest) -> SynthCalibrateResult:
    """Compare a judge's decisions with human labels: kappa with an interval; below 0.6 the judge is unusable.

    Raises:
        InvalidInputError: If a file cannot be read or they share no id.
    """
    verdicts, labels = _read(request.verdicts), _read(request.labels)
    pairs = [(verdicts[name], keep) for name, keep in labels.items() if name in verdicts]
    if not pairs:
        raise InvalidInputError(
            "verdicts and labels share no id", hint="Label rows of the judged file by their id."
        )
    source = random.Random(request.seed)
    resampled = sorted(kappa(source.choices(pairs, k=len(pairs))) for _ in range(_NUM_RESAMPLES))
    value = kappa(pairs)
    counts = {key: pairs.count(key) for key in ((True, True), (True, False), (False, True), (False, False))}
    warnings = (
        []
        if len(pairs) >= FEWEST_LABELS
        else [f"{len(pairs)} labels; take at least {FEWEST_LABELS}, better 100"]
    )
    if len({human for _, human in pairs}) == 1:
        warnings.append("all labels are equal: kappa says nothing; label rows of both kinds")
    return SynthCalibrateResult(
        num_labels=len(pairs),
        agreement=round(sum(judge == human for judge, human in pairs) / len(pairs), 4),
        kappa=round(value, 4),
        kappa_low=round(resampled[int(_TAIL * _NUM_RESAMPLES)], 4),
        kappa_high=round(resampled[int((1 - _TAIL) * _NUM_RESAMPLES) - 1], 4),
        both_keep=counts[True, True],
        only_judge_keeps=counts[True, False],
        only_human_keeps=counts[False, True],
        both_drop=counts[False, False],
        usable=value >= USABLE_KAPPA,
        warnings=warnings,
    )


def kappa(pairs: Sequence[Pair]) -> float:
    """Return Cohen's kappa (Educational and Psychological Measurement 20, 1960, 37); 0 where chance agrees always."""
    observed = sum(judge == human for judge, human in pairs) / len(pairs)
    judge = sum(first for first, _ in pairs) / len(pairs)
    human = sum(second for _, second in pairs) / len(pairs)
    expected = judge * human + (1 - judge) * (1 - human)
    return (observed - expected) / (1 - expected) if expected < 1 else 0.0


def _read(file: str) -> dict[str, bool]:
    try:
        rows: list[dict[str, Any]] = read_jsonl(resolve_path(file))
        found = {str(row["id"]): row["keep"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{file} cannot be used: {error}", hint='One JSON object a line: {"id": "...", "keep": true}.'
        ) from error
    if not all(isinstance(keep, bool) for keep in found.values()):
        raise InvalidInputError(f"{file}: keep must be true or false", hint='{"id": "...", "keep": true}')
    return found


SYNTH_CALIBRATE = Operation(
    name="synth.calibrate",
    request=SynthCalibrateRequest,
    result=SynthCalibrateResult,
    run=calibrate_judge,
    read_only=True,
    positional=("verdicts", "labels"),
)
