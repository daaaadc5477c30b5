"""Checks of chapter 65, Identity and Persona Tuning: replies judged by the persona's own items, tasks left as they were."""

from typing import Any, cast

from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, read_jsonl, sha256_file
from pipeline.core.paths import resolve_path
from pipeline.core.runs import Run
from pipeline.decide.recommend import DECIDE_RECOMMEND
from pipeline.evals.intervals import wilson
from pipeline.lessons.checks.chapter_63 import require_replay, require_valid, require_variety
from pipeline.lessons.checks.chapter_64 import (
    require_bound,
    require_learning,
    require_one_model,
    require_spec,
    require_spec_first,
    training_run,
)
from pipeline.lessons.checks.chapter_66 import count_check, details_of
from pipeline.lessons.checks.computed import find_run, read_list
from pipeline.lessons.work import Work
from pipeline.personas.items import judge_replies, judge_reply, passes, style_ratio
from pipeline.personas.spec import Persona, read_persona
from pipeline.train.curve import open_training_run

PERSONAS = ("taskmaster", "analyst", "planner")
_MIN_CASES = 4
_MIN_EXAMPLES = 3
_MIN_ROWS = 30
_MIN_PASSING = 0.9
_SHARE_OF_RATE = 2e-3  # statements are rounded


def check_65_1(work: Work) -> None:
    """Requests sorted into style and knowledge as their facts say, with the data each takes."""
    step = "Write cases.json: a list of {request, answer: style|knowledge, min_examples}."
    rows = read_list(work, work.path("cases.json", next_step=step), next_step=step)
    for index, row in enumerate(rows, start=1):
        answer = work.call(DECIDE_RECOMMEND, {**row.get("request", {}), "out": None}, next_step=step)
        facts = answer.model_dump(mode="json")
        expected = "knowledge" if facts["approach"] in {"rag", "hybrid"} else "style"
        needed = sum(stage["min_examples"] for stage in facts["stages"])
        work.require(
            f"case {index} is {expected} and takes {needed} examples",
            row.get("answer") == expected and row.get("min_examples") == needed,
            reason=f"you have {row.get('answer')!r} and {row.get('min_examples')!r}; approach {facts['approach']}",
            next_step="llmops decide recommend: facts that change are knowledge, a voice is style.",
        )
    answers = {row.get("answer") for row in rows}
    work.require(
        f"{_MIN_CASES} cases, both kinds",
        len(rows) >= _MIN_CASES and answers == {"style", "knowledge"},
        reason=f"{len(rows)} cases: {sorted(map(str, answers))}",
        next_step="Add a case whose answers rest on facts that change.",
    )


def read_spec(work: Work, name: str) -> Persona:
    """Return the learner's persona.

    Raises:
        NotYetError: If the file is missing or breaks the form.
    """
    step = "Write persona.yaml in the form of datasets/personas/taskmaster.yaml."
    path = work.path(name, next_step=step)
    try:
        return read_persona(path)
    except PipelineError as error:
        raise work.stop(
            "persona.yaml has the form of a persona", reason=str(error)[:240], next_step=step
        ) from error


def check_65_2(work: Work) -> None:
    """A persona whose items tell its own replies from plain and from wrong ones."""
    persona = read_spec(work, "persona.yaml")
    step = 'Write examples.json: {"in_voice": [3 replies], "plain": [3], "forbidden": [3]}.'
    examples = work.read_json("examples.json", next_step=step)
    wanted = {"in_voice": True, "plain": False, "forbidden": False}
    for kind, should_pass in wanted.items():
        texts = [str(text) for text in cast("list[object]", examples.get(kind) or [])]
        wrong = [text for text in texts if passes(persona, text) is not should_pass]
        work.require(
            f"{kind}: {_MIN_EXAMPLES} different replies, judged as they should be",
            len(set(texts)) >= _MIN_EXAMPLES and not wrong,
            reason=f"{len(set(texts))} replies; judged otherwise: {wrong[:1]}"[:200],
            next_step="Sharpen cues and counter cues until plain replies fail.",
        )
    forbidden = [str(text) for text in cast("list[object]", examples.get("forbidden") or [])]
    hard = [any(not item.passed for item in judge_reply(persona, text) if item.hard) for text in forbidden]
    work.require(
        "forbidden replies break a hard rule",
        hard and all(hard),
        reason=f"{sum(hard)} of {len(hard)} do",
        next_step="A forbidden reply must fail by its rule, not by missing charm.",
    )


