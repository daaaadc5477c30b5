"""Rebuild the generated sets of datasets/ byte by byte: ``make datasets``.

For each set: generate from its seed (or execute the hand-written script), replay, check, validate, compare training with
test, then write data_report.md and README.md. Stops at the first set that does not pass. What people write, the script
``handwritten.txt`` and the specifications of the personas, is left alone.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SETS: dict[str, dict[str, Any]] = {
    "task_api": {
        "title": "Task API conversations",
        "use": "The 500-row set of chapters 63 and 64: small enough to read, wide enough to train a first assistant.",
        "request": {
            "num_rows": 400, "validation_rows": 50, "test_rows": 50, "made_ratio": 1.2, "seed": 63, "mix": "full",
        },
        "names": {
            "train": "task_api_train.jsonl", "validation": "task_api_val.jsonl", "test": "task_api_test.jsonl",
        },
    },
    "tool_calls": {
        "title": "Tool calls with exact ground truth",
        "use": "The larger set of chapter 66: parallel and dependent calls, errors, recovery, asking and restraint.",
        "request": {
            "num_rows": 2400, "validation_rows": 200, "test_rows": 440, "made_ratio": 1.1, "seed": 66, "mix": "full",
        },
        "names": {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"},
        "script": "handwritten.txt",
    },
}  # fmt: skip
PERSONAS_SEED = 65
PERSONA_SPLITS = ("train", "val", "test")
MAX_COPIED_TOOLS = 0.85
MAX_TEMPLATE_SHARE = 0.03
HANDWRITTEN_NOTE = """\
- **`handwritten.jsonl`**: written one by one by a coding agent, in many voices (`tags.register`), never from a template;
  a test set, no training row. `handwritten.txt` is the script: people's words, calls and replies; `llmops synth play`
  executes it, so results are the API's own.
"""
PERSONAS_CARD = """\
---
license: apache-2.0
language: [en]
task_categories: [text-generation]
tags: [tool-calling, persona, synthetic]
---
# Personas: TaskMaster, TaskAnalyst, TaskPlanner

The sets of chapter 65: the same executed Task API conversations in three voices, so that voice can be trained and compared
while calls and facts stay equal. `NAME.yaml` specifies a persona; `NAME_{train,val,test}.jsonl` hold 240, 60 and 120 rows.

- **Licence**: Apache-2.0 (`LICENSE` of the repository).
- **Made by**: `llmops synth personas`, seed 65. Conversations come from the program writer (mix `full`), replies from lines
  written by hand in `pipeline/synth/personas/`. No model and no personal data went in; names in titles are invented.
- **Rebuild**: `make datasets`, or the rows alone with `llmops synth personas --out DIR --seed 65`; byte by byte.
- **Ground truth**: calls, results and user turns are those of the neutral row; every id, title, date and priority in a reply
  comes from an executed result. `llmops synth replay`, `synth check` and `data validate` pass.
- **System prompt**: the persona's, with the day; `tags.prompt_sha256` is the digest without the day, which training,
  evaluation and serving must agree on.
- **Splits**: no user formulation and no line of a reply occurs in two of train, validation and test.
- **Items**: every reply passes its persona's items (`pipeline/personas/items.py`); the lines were written with the items at
  hand, so that share says nothing about other replies.
- **Limits**: English, one tool set. A reply is opening, facts and closing put together, and closings know the kind of
  result, not the task. Mixing these rows with `tool_calls`: use its test file, its validation rows share formulations.

Numbers and digests: `data_report.md`.
"""


def build(name: str, target: Path) -> None:
    """Make one set in ``target``."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LLMOPS_WORKSPACE"] = scratch
        made = Path(scratch) / "made"
        if name == "personas":
            make_personas(made)
        else:
            make_neutral(name, made)
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(made.iterdir()):
            shutil.copyfile(path, target / path.name)


