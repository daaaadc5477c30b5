"""The gate: do the GGUF files say what the merged model says, and can they be served?

It compares the file that keeps all bits (f16) with transformers token by token, measures what each quantisation costs on
held-out turns, and asks the file that will be served for a stop, a tool call and a stream. How good the model is at its
task, `evals run` says.
"""

import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.errors import IntegrityError, InvalidInputError
from pipeline.core.files import read_json, sha256_file, write_json
from pipeline.core.paths import resolve_path
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.export.card import RECORD, change_default, order_by_preference
from pipeline.export.checkpoint import read_checkpoint
from pipeline.export.gate_checks import (
    answered,
    ask,
    check_greedy,
    check_logprobs,
    check_metadata,
    check_prompts,
    check_served_template,
    check_stop,
    check_streaming,
    check_tool_round_trip,
    describe_refusal,
    find_call,
    no_exact_file,
    render_prompts,
)
from pipeline.export.gate_corpus import GATE_DATE, build_corpus, build_questions
from pipeline.export.gate_report import GateCheck, GateReport, report_path
from pipeline.export.gate_server import GateServer, RefusedRequestError, open_server
from pipeline.export.gate_task import (
    CONCURRENCY,
    DEFAULT_NUM_TURNS,
    LOSS_LIMIT_POINTS,
    check_accuracy,
    context_for,
    held_out_is_gone,
    measure_accuracy,
    points_lost,
    read_turns,
)
from pipeline.task_api.store import TaskStore
from pipeline.task_api.tools import load_tools, system_prompt

if TYPE_CHECKING:
    from pipeline.export.backends.reference import Reference


@dataclass(frozen=True, slots=True)
class Subject:
    """What is verified."""

    home: Path
    """Folder of the files."""
    report: Path
    """File that gets the outcome."""
    files: list[Path]
    """GGUF files."""
    preference: list[Path]
    """The files in the order in which they should be served; the gate takes the first that loses little."""
    reference: Path
    """Merged Hugging Face folder."""
    uses_tools: bool
    """The model was trained on tools, so a tool round trip is required."""
    system_prompt: str
    held_out: Path | None
    """Conversations to measure task accuracy on."""
    lost_held_out: Path | None
    """Conversations that the export recorded and that are gone, as on another machine."""
    num_turns: int
    """Assistant turns of them to ask of every file."""
    digests: dict[str, str]
    """Expected SHA-256 by file name, where the export recorded one."""
    recorded_default: str | None
    """File that the export serves so far; None when one file is verified, which chooses nothing."""


def find_subject(
    model: Path,
    reference: Path | None,
    held_out: Path | None = None,
    num_turns: int = DEFAULT_NUM_TURNS,
) -> Subject:
    """Resolve an export folder, or one GGUF file, into what there is to verify.

    Raises:
        InvalidInputError: If there is no GGUF, or no merged model to compare it with.
    """
    home = model if model.is_dir() else model.parent
    files = sorted(model.glob("*.gguf")) if model.is_dir() else [model]
    if not files or not all(path.is_file() for path in files):
        raise InvalidInputError(f"no GGUF at {model}", hint="Name an export folder or a .gguf file.")
    record: dict[str, Any] = read_json(home / RECORD) if (home / RECORD).is_file() else {}
    compared = reference or home / "merged"
    if not (compared / "config.json").is_file():
        raise InvalidInputError(
            f"no merged model at {compared} to compare with",
            hint="Pass --reference FOLDER with the Hugging Face model the GGUF was made from.",
        )
    num_params: int = record.get("num_params") or read_checkpoint(compared).num_params
    recorded = resolve_path(record["held_out"]) if record.get("held_out") else None
    turns_file = held_out or (recorded if recorded and recorded.is_file() else None)
    preference, served = order_by_preference(files, num_params), record.get("default_gguf")
    if turns_file is None:  # nothing will be measured, so what was chosen before stays
        preference.sort(key=lambda path: path.name != served)
    template = record.get("system_prompt_template") or system_prompt(date.fromisoformat(GATE_DATE))
    return Subject(
        home=home,
        report=report_path(model),
        files=files,
        preference=preference,
        reference=compared,
        uses_tools=record.get("tool_set") is not None,
        system_prompt=template.replace("{today}", GATE_DATE),
        held_out=turns_file,
        lost_held_out=recorded if turns_file is None else None,
        num_turns=num_turns,
        digests={name: facts["sha256"] for name, facts in record.get("files", {}).items()},
        recorded_default=served if model.is_dir() else None,
    )


