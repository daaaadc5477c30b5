"""Checks of chapter 63, Data Engineering: the learner's rows are validated, cleaned, replayed and compared again."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, cast

from pipeline.core.files import sha256_file
from pipeline.data.clean import DATA_CLEAN
from pipeline.data.convert import DATA_CONVERT
from pipeline.data.decontaminate import DATA_DECONTAMINATE
from pipeline.data.inspect_file import DATA_INSPECT
from pipeline.data.validate import DATA_VALIDATE
from pipeline.lessons.checks.computed import COMMAND, require_skill, split_skill
from pipeline.lessons.work import Work
from pipeline.operations import OPERATIONS
from pipeline.synth.calibrate import SYNTH_CALIBRATE
from pipeline.synth.check import SYNTH_CHECK
from pipeline.synth.judge_prompts import CRITERIA
from pipeline.synth.replay import SYNTH_REPLAY
from pipeline.task_api.tools import load_tools

TASK_API_SIZES = {"train": 400, "val": 50, "test": 50}
_TEMPLATE = Path(__file__).parents[1] / "templates" / "LEARNING-SPEC.md"
_SPEC_SECTIONS = ("What I want to learn", "Why it matters", "Success criteria")
_MAX_GROUP_SHARE = 0.03
_MIN_GENERATED = 100
_MIN_HAND_MADE = 50
_MIN_ERROR_ROWS = 3
_MIN_LABELS = 20
_MIN_MEAN_GRADE = 4.0


def check_63_0(work: Work) -> None:
    """A learning spec whose success criteria name checks, and a first skill."""
    require_learning_spec(work)
    require_skill(work, "llmops-data-engineer", {"data"}, needs_prompts=False)


def require_learning_spec(work: Work) -> None:
    """State that LEARNING-SPEC.md is filled in and that each success criterion can be checked by a command."""
    step = f"Copy pipeline/lessons/templates/LEARNING-SPEC.md to learning/{work.number}/ and fill it in."
    text = work.path("LEARNING-SPEC.md", next_step=step).read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    work.require(
        "the three sections are filled in",
        all(sections.get(name, "").strip() for name in _SPEC_SECTIONS) and "..." not in text,
        reason=f"sections: {sorted(sections)}; unfilled: {'...' in text}",
        next_step=step,
    )
    criteria = re.findall(r"^- .+$", sections.get("Success criteria", ""), re.MULTILINE)
    known = {entry.name for entry in OPERATIONS}
    checkable = [line for line in criteria if {".".join(found) for found in COMMAND.findall(line)} & known]
    work.require(
        "three success criteria name a command that checks them",
        len(set(checkable)) >= 3,
        reason=f"{len(set(checkable))} of {len(criteria)} name an existing command",
        next_step="Write `llmops data validate FILE` or the like behind each criterion.",
    )


def check_63_1(work: Work) -> None:
    """The same rows in two formats: detected as such, and each converts into the other without loss."""
    step = "llmops data convert learning/63.1/messages.jsonl --to sharegpt --out learning/63.1/sharegpt.jsonl"
    messages = work.path(
        "messages.jsonl", next_step="Write five rows of messages with a tool call among them."
    )
    sharegpt = work.path("sharegpt.jsonl", next_step=step)
    found = {name: inspect(work, path) for name, path in (("messages", messages), ("sharegpt", sharegpt))}
    for name, facts in found.items():
        work.require(
            f"{name}.jsonl is {name}",
            facts["format"] == name and facts["num_rows"] >= 5,
            reason=f"{facts['format']}, {facts['num_rows']} rows",
            next_step=step,
        )
    work.require(
        "a tool call is among the rows",
        found["messages"]["num_rows_with_tools"] > 0 and found["messages"]["calls_by_tool"],
        reason=f"calls: {found['messages']['calls_by_tool']}",
        next_step="Alpaca cannot say a tool call; the other two can. Add one.",
    )
    with tempfile.TemporaryDirectory() as folder:
        digests = [converted(work, path, Path(folder), step) for path in (messages, sharegpt)]
    work.require(
        "both hold the same conversations",
        digests[0] == digests[1],
        reason="digests of the rows",
        next_step=step,
    )


def converted(work: Work, path: Path, folder: Path, step: str) -> str:
    """Return the digest of a file's rows as messages."""
    out = folder / f"{path.stem}.out.jsonl"
    answer = work.call(DATA_CONVERT, {"data": str(path), "to": "messages", "out": str(out)}, next_step=step)
    return str(answer.model_dump()["sha256"])


