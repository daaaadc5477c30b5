"""``evals.selftest``: what can a case file not measure? Wrong answers made from its own references, and a lint.

Mutation testing of cases: each reference is changed in dozens of ways; a wrong answer that passes shows a case that
cannot tell it from a right one, and a right answer that fails shows a case, or a scorer, that is too narrow.
"""

import json
from collections import Counter

from pydantic import Field

from pipeline.core.files import write_json
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path
from pipeline.core.progress import Progress
from pipeline.evals.cases import Case, read_case_file
from pipeline.evals.intervals import Rate
from pipeline.evals.perturb import Variant, make_variants
from pipeline.evals.tool_calls import CaseScorer, Profile, read_calls
from pipeline.evals.tool_calls.lint import find_ungrounded, lint_cases

_MAX_SHOWN = 50


class SelftestRequest(Request):
    """Which cases to try."""

    cases: WorkspacePath = Field(min_length=1)
    """File of neutral cases."""
    profile: Profile = "strict"
    """Rules of the scorer."""
    out: WorkspacePath | None = None
    """Folder that gets selftest.json with every survivor."""


class KindCount(Part):
    """Variants of one kind."""

    right: bool
    """They should be accepted."""
    accepted: int
    """Scored as correct."""
    rejected: int
    """Scored as wrong."""


class Misjudged(Part):
    """A variant that was judged against its intention."""

    id: str
    """Case id."""
    kind: str
    """How it was made."""
    calls: str
    """The answer, as JSON."""
    errors: list[str]
    """Codes it earned; none when a wrong one was accepted."""


class Lint(Part):
    """Something wrong with a case itself."""

    id: str
    """Case id."""
    rule: str
    """`no_tools`, `broken_schema`, `duplicate_tool`, `contradiction`, `ungrounded_reference`, or `reference_` and a code."""
    reason: str
    """In words."""


class SelftestResult(Result):
    """What the cases can and cannot tell apart."""

    num_cases: int
    """Cases read."""
    num_variants: int
    """Answers made from them."""
    wrong_rejected: Rate
    """Of wrong answers: rejected, as they should be."""
    right_accepted: Rate
    """Of right answers: accepted, as they should be."""
    kinds: dict[str, KindCount]
    """By kind of change."""
    survivors: list[Misjudged]
    """At most 50 wrong answers that were accepted: the case cannot tell them from right ones."""
    too_narrow: list[Misjudged]
    """At most 50 right answers that were rejected."""
    lints: list[Lint]
    """At most 50 faults of the cases themselves."""

    def is_negative(self) -> bool:
        """True when something survived, was too narrow, or is at fault."""
        return bool(self.survivors or self.too_narrow or self.lints)


def selftest_cases(request: SelftestRequest) -> SelftestResult:
    """Try a case file on right and wrong answers made from its own references, and lint it.

    Raises:
        InvalidInputError: If the file is missing, empty or broken.
    """
    cases = read_case_file(resolve_path(request.cases))
    findings = lint_cases(cases)
    faulty = {finding.id for finding in findings if finding.is_fatal}
    findings += [found for case in cases if case.id not in faulty for found in find_ungrounded(case)]
    lints = [Lint(id=found.id, rule=found.code, reason=found.message) for found in findings]
    accepted, rejected = Counter[tuple[str, bool]](), Counter[tuple[str, bool]]()
    wrong: list[Misjudged] = []
    with Progress("selftest", len(cases), unit="cases") as progress:
        for case in cases:
            progress.advance()
            if case.id in faulty:
                continue
            for variant, errors in _judge_variants(case, request.profile):
                counter = rejected if errors else accepted
                counter[variant.kind, variant.right] += 1
                if variant.right == bool(errors):
                    wrong.append(_describe(case, variant, errors))
    survivors = [found for found in wrong if not found.errors]
    too_narrow = [found for found in wrong if found.errors]
    if request.out is not None:
        everything = {
            "survivors": [found.model_dump() for found in survivors],
            "too_narrow": [found.model_dump() for found in too_narrow],
            "lints": [lint.model_dump() for lint in lints],
        }
        write_json(resolve_path(request.out) / "selftest.json", everything)
    return SelftestResult(
        num_cases=len(cases),
        num_variants=accepted.total() + rejected.total(),
        wrong_rejected=_rate(rejected, accepted, right=False),
        right_accepted=_rate(accepted, rejected, right=True),
        kinds={
            kind: KindCount(right=right, accepted=accepted[kind, right], rejected=rejected[kind, right])
            for kind, right in sorted({*accepted, *rejected})
        },
        survivors=survivors[:_MAX_SHOWN],
        too_narrow=too_narrow[:_MAX_SHOWN],
        lints=lints[:_MAX_SHOWN],
        next_step="Narrow the alternatives of the survivors' cases, or run: llmops evals run --cases "
        + request.cases,
    )


EVALS_SELFTEST = Operation(
    name="evals.selftest",
    request=SelftestRequest,
    result=SelftestResult,
    run=selftest_cases,
    positional=("cases",),
)


def _judge_variants(case: Case, profile: Profile) -> list[tuple[Variant, list[str]]]:
    scorer = CaseScorer(case, profile)
    text = "Which one do you mean?" if case.expected.kind == "ask" else ""
    judged: list[tuple[Variant, list[str]]] = []
    for variant in make_variants(case):
        said = text or ("Fine." if not variant.calls else None)
        judged.append((variant, list(scorer.score(read_calls(variant.calls, said)).errors)))
    return judged


def _describe(case: Case, variant: Variant, errors: list[str]) -> Misjudged:
    calls = json.dumps(variant.calls, ensure_ascii=False)
    return Misjudged(id=case.id, kind=variant.kind, calls=calls, errors=errors)


def _rate(hits: Counter[tuple[str, bool]], misses: Counter[tuple[str, bool]], *, right: bool) -> Rate:
    num_hits = sum(count for (_, is_right), count in hits.items() if is_right == right)
    num_misses = sum(count for (_, is_right), count in misses.items() if is_right == right)
    return Rate.of([True] * num_hits + [False] * num_misses)
