"""``evals.persona``: does each persona sound like itself, keep its rules, and stay apart from the others?

Items from the specification judge every reply; a small style classifier shows which voice a reply has; an earlier run
can be set against this one pair by pair. How well tools are called per persona is `evals run`: tag its cases.
"""

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_jsonl, write_json, write_jsonl
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef, resolve_path, shown_path
from pipeline.core.runs import Run
from pipeline.evals.answers import Decoding
from pipeline.evals.asking import Asking, ask_all
from pipeline.evals.engines import Engine, Source, open_engine
from pipeline.evals.intervals import Rate
from pipeline.evals.persona_cases import (
    PersonaCase,
    Reply,
    make_switches,
    read_persona_cases,
    to_questions,
)
from pipeline.evals.persona_pairs import JudgeReport, JudgeSource, by_items, judge_pairs, prefer_all
from pipeline.evals.persona_report import write_persona_report
from pipeline.evals.preference import Preference
from pipeline.evals.style import StyleClassifier
from pipeline.personas.items import judge_replies, judge_reply, passes
from pipeline.personas.spec import Persona, read_persona

REPLIES_FILE = "replies.jsonl"


class EvalPersonaRequest(Request):
    """Which personas, what to ask them, and where they answer."""

    personas: list[WorkspacePath] = Field(min_length=1)
    """Specifications (YAML), such as datasets/personas/taskmaster.yaml."""
    cases: WorkspacePath = Field(min_length=1)
    """Prompts: {id, persona, messages}, or conversations with the tag `persona`."""
    base_url: str | None = None
    """OpenAI-compatible server; give one of base_url, serve, replay, transformers."""
    model: str = ""
    """Name of the model on that server."""
    serve: WorkspaceRef | None = None
    """Model folder or GGUF to serve for the duration, or `ollama:NAME`."""
    replay: WorkspacePath | None = None
    """Predictions file with the replies."""
    transformers: WorkspaceRef | None = None
    """Model folder to run with transformers."""
    style_from: WorkspacePath | None = None
    """Rows with replies in each voice to learn styles from; default is the replies in `cases`."""
    against: WorkspaceRef | None = None
    """Run id of an earlier `evals persona`, such as base + prompt: who sounds more like the persona?"""
    judge_url: str | None = None
    """OpenAI-compatible server of a model that judges the pairs too, in both orders."""
    judge_model: str = ""
    """Name of the judge there; take another family than the judged models."""
    judge_labels: WorkspacePath | None = None
    """Human labels {id, label: first|second|tie}, first being this run: below kappa 0.6 the judge does not count."""
    min_adherence: float | None = Field(default=None, gt=0, lt=1)
    """Exit status 1 unless the lower end of every persona's adherence reaches it."""
    seed: int = 0
    """For sampling and resampling."""
    concurrency: int = Field(default=2, ge=1, le=64)
    """Requests at the same time."""
    max_tokens: int = Field(default=160, ge=1)
    """Longest reply."""


class PersonaScore(Part):
    """One persona."""

    adherence: Rate
    """Replies that pass all hard items and at least 90 % of the style items."""
    hard_rules: Rate
    """Replies that pass all hard items, such as what is forbidden."""
    items: dict[str, Rate]
    """By trait, pattern part and rule."""
    vocabulary: Rate
    """Replies with a signature phrase."""
    vocabulary_in_band: bool
    """Its rate lies in the persona's band: too rare and the voice is missing, too often and it parrots."""
    distinct_ratio: float
    """Different replies among all."""
    phrases_in_arguments: int
    """Replies whose tool arguments hold a signature phrase; should be 0."""


class EvalPersonaResult(Result):
    """How the personas speak."""

    run_id: str
    """Run directory; `against` takes it."""
    model: str
    """Name of what answered."""
    personas: dict[str, PersonaScore]
    """By name."""
    confusion: dict[str, dict[str, int]]
    """Wanted persona -> voice the style classifier heard -> replies; empty without two voices to learn from."""
    style_accuracy: Rate
    """Replies heard as the wanted persona."""
    bleed: Rate
    """After an exchange in another persona's voice: replies that fail the wanted persona's items."""
    without_switch: Rate
    """The same prompts without that exchange: replies that fail."""
    preference: Preference | None
    """Against the earlier run."""
    judge: JudgeReport | None
    """The same by a model."""
    verdict: str
    """`proven`, `not proven` (the interval reaches below `min_adherence`) or `no gate`."""
    report: str
    """Readable report."""

    def is_negative(self) -> bool:
        """True when a gate was set and is not proven."""
        return self.verdict == "not proven"