def inspect(work: Work, path: Path) -> dict[str, Any]:
    """Return what `data inspect` says about a file."""
    step = f"llmops data inspect {path}"
    return work.call(DATA_INSPECT, {"file": str(path)}, next_step=step).model_dump(mode="json")


def require_valid(work: Work, name: str, num_rows: int) -> Path:
    """State that a file has so many rows, all valid, and return its path."""
    step = f"llmops data validate learning/{work.number}/{name}"
    path = work.path(name, next_step=step)
    found = work.call(DATA_VALIDATE, {"file": str(path)}, next_step=step).model_dump(mode="json")
    first = next(iter(cast("list[dict[str, Any]]", found["errors"])), dict[str, Any]())
    work.require(
        f"{name}: {num_rows} rows or more, all valid",
        found["num_rows"] >= num_rows and found["num_invalid"] == 0,
        reason=f"{found['num_rows']} rows, {found['num_invalid']} invalid; line {first.get('line')}: {first.get('message')}",
        next_step=step,
    )
    return path


def first_requests(rows: list[dict[str, Any]]) -> list[str]:
    """Return the first user turn of each row, lower case, spaces folded."""
    users = (
        next((str(m.get("content")) for m in row.get("messages", []) if m.get("role") == "user"), "")
        for row in rows
    )
    return [" ".join(text.lower().split()) for text in users]


def require_variety(work: Work, name: str, rows: list[dict[str, Any]]) -> None:
    """State that nine of ten first requests differ."""
    requests = first_requests(rows)
    share = len(set(requests)) / len(requests) if requests else 0.0
    work.require(
        f"{name}: nine of ten requests are worded differently",
        share >= 0.9,
        reason=f"{len(set(requests))} different of {len(requests)}",
        next_step="Change who speaks and how, not only titles and dates.",
    )


def check_63_2(work: Work) -> None:
    """Accuracy, consistency, coverage and diversity of the learner's rows, counted."""
    path = require_valid(work, "rows.jsonl", 20)
    rows = work.read_rows("rows.jsonl", next_step="Write rows in the messages format.")
    facts = inspect(work, path)
    tools = {tool["function"]["name"] for tool in load_tools()}
    missing = tools - facts["calls_by_tool"].keys()
    work.require(
        "coverage: every tool is called",
        not missing,
        reason=f"never called: {sorted(missing)}",
        next_step="Create, update, complete, delete and list all belong into the data.",
    )
    failing = sum(any(_is_error(message) for message in row.get("messages", [])) for row in rows)
    work.require(
        f"coverage: {_MIN_ERROR_ROWS} rows show a call that fails",
        failing >= _MIN_ERROR_ROWS,
        reason=f"{failing} rows with an error as tool result",
        next_step="Unknown id, empty title, invalid priority, past due date.",
    )
    found = work.call(DATA_VALIDATE, {"file": str(path)}, next_step="").model_dump(mode="json")
    work.require(
        "consistency: no request has two different answers",
        found["num_contradictions"] == 0,
        reason=f"{found['num_contradictions']} contradictions",
        next_step=f"llmops data validate {path}",
    )
    require_variety(work, "diversity", rows)
    require_replay(work, path)


def _is_error(message: dict[str, Any]) -> bool:
    return message.get("role") == "tool" and '"error"' in str(message.get("content"))


def require_replay(work: Work, path: Path) -> None:
    """State that every stored result is what the Task API answers."""
    step = f"llmops synth replay {path}"
    found = work.call(SYNTH_REPLAY, {"file": str(path)}, next_step=step).model_dump(mode="json")
    work.require(
        f"accuracy: every call in {path.name} gives the stored result again",
        found["different_rows"] == 0,
        reason=f"{found['calls']} calls, {found['different_rows']} rows differ: {found['differences'][:1]}"[
            :240
        ],
        next_step=step,
    )


