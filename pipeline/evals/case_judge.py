"""One judge for stored and for fresh answers: the rules of the scorer, then the end state where a case can be executed.

`evals score`, `evals run` and `evals robustness` all judge here. A case that is asked in other words or under other
names is executed as the original says: calls are renamed back first, because only the original's tools can be run.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.core.errors import InvalidInputError
from pipeline.evals.cases import Case
from pipeline.evals.renaming import Renaming
from pipeline.evals.tool_calls import CaseScore, CaseScorer, Prediction, Profile
from pipeline.evals.tool_calls.codes import has_layer
from pipeline.evals.tool_calls.execution import find_tool_set, judge_state
from pipeline.evals.tool_calls.lint import Finding, lint_cases

_MAX_NAMED = 5


class CaseJudge:
    """One case, ready to judge any number of answers by all that applies to it."""

    def __init__(self, case: Case, profile: Profile, executor: str | None = None) -> None:
        """Prepare a case.

        Args:
            case: As it is asked.
            profile: ``bfcl`` compares calls only.
            executor: What runs the calls; None for the Task API where the case names it.
        """
        self.case = case
        self._profile: Profile = profile
        self._scorer = CaseScorer(case, profile)
        self._original, self._renaming = case, Renaming()
        self._tool_set = find_tool_set(case, executor) if profile == "strict" else None

    def asked_as(self, case: Case, renaming: Renaming) -> "CaseJudge":
        """Return the judge of the same case asked in another way, executed as this one is."""
        judge = CaseJudge(case, self._profile)
        judge._original, judge._renaming, judge._tool_set = self._original, renaming, self._tool_set
        return judge

    def judge(self, prediction: Prediction) -> CaseScore:
        """Return what is right and wrong about an answer."""
        score = self._scorer.score(prediction)
        if self._tool_set is None:
            return score
        if has_layer(score.errors, "parse"):
            # Nothing of a broken answer is executed, so that a state that had to change is not as it should be.
            reached = {} if self.case.expected.kind in {"none", "ask"} else {"state_accuracy": False}
            return replace(score, checks={**score.checks, **reached, "end_to_end": False})
        calls = tuple(self._renaming.restore(call) for call in prediction.calls)
        return judge_state(self._original, replace(prediction, calls=calls), score, self._tool_set)


def choose_sound(cases: Sequence[Case], profile: Profile) -> tuple[list[Case], list[Finding]]:
    """Return the cases that can be scored, and everything that is wrong with any.

    BFCL's own rules accept references that break their schema, so that ``bfcl`` scores those cases too.

    Raises:
        InvalidInputError: If there is none.
    """
    findings = lint_cases(cases)
    fatal = find_defective(findings, profile)
    sound = [case for case in cases if case.id not in fatal]
    if not sound:
        raise InvalidInputError(
            f"no case is sound: {describe_defects(findings, profile)}",
            hint="Mend the right answers, which do not fit the tools of their cases; `llmops evals selftest` lists them.",
        )
    return sound, findings


def find_defective(findings: Sequence[Finding], profile: Profile) -> list[str]:
    """Return the ids of cases that no answer could satisfy."""
    fatal = (finding.id for finding in findings if finding.is_fatal and profile == "strict")
    return list(dict.fromkeys(fatal))


def describe_defects(findings: Sequence[Finding], profile: Profile) -> str:
    """Return the first defective cases with their codes, such as ``a (no_tools); b (broken_schema)``."""
    first = {finding.id: finding.code for finding in reversed(findings) if finding.is_fatal}
    return "; ".join(f"{name} ({first[name]})" for name in find_defective(findings, profile)[:_MAX_NAMED])