def run_gate(subject: Subject, run: Run | None = None) -> GateReport:
    """Run all checks, write the report beside the model, and make the export serve the file that was measured.

    Raises:
        IntegrityError: If a file is truncated or is not the one the export wrote.
    """
    from pipeline.export.backends.gguf_inspect import holds_full_weights, read_metadata
    from pipeline.export.backends.reference import Reference

    started = time.monotonic()
    with Progress("gate", len(subject.files) + 2, unit="steps", run=run) as progress:
        metadata = {path: read_metadata(path) for path in subject.files}
        digests = {path.name: _checked_digest(path, subject.digests) for path in subject.files}
        progress.advance(note="files are whole")
        reference = Reference(subject.reference)
        progress.advance(note="merged model loaded")
        template = (subject.reference / "chat_template.jinja").read_text(encoding="utf-8")
        checks: list[GateCheck] = []
        for path in subject.files:
            checks += check_metadata(path.name, metadata[path], template, reference.special_ids)
        exact = next((path for path in subject.files if holds_full_weights(metadata[path])), None)
        if exact is None:
            checks.append(no_exact_file([path.name for path in subject.files]))
        looked_at = _look_at_files(subject, exact, reference, progress)
        checks += looked_at.checks
        if subject.lost_held_out and subject.uses_tools:
            checks.append(held_out_is_gone(subject.lost_held_out))
    report = GateReport(
        passed=all(check.passed is not False for check in checks),
        checks=checks,
        default_gguf=looked_at.default.name,
        num_turns=looked_at.num_turns,
        seconds=round(time.monotonic() - started, 1),
        files=digests,
    )
    if subject.recorded_default not in (None, report.default_gguf):  # it costs this model answers
        # Before the report: a passed gate is about the file that is served.
        change_default(subject.home, report.default_gguf)
    write_json(subject.report, report.model_dump(mode="json"))
    return report


class _LookedAt(NamedTuple):
    checks: list[GateCheck]
    default: Path
    num_turns: int


def _look_at_files(
    subject: Subject, exact: Path | None, reference: "Reference", progress: Progress
) -> _LookedAt:
    """Serve every file: the one that keeps all bits first, then in the order in which they should be served."""
    turns = read_turns(subject.held_out, subject.num_turns) if subject.held_out and subject.uses_tools else []
    first = exact or subject.preference[0]
    slots, context = CONCURRENCY if turns else 1, context_for(turns, reference, load_tools())
    accuracy: dict[Path, float] = {}
    checks: list[GateCheck] = []
    default: Path | None = None
    for path in [first, *(p for p in subject.preference if p != first)]:
        with open_server(path, exact=path == exact, num_slots=slots, context_tokens=context) as server:
            checks += _compare(server, path, exact, subject, reference)
            accuracy[path] = measure_accuracy(server, turns, load_tools()) if turns else 0.0
            is_small_loss = points_lost(accuracy[path], accuracy[first]) <= LOSS_LIMIT_POINTS
            if default is None and is_small_loss and path == _next_choice(subject, accuracy, first):
                default = path
                checks += _check_behaviour(server, subject, reference)
        progress.advance(note=path.name)
    if default is None:  # every smaller file lost too much
        default = first
        with open_server(first, exact=False) as server:
            checks += _check_behaviour(server, subject, reference)
    if turns:
        checks += [
            check_accuracy(path.name, value, accuracy[first], len(turns), is_default=path == default)
            for path, value in accuracy.items()
        ]
    return _LookedAt(checks, default, len(turns))


def _next_choice(subject: Subject, accuracy: dict[Path, float], first: Path) -> Path | None:
    """Return the best-liked file that has not been measured as losing too much."""
    for path in subject.preference:
        if path not in accuracy or points_lost(accuracy[path], accuracy[first]) <= LOSS_LIMIT_POINTS:
            return path
    return None


def _compare(
    server: GateServer, path: Path, exact: Path | None, subject: Subject, reference: "Reference"
) -> list[GateCheck]:
    corpus, tools = build_corpus(subject.system_prompt), load_tools()
    prompts = render_prompts(reference, corpus, tools)
    checks: list[GateCheck] = []
    if path == (exact or subject.preference[0]):
        template = (subject.reference / "chat_template.jinja").read_text(encoding="utf-8")
        checks += answered(
            "served_template",
            lambda: check_served_template(server, template, needs_tools=subject.uses_tools),
        )
        checks += answered("prompt_text", lambda: check_prompts(server, reference, corpus, tools))
    if path == exact:
        checks += answered("greedy_parity", lambda: [check_greedy(server, reference, prompts)])
    return checks + answered(
        f"next_token_logprobs:{path.name}",
        lambda: [check_logprobs(path.name, server, reference, prompts, is_exact=path == exact)],
    )


def _check_behaviour(server: GateServer, subject: Subject, reference: "Reference") -> list[GateCheck]:
    tools = load_tools() if subject.uses_tools else []
    questions = build_questions(subject.system_prompt, with_tools=subject.uses_tools)
    if reference.render(questions[0], tools or None) is None:  # such as Gemma 2, which has no system role
        questions = [messages[-1:] for messages in questions]
    try:
        answers = [ask(server.chat, messages, tools) for messages in questions]
    except RefusedRequestError as error:
        return [describe_refusal("answers", error)]
    # A model may rather ask back at one of them; how often it does, the held-out turns say.
    question, answer = questions[called := find_call(answers)], answers[called]
    checks = answered("stop", lambda: [check_stop(server, reference, questions, answers, tools)])
    checks += answered("streaming", lambda: [check_streaming(server, question, answer, tools)])
    if subject.uses_tools:
        with TaskStore(":memory:", date.fromisoformat(GATE_DATE)) as store:
            checks += answered(
                "tool_round_trip",
                lambda: check_tool_round_trip(server, question, answer, tools, store),
            )
    return checks


def _checked_digest(path: Path, expected: dict[str, str]) -> str:
    digest = sha256_file(path)
    if expected.get(path.name, digest) != digest:
        raise IntegrityError(
            f"{path.name} is not the file the export wrote",
            hint="It was changed or truncated: run `llmops export run` again.",
        )
    return digest