def check_63_3(work: Work) -> None:
    """Fifty rows written by hand: valid, different, executable, and not generated."""
    path = require_valid(work, "hand_made.jsonl", _MIN_HAND_MADE)
    rows = work.read_rows("hand_made.jsonl", next_step="Write rows in the messages format.")
    require_variety(work, "hand_made.jsonl", rows)
    require_replay(work, path)
    groups = Counter(str(row.get("tags", {}).get("formulation", "")) for row in rows)
    generated = sum(count for formulation, count in groups.items() if formulation)
    work.require(
        "none comes from the generator",
        generated == 0,
        reason=f"{generated} rows carry a formulation of `synth generate`",
        next_step="Write them yourself: how would you, your mother, your colleague say it?",
    )


def check_63_4(work: Work) -> None:
    """The cleaned file is what cleaning gives, and every dropped row has its reason."""
    step = "llmops data clean learning/63.4/dirty.jsonl --out learning/63.4/clean.jsonl"
    dirty = work.path(
        "dirty.jsonl", next_step="Spoil a copy of your rows: repeats, near-repeats, spaces, a very long row."
    )
    cleaned = work.path("clean.jsonl", next_step=step)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "clean.jsonl"
        request = {"file": str(dirty), "out": str(out), "dry_run": False}
        found = work.call(DATA_CLEAN, request, next_step=step).model_dump(mode="json")
        is_same = sha256_file(out) == sha256_file(cleaned)
    work.require("clean.jsonl is what cleaning gives", is_same, reason="digests compared", next_step=step)
    reasons = {reason for reason, count in found["num_dropped"].items() if count}
    work.require(
        "rows were dropped as equal and as near-duplicates",
        {"exact", "near"} <= reasons or len(reasons) >= 2,
        reason=f"dropped: {found['num_dropped']}",
        next_step="Put an equal row and one that differs in a word into dirty.jsonl.",
    )


def check_63_5(work: Work) -> None:
    """Generated rows: executed, varied, and what they cost is known."""
    path = require_valid(work, "generated.jsonl", _MIN_GENERATED)
    rows = work.read_rows(
        "generated.jsonl", next_step="llmops synth generate --out learning/63.5 --num-rows 120"
    )
    require_replay(work, path)
    require_groups(work, rows)
    cost = work.read_json(
        "cost.json", next_step='Write {"usd": ..., "requests": ...}; the program writer costs 0.'
    )
    usd, requests = cost.get("usd"), cost.get("requests")
    is_number = isinstance(usd, (int, float)) and isinstance(requests, int)
    work.require(
        "the cost is stated, and free only if nothing was asked",
        is_number and (usd == 0) == (requests == 0) and float(cast("float", usd)) < 0.15,
        reason=f"usd {usd!r}, requests {requests!r}",
        next_step="Copy it from the ledger of the run; the limit of the lesson is $0.15.",
    )


def require_groups(work: Work, rows: list[dict[str, Any]]) -> None:
    """State that no template makes more than three percent of the rows."""
    groups = Counter(str(row.get("group") or "") for row in rows)
    largest, count = groups.most_common(1)[0] if groups else ("", 0)
    share = count / len(rows) if rows else 1.0
    work.require(
        "no template makes more than 3 % of the rows",
        share <= _MAX_GROUP_SHARE and largest != "",
        reason=f"largest group {largest!r}: {share:.1%}",
        next_step="Generate from more formulations, or write more.",
    )