def make_neutral(name: str, made: Path) -> None:
    """Make the files of a set in the neutral voice."""
    from pipeline.core.files import read_jsonl
    from pipeline.core.messages import Example
    from pipeline.operations import find_operation
    from pipeline.synth.report import describe_rows, render_report

    plan = SETS[name]
    find_operation("synth.generate").call({"out": str(made), **plan["request"]})
    report = json.loads((made / "data_report.json").read_text(encoding="utf-8"))
    (made / "data_report.json").unlink()
    names: dict[str, str] = dict(plan["names"])
    for side, file in names.items():
        (made / f"{side}.jsonl").rename(made / file)
    report["sha256"] = {file: report["sha256"][f"{side}.jsonl"] for side, file in names.items()}
    if "script" in plan:
        script = ROOT / "datasets" / name / plan["script"]
        played = made / "handwritten.jsonl"
        done = find_operation("synth.play").call({"script": str(script), "out": str(played)})
        numbers = describe_rows([Example.from_row(row) for row in read_jsonl(played)], None)
        # Every row is a formulation of its own.
        report["splits"]["handwritten"] = {**numbers, "formulations_used": {"handwritten": numbers["rows"]}}
        report["sha256"][played.name] = done.sha256
        names["handwritten"] = played.name
    for side, numbers in report["splits"].items():
        # One more row than 3 % of a small side rounds to is no template of its own.
        most = max(1, int(MAX_TEMPLATE_SHARE * numbers["rows"])) / numbers["rows"]
        require(numbers["top_formulation_ratio"] <= most + 1e-4, f"{name}: a template above 3 % of {side}")
    checks = {file: check(made / file) for file in names.values()}
    compared = {
        file: compare(made / names["train"], made / file)
        for side, file in names.items()
        if side in {"test", "handwritten"}
    }
    text = f"{render_report(report).rstrip()}\n\n{describe(checks, compared)}"
    (made / "data_report.md").write_text(text, encoding="utf-8")
    (made / "README.md").write_text(render_card(plan, names, report), encoding="utf-8")


def make_personas(made: Path) -> None:
    """Make the files of all personas."""
    from pipeline.operations import find_operation
    from pipeline.personas.spec import PERSONAS

    find_operation("synth.personas").call({"out": str(made), "seed": PERSONAS_SEED})
    files = [f"{name}_{split}.jsonl" for name in PERSONAS for split in PERSONA_SPLITS]
    checks = {file: check(made / file) for file in files}
    compared = {
        f"{name}_test.jsonl": compare(made / f"{name}_train.jsonl", made / f"{name}_test.jsonl")
        for name in PERSONAS
    }
    text = (made / "data_report.md").read_text(encoding="utf-8")
    (made / "data_report.md").write_text(f"{text.rstrip()}\n\n{describe(checks, compared)}", encoding="utf-8")
    (made / "README.md").write_text(PERSONAS_CARD, encoding="utf-8")


def check(path: Path) -> dict[str, Any]:
    """Return what replay, gates and validation say about a file; it must pass all three."""
    from pipeline.operations import find_operation

    replay = find_operation("synth.replay").call({"file": str(path)})
    gates = find_operation("synth.check").call({"file": str(path)})
    valid = find_operation("data.validate").call({"file": str(path)})
    for result in (replay, gates, valid):
        require(not result.is_negative(), f"{path.name}: {result.model_dump_json()[:500]}")
    return {
        "rows": gates.num_rows,
        "calls": replay.calls,
        "differ": replay.different_rows,
        "faulty": gates.num_faulty_rows,
        "invalid": valid.num_invalid,
    }


def compare(train: Path, test: Path) -> Any:
    """Return what a test file shares with its training file; it must hold no row of it, nor be answered by copying."""
    from pipeline.operations import find_operation

    leakage = find_operation("data.decontaminate").call({"train": str(train), "test": str(test)}).leakage
    require(leakage.exact.num_test_rows == leakage.near.num_test_rows == 0, f"{test.name}: rows in train")
    copier = leakage.copier
    require(copier.num_right_tools <= MAX_COPIED_TOOLS * copier.num_rows, f"{test.name}: copying is enough")
    return leakage