def replies_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return every reply with text of some rows."""
    return [
        str(message["content"])
        for row in rows
        for message in row.get("messages", [])
        if message.get("role") == "assistant" and message.get("content")
    ]


def check_65_3(work: Work) -> None:
    """Rows in the persona's voice whose calls were executed and whose system prompt is the persona's."""
    persona = read_spec(work, "65.2/persona.yaml")
    path = require_valid(work, "persona_rows.jsonl", _MIN_ROWS)
    rows = work.read_rows("persona_rows.jsonl", next_step="llmops synth personas, or your own wording.")
    require_replay(work, path)
    require_variety(work, "persona_rows.jsonl", rows)
    replies = replies_of(rows)
    judged = judge_replies(persona, replies)
    share = judged.num_passed / judged.num_replies if judged.num_replies else 0.0
    work.require(
        f"{_MIN_PASSING:.0%} of the replies pass the persona's items",
        share >= _MIN_PASSING,
        reason=f"{judged.num_passed} of {judged.num_replies}",
        next_step="Reword the replies that fail; the spec says which item.",
    )
    work.require(
        "its phrases are spice, not parroting",
        judged.vocabulary_in_band,
        reason=f"rate {judged.vocabulary_rate}",
        next_step=f"Use a phrase in {persona.vocabulary.min_rate:.0%} to {persona.vocabulary.max_rate:.0%} of replies.",
    )
    systems = {
        str(row["messages"][0].get("content")) for row in rows if row["messages"][0].get("role") == "system"
    }
    work.require(
        "every row has the persona's system prompt",
        systems and all(text.startswith(persona.prompt) for text in systems) and len(systems) <= len(rows),
        reason=f"{len(systems)} different system prompts",
        next_step="The prompt that trains is the prompt that serves.",
    )
    distinct = len(set(replies)) / len(replies) if replies else 0.0
    work.require(
        "replies are not copies of a few sentences",
        distinct >= _MIN_PASSING,
        reason=f"{distinct:.0%} different",
        next_step="Write more formulations.",
    )


def check_65_4(work: Work) -> None:
    """A run of two passes on rows that carry the persona's prompt."""
    persona = read_spec(work, "65.2/persona.yaml")
    claim = work.read_json("training.json", next_step='Write {"run": RUN}.')
    run, _ = training_run(work, claim.get("run"))
    training: dict[str, Any] = read_json(run.artifacts / "training.json")
    data = resolve_path(read_json(run.path / "request.json")["data"])
    train = data / "train.jsonl" if data.is_dir() else data
    injected = cast("dict[str, Any]", training.get("injected_system_prompt") or {}).get("text", "")
    rows = read_jsonl(train) if train.is_file() else []
    spoken = sum(str(row["messages"][0].get("content")).startswith(persona.prompt) for row in rows)
    work.require(
        "the persona's prompt was in the training text",
        injected == persona.prompt
        or (spoken == len(rows) > 0 and sha256_file(train) == training["data"]["train_sha256"]),
        reason=f"{spoken} of {len(rows)} rows carry it, in the file that was trained on",
        next_step="Train on rows with the prompt, or with --system-prompt.",
    )
    recipe = training["recipe"]
    work.require(
        "two passes at a low rate, or a reason why not",
        (recipe["num_epochs"] <= 3 and recipe["learning_rate"] <= 5e-4) or claim.get("reason"),
        reason=f"{recipe['num_epochs']} epochs at {recipe['learning_rate']}",
        next_step="llmops train run DATA --preset persona",
    )
    require_learning(work, open_training_run(run.id).curve)


def persona_score(work: Work, run_id: object, persona: Persona) -> tuple[Run, int, int]:
    """Return an evaluation run with how many of its replies pass the persona's items.

    Raises:
        NotYetError: If there is no such run.
    """
    run, _ = find_run(
        work,
        run_id,
        "evals.run",
        next_step="llmops evals run --cases datasets/personas/taskmaster_test.jsonl",
    )
    texts = [str(row["predicted"].get("content") or "") for row in details_of(run) if row["kind"] == "reply"]
    return run, sum(passes(persona, text) for text in texts), len(texts)