def check_63_6(work: Work) -> None:
    """Rows kept by gates and by a judge whose agreement with people was measured."""
    step = "llmops synth judge learning/63.5/generated.jsonl --out learning/63.6 --base-url URL --model NAME"
    verdicts = work.read_rows("verdicts.jsonl", next_step=step)
    wrong = [row.get("id") for row in verdicts if row.get("keep") is not _keeps(row)]
    work.require(
        "a row is kept if its four grades have a mean of 4 or more",
        verdicts and not wrong,
        reason=f"{len(verdicts)} verdicts; wrong: {wrong[:3]}",
        next_step="Compute the mean in code; a judge's own sum is not to be trusted.",
    )
    kept = work.read_rows("kept.jsonl", next_step=step)
    work.require(
        "kept.jsonl holds exactly the rows that are kept",
        {row.get("id") for row in kept} == {row.get("id") for row in verdicts if row.get("keep")},
        reason=f"{len(kept)} rows",
        next_step=step,
    )
    path = work.path("kept.jsonl", next_step=step)
    found = work.call(SYNTH_CHECK, {"file": str(path)}, next_step=f"llmops synth check {path}").model_dump(
        mode="json"
    )
    work.require(
        "no kept row fails a gate",
        found["num_faulty_rows"] == 0,
        reason=str(found["faults_by_kind"])[:160],
        next_step=f"llmops synth check {path}",
    )
    labels = work.path("labels.jsonl", next_step='Judge twenty rows yourself: {"id": ..., "keep": true}.')
    request = {"verdicts": str(work.own / "verdicts.jsonl"), "labels": str(labels)}
    agreed = work.call(
        SYNTH_CALIBRATE, request, next_step="llmops synth calibrate VERDICTS LABELS"
    ).model_dump(mode="json")
    work.require(
        f"the judge agrees with you on {_MIN_LABELS} rows or more (kappa 0.6)",
        agreed["usable"] and agreed["num_labels"] >= _MIN_LABELS,
        reason=f"kappa {agreed['kappa']} on {agreed['num_labels']} rows",
        next_step="Sharpen the questions to the judge, or do without one.",
    )


def _keeps(verdict: dict[str, Any]) -> bool:
    grades = list(cast("dict[str, Any]", verdict.get("grades") or {}).values())
    is_graded = len(grades) == len(CRITERIA) and all(isinstance(grade, (int, float)) for grade in grades)
    return is_graded and not verdict.get("faults") and sum(grades) / len(grades) >= _MIN_MEAN_GRADE


def check_63_7(work: Work) -> None:
    """Exactly 400, 50 and 50 rows, valid, executable, without leakage, with a report."""
    paths = {
        name: require_valid(work, f"task_api_{name}.jsonl", size) for name, size in TASK_API_SIZES.items()
    }
    for name, path in paths.items():
        count = sum(bool(line.strip()) for line in path.read_bytes().splitlines())
        work.require(
            f"task_api_{name}.jsonl has exactly {TASK_API_SIZES[name]} rows",
            count == TASK_API_SIZES[name],
            reason=f"{count} rows",
            next_step="llmops data split FILE --out learning/63.7 --counts 400,50,50",
        )
        require_replay(work, path)
    step = "llmops data decontaminate learning/63.7/task_api_train.jsonl learning/63.7/task_api_test.jsonl"
    for other in ("val", "test"):
        request = {"train": str(paths["train"]), "test": str(paths[other])}
        leakage = work.call(DATA_DECONTAMINATE, request, next_step=step).model_dump(mode="json")["leakage"]
        shared = {kind: leakage[kind]["num_test_rows"] for kind in ("exact", "near", "same_prompt")}
        work.require(
            f"training shares nothing with {other}",
            not any(shared.values()),
            reason=str(shared),
            next_step=step,
        )
    report = work.path("data_report.md", next_step="llmops data report learning/63.7 --out learning/63.7")
    digest = sha256_file(paths["train"])
    work.require(
        "data_report.md is about these files",
        digest[:12] in report.read_text(encoding="utf-8"),
        reason=f"train digest {digest[:12]}",
        next_step="llmops data report learning/63.7 --out learning/63.7",
    )


def check_63_8(work: Work) -> None:
    """The second version of the skill: a new version, more of the tools, and not the first text again."""
    require_skill(work, "llmops-data-engineer", {"data", "synth"})
    text = work.path("llmops-data-engineer/SKILL.md", next_step="").read_text(encoding="utf-8")
    head, body = split_skill(text)
    version = str(cast("dict[str, Any]", head.get("metadata") or {}).get("version", ""))
    work.require(
        "metadata.version is 2.0 or later",
        re.fullmatch(r"[2-9]\.\d+(\.\d+)?", version),
        reason=f"version {version!r}",
        next_step='Write `metadata:` with `version: "2.0"`; it is no part of the name.',
    )
    first = work.path("63.0/llmops-data-engineer/SKILL.md", next_step="Do lesson 63.0 first.")
    _, before = split_skill(first.read_text(encoding="utf-8"))
    gained = set(COMMAND.findall(body)) - set(COMMAND.findall(before))
    work.require(
        "it names three commands that the first version did not",
        len(gained) >= 3,
        reason=f"{len(gained)} new commands",
        next_step="Write down what you learned: validate, clean, decontaminate, replay ...",
    )