def describe(checks: dict[str, dict[str, Any]], compared: dict[str, Any]) -> str:
    """Return the part of the report that other operations measured."""
    checked = "\n".join(
        f"| {file} | {n['rows']} | {n['calls']} | {n['differ']} | {n['faulty']} | {n['invalid']} |"
        for file, n in checks.items()
    )
    shared = "\n".join(
        f"| {file} | {found.exact.num_test_rows} | {found.near.num_test_rows} "
        f"| {found.ngram.num_half_rows} of {found.ngram.num_counted_rows} "
        f"| {found.copier.num_right_tools} of {found.copier.num_rows} "
        f"({found.copier.num_right_tools / found.copier.num_rows:.2f}) "
        f"| {found.copier.num_right_calls} of {found.copier.num_rows_with_calls} "
        f"| {found.copier.median_similarity} |"
        for file, found in compared.items()
    )
    return f"""## Checks

| file | rows | calls executed again | rows whose results differ | rows with a fault | invalid rows |
| --- | ---: | ---: | ---: | ---: | ---: |
{checked}

`llmops synth replay`, `llmops synth check` (schema, order, clock, execution, grounding of arguments and replies, language,
length, emoji, personal data, contradictions, a persona's items) and `llmops data validate`.

## What training shares with test

| file | equal rows | near-duplicates | rows with half of their 8-grams | right tools | right calls | similarity |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{shared}

`llmops data decontaminate` of the training file and each of these. Right tools and right calls are those of the copier, which
answers with the most similar training row; similarity is the median to that row.
"""


def render_card(plan: dict[str, Any], names: dict[str, str], report: dict[str, Any]) -> str:
    """Return the card of a set."""
    splits = report["splits"]
    files = "\n".join(
        f"| `{file}` | {splits[side]['rows']} | {splits[side]['calls']} | {len(splits[side]['by_intent'])} "
        f"| {sum(splits[side]['formulations_used'].values())} | `{report['sha256'][file]}` |"
        for side, file in names.items()
    )
    seed = plan["request"]["seed"]
    by_hand = HANDWRITTEN_NOTE if "handwritten" in names else ""
    return f"""---
license: apache-2.0
language: [en]
task_categories: [text-generation]
tags: [tool-calling, synthetic]
---
# {plan["title"]}

{plan["use"]}

| file | rows | calls | intents | formulations | sha256 |
| --- | ---: | ---: | ---: | ---: | --- |
{files}

- **Licence**: Apache-2.0 (`LICENSE` of the repository).
- **Made by**: the program writer of `llmops synth generate`, mix `full`, seed {seed}. No model and no personal data went
  in; names in titles are invented. The formulations were written by hand.
{by_hand}- **Rebuild**: `make datasets`; the files come out byte by byte.
- **Ground truth**: calls were decided first and executed on the Task API with a fixed clock; arguments are the user's own
  words (dates too: the API resolves them), results are what the API answered. `initial_state`, `today` and, where the
  API was made to fail, `faults` let `llmops synth replay` execute a row again.
- **Form**: OpenAI `messages`, arguments as JSON text; tools in `pipeline/task_api/tools.json`; `group` is the formulation,
  `tags` are the cell of the coverage matrix. `tags.slice = compositional` marks test rows whose combination of intent and
  slots no training row has.
- **Limits**: English, one tool set, one phrasing per situation on the assistant's side, users who come to the point. Manners
  of speaking are changes of the surface. It measures this task, not tool calling at large.

Numbers: `data_report.md`.
"""


def require(condition: bool, problem: str) -> None:
    """Stop with a message unless something holds."""
    if not condition:
        sys.exit(f"build_datasets: {problem}")


if __name__ == "__main__":
    chosen = sys.argv[1:] or [*SETS, "personas"]
    for set_name in chosen:
        build(set_name, ROOT / "datasets" / set_name)