def check_65_5(work: Work) -> None:
    """Adherence counted again from the replies, by trait, for the base with the prompt and for the tuned model."""
    persona = read_spec(work, "65.2/persona.yaml")
    step = 'Evaluate both, then write {"base_run", "tuned_run", "base", "tuned": {passed, total, low}, "traits"}.'
    report = work.read_json("persona_eval.json", next_step=step)
    found: dict[str, tuple[int, int]] = {}
    for side in ("base", "tuned"):
        _, passed, total = persona_score(work, report.get(f"{side}_run"), persona)
        said = cast("dict[str, Any]", report.get(side) or {})
        low = wilson(passed, total)[0] or 0.0
        work.require(
            f"{side}: adherence counted, with its lower bound",
            total > 0
            and (said.get("passed"), said.get("total")) == (passed, total)
            and abs(float(said.get("low", -1)) - low) < _SHARE_OF_RATE,
            reason=f"counted {passed} of {total}, lower bound {low:.3f}",
            next_step=step,
        )
        found[side] = passed, total
    run, _, _ = persona_score(work, report.get("tuned_run"), persona)
    traits = trait_counts(persona, run)
    work.require(
        "every trait has its own count",
        report.get("traits") == traits,
        reason=f"counted {traits}",
        next_step="Count each trait of the spec over the replies of the tuned run.",
    )
    rates = {side: passed / total if total else 0.0 for side, (passed, total) in found.items()}
    work.require(
        "the tuned model keeps the voice more often than the base with the prompt",
        rates["tuned"] > rates["base"],
        reason=f"{rates['base']:.3f} before, {rates['tuned']:.3f} after",
        next_step="More formulations of replies; look at the traits that fail.",
    )


def trait_counts(persona: Persona, run: Run) -> dict[str, list[int]]:
    """Return passed and total for each trait over the replies of an evaluation."""
    texts = [str(row["predicted"].get("content") or "") for row in details_of(run) if row["kind"] == "reply"]
    counts = {trait.name: [0, 0] for trait in persona.traits}
    for text in texts:
        for verdict in judge_reply(persona, text):
            if verdict.item in counts:
                counts[verdict.item][0] += verdict.passed
                counts[verdict.item][1] += 1
    return counts


def check_65_6(work: Work) -> None:
    """Three personas in one model: each speaks in its own voice and in no other's."""
    step = 'Write switch.json: {"taskmaster", "analyst", "planner": EVALUATION_RUN} of one model.'
    runs = work.read_json("switch.json", next_step=step)
    from pipeline.personas.spec import load_persona

    models: set[str] = set()
    for name in PERSONAS:
        run, passed, total = persona_score(work, runs.get(name), load_persona(name))
        models.add(str(read_json(run.path / "result.json").get("model")))
        texts = [
            str(row["predicted"].get("content") or "") for row in details_of(run) if row["kind"] == "reply"
        ]
        others = {
            other: sum(
                style_ratio(judge_reply(load_persona(other), text))
                > style_ratio(judge_reply(load_persona(name), text))
                for text in texts
            )
            for other in PERSONAS
            if other != name
        }
        bleed = max(others.values(), default=0) / total if total else 1.0
        work.require(
            f"{name} sounds like itself",
            total > 0 and passed / total > bleed and bleed <= 1 - _MIN_PASSING,
            reason=f"{passed} of {total} pass; nearer to another in {bleed:.0%}",
            next_step="Mix the personas' rows; the system prompt must decide the voice.",
        )
    work.require(
        "one model speaks for all three", len(models) == 1, reason=f"models: {sorted(models)}", next_step=step
    )


def check_65_7(work: Work) -> None:
    """The capstone: TaskMaster from spec to served model, adherence and tool accuracy by their lower bounds."""
    from pipeline.personas.spec import load_persona

    gates = require_spec(work, ("min_adherence", "min_tool_accuracy"))
    runs = work.read_json("runs.json", next_step='Write {"train", "export", "evaluate": RUN}.')
    train, _ = training_run(work, runs.get("train"))
    _, exported = find_run(work, runs.get("export"), "export.run", next_step="llmops export run run:RUN")
    require_spec_first(work, train)
    persona = load_persona("taskmaster")
    measured, passed, total = persona_score(work, runs.get("evaluate"), persona)
    require_one_model(work, train, exported, measured)
    bound = (passed, total, wilson(passed, total)[0] or 0.0)
    require_bound(work, "trait adherence", bound, float(gates["min_adherence"]))
    tools = count_check(details_of(measured), "right_tools")
    require_bound(work, "right tools", tools, float(gates["min_tool_accuracy"]))
