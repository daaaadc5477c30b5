"""Rebuild the generated sets of datasets/ byte by byte: ``make datasets``.

For each set: generate from its seed, replay, check, validate, compare training with test, then write data_report.md and
README.md. Stops at the first set that does not pass. Hand-written files beside them are left alone.
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
    },
}  # fmt: skip
MAX_COPIED_TOOLS = 0.85
MAX_TEMPLATE_SHARE = 0.03


def build(name: str, target: Path) -> None:
    """Make one set in ``target``."""
    from pipeline.operations import find_operation

    plan = SETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LLMOPS_WORKSPACE"] = scratch
        made = Path(scratch) / "made"
        find_operation("synth.generate").call({"out": str(made), **plan["request"]})
        report = json.loads((made / "data_report.json").read_text(encoding="utf-8"))
        checks = {side: check(made / f"{side}.jsonl") for side in plan["names"]}
        leakage = (
            find_operation("data.decontaminate")
            .call({"train": str(made / "train.jsonl"), "test": str(made / "test.jsonl")})
            .leakage
        )
        copier = leakage.copier
        require(leakage.exact.num_test_rows == leakage.near.num_test_rows == 0, f"{name}: test rows in train")
        require(copier.num_right_tools <= MAX_COPIED_TOOLS * copier.num_rows, f"{name}: copying is enough")
        for side, numbers in report["splits"].items():
            # One more row than 3 % of a small side rounds to is no template of its own.
            most = max(1, int(MAX_TEMPLATE_SHARE * numbers["rows"])) / numbers["rows"]
            require(
                numbers["top_formulation_ratio"] <= most + 1e-4, f"{name}: a template above 3 % of {side}"
            )
        target.mkdir(parents=True, exist_ok=True)
        for side, file in plan["names"].items():
            shutil.copyfile(made / f"{side}.jsonl", target / file)
        text = (made / "data_report.md").read_text(encoding="utf-8")
        for side, file in plan["names"].items():
            text = text.replace(f"| {side}.jsonl |", f"| {file} |")
        (target / "data_report.md").write_text(
            f"{text.rstrip()}\n\n{describe(checks, leakage)}", encoding="utf-8"
        )
        (target / "README.md").write_text(render_card(name, plan, report), encoding="utf-8")


def check(path: Path) -> dict[str, Any]:
    """Return what replay, gates and validation say about a file; it must pass all three."""
    from pipeline.operations import find_operation

    replay = find_operation("synth.replay").call({"file": str(path)})
    gates = find_operation("synth.check").call({"file": str(path)})
    valid = find_operation("data.validate").call({"file": str(path)})
    for result in (replay, gates, valid):
        require(not result.is_negative(), f"{path.name}: {result.model_dump_json()[:500]}")
    return {"rows": gates.num_rows, "calls": replay.calls}


def describe(checks: dict[str, dict[str, Any]], leakage: Any) -> str:
    """Return the part of the report that other operations measured."""
    copier, grams = leakage.copier, leakage.ngram
    rows = "\n".join(
        f"| {side} | {found['rows']} | {found['calls']} | 0 | 0 | 0 |" for side, found in checks.items()
    )
    return f"""## Checks

| file of | rows | calls executed again | results that differ | rows with a fault | invalid rows |
| --- | ---: | ---: | ---: | ---: | ---: |
{rows}

`llmops synth replay`, `llmops synth check` (schema, order, clock, execution, grounding of arguments and replies, language,
length, emoji, personal data, contradictions) and `llmops data validate`.

## What training shares with test

`llmops data decontaminate`: {leakage.exact.num_test_rows} equal rows, {leakage.near.num_test_rows} near-duplicates,
{grams.num_half_rows} of {grams.num_counted_rows} test rows with half of their word 8-grams in training. Copying the
answer of the most similar training row gives the right tools for {copier.num_right_tools} of {copier.num_rows} test rows
({copier.num_right_tools / copier.num_rows:.2f}) and the right calls for {copier.num_right_calls} of
{copier.num_rows_with_calls}; median similarity {copier.median_similarity}. Formulations, titles, names of people and
firms, days and task numbers of test occur on no other side.
"""


def render_card(name: str, plan: dict[str, Any], report: dict[str, Any]) -> str:
    """Return the card of a set."""
    splits = report["splits"]
    files = "\n".join(
        f"| `{file}` | {splits[side]['rows']} | {splits[side]['calls']} | {len(splits[side]['by_intent'])} "
        f"| {sum(splits[side]['formulations_used'].values())} | `{report['sha256'][f'{side}.jsonl']}` |"
        for side, file in plan["names"].items()
    )
    seed = plan["request"]["seed"]
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
- **Rebuild**: `make datasets`; the files come out byte by byte.
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
    chosen = sys.argv[1:] or list(SETS)
    for set_name in chosen:
        build(set_name, ROOT / "datasets" / set_name)