def evaluate_personas(request: EvalPersonaRequest, run: Run) -> EvalPersonaResult:
    """Judge replies of one or more personas: traits, rules, voice, bleed after a switch, and wins over another system.

    Raises:
        InvalidInputError: If a specification or the prompts are broken, or the earlier run shares no prompt.
        MissingDependencyError: If the server cannot be reached.
    """
    personas = {persona.name: persona for persona in map(read_persona, map(resolve_path, request.personas))}
    cases = read_persona_cases(resolve_path(request.cases), list(personas))
    source = Source(
        **{name: getattr(request, name) for name in Source.model_fields if hasattr(request, name)}
    )
    with open_engine(source) as engine:
        replies = _ask(engine, cases, personas, request, run)
        switches = [] if request.replay else make_switches(replies, _prompts(personas))
        switched = _ask(engine, switches, personas, request, run) if switches else []
    write_jsonl(
        run.artifacts / REPLIES_FILE, ({"id": r.case.id, "text": r.text} for r in (*replies, *switched))
    )
    pairs = _pair(request.against, replies) if request.against else []
    scores = {name: _score(personas[name], replies) for name in personas}
    confusion, hits = _hear(_learn_styles(request, cases, list(personas)), replies)
    twins = {reply.case.id: reply for reply in replies}
    result = EvalPersonaResult(
        run_id=run.id,
        model=engine.name,
        personas=scores,
        confusion=confusion,
        style_accuracy=Rate.of(hits),
        bleed=Rate.of(not passes(personas[r.case.persona], r.text) for r in switched),
        without_switch=Rate.of(
            not passes(personas[r.case.persona], twins[r.case.id.split(":", 2)[2]].text) for r in switched
        ),
        preference=prefer_all(pairs, by_items(personas), request.seed) if pairs else None,
        judge=judge_pairs(pairs, personas, _judge_source(request)) if pairs and request.judge_url else None,
        verdict=_decide(scores, request.min_adherence),
        report=shown_path(run.artifacts / "persona_report.md"),
        warnings=[] if confusion else ["no style was learned: replies of at least two voices are needed"],
        next_step="Let people judge too: llmops evals sheet --before RUN --after " + run.id,
    )
    write_json(run.artifacts / "persona_report.json", result.model_dump(mode="json"))
    failures = [r for r in replies if not passes(personas[r.case.persona], r.text)]
    write_persona_report(run.artifacts, result, personas, failures)
    return result


EVALS_PERSONA = Operation(
    name="evals.persona",
    request=EvalPersonaRequest,
    result=EvalPersonaResult,
    run=evaluate_personas,
    long_running=True,
)


def read_replies(reference: str) -> dict[str, str]:
    """Return the replies of an earlier run by prompt id.

    Raises:
        InvalidInputError: If the run has none.
    """
    path = Run.open(reference.removeprefix("run:")).artifacts / REPLIES_FILE
    if not path.is_file():
        raise InvalidInputError(
            f"{reference} has no replies", hint="Name a finished run of `llmops evals persona`."
        )
    return {row["id"]: row["text"] for row in read_jsonl(path)}


def _prompts(personas: dict[str, Persona]) -> dict[str, str]:
    return {name: persona.prompt for name, persona in personas.items()}


def _ask(
    engine: Engine,
    cases: Sequence[PersonaCase],
    personas: dict[str, Persona],
    request: EvalPersonaRequest,
    run: Run,
) -> list[Reply]:
    how = Decoding(max_tokens=request.max_tokens, seed=request.seed)
    is_switch = cases[0].id.startswith("after:")
    path = run.artifacts / ("predictions-switched.jsonl" if is_switch else "predictions.jsonl")
    label = "replies after a switch" if is_switch else "replies"
    answers = ask_all(
        engine,
        to_questions(cases, _prompts(personas)),
        Asking(how, request.concurrency, path, label, run),
    )
    return [
        Reply(case, answer.visible_text, str((answer.message or {}).get("tool_calls") or ""))
        for case, answer in zip(cases, answers, strict=True)
    ]


def _score(persona: Persona, replies: Sequence[Reply]) -> PersonaScore:
    own = [reply for reply in replies if reply.case.persona == persona.name]
    texts = [reply.text for reply in own]
    found = judge_replies(persona, texts)
    hard = [all(v.passed for v in judge_reply(persona, text) if v.hard) for text in texts]
    phrases = [phrase.casefold() for phrase in persona.vocabulary.phrases]
    return PersonaScore(
        adherence=_count(found.num_passed, found.num_replies),
        hard_rules=Rate.of(hard),
        items={name: _count(*counts) for name, counts in found.passed_by_item.items()},
        vocabulary=_count(round(found.vocabulary_rate * len(texts)), len(texts)),
        vocabulary_in_band=found.vocabulary_in_band,
        distinct_ratio=round(len(set(texts)) / max(1, len(texts)), 4),
        phrases_in_arguments=sum(any(p in reply.calls.casefold() for p in phrases) for reply in own),
    )


def _count(right: int, total: int) -> Rate:
    return Rate.of([True] * right + [False] * (total - right))


def _learn_styles(
    request: EvalPersonaRequest, cases: Sequence[PersonaCase], known: Sequence[str]
) -> StyleClassifier | None:
    rows = read_persona_cases(resolve_path(request.style_from), known) if request.style_from else cases
    spoken = [(row.persona, row.reference) for row in rows if row.reference]
    return StyleClassifier(spoken) if len({voice for voice, _ in spoken}) > 1 else None


def _hear(
    classifier: StyleClassifier | None, replies: Sequence[Reply]
) -> tuple[dict[str, dict[str, int]], list[bool]]:
    if classifier is None:
        return {}, []
    table: dict[str, Counter[str]] = {}
    for reply in replies:
        table.setdefault(reply.case.persona, Counter())[classifier.classify(reply.text)] += 1
    hits = [wanted == heard for wanted, row in table.items() for heard in row.elements()]
    return {wanted: dict(row) for wanted, row in sorted(table.items())}, hits


def _pair(against: str, replies: Sequence[Reply]) -> list[tuple[Reply, str]]:
    others = read_replies(against)
    pairs = [(reply, others[reply.case.id]) for reply in replies if reply.case.id in others]
    if not pairs:
        raise InvalidInputError("the two runs share no prompt", hint="Use the same cases in both.")
    return pairs


def _judge_source(request: EvalPersonaRequest) -> JudgeSource:
    labels = resolve_path(request.judge_labels) if request.judge_labels else None
    return JudgeSource(request.judge_url or "", request.judge_model, labels, request.seed)


def _decide(scores: dict[str, PersonaScore], bound: float | None) -> str:
    if bound is None:
        return "no gate"
    proven = all(
        score.adherence.low is not None and score.adherence.low >= bound for score in scores.values()
    )
    return "proven" if proven else "not proven"
