"""Chapter 63: rows are validated, executed and compared again; rows that only look right do not pass."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.clean import DATA_CLEAN
from pipeline.data.convert import DATA_CONVERT
from pipeline.data.report import DATA_REPORT
from pipeline.lessons.check import LessonCheckResult
from pipeline.synth.generate import SYNTH_GENERATE

Write = Callable[[str, Any], Path]
Verdict = Callable[[str], LessonCheckResult]
Row = dict[str, Any]
SPEC = """# Learning spec

## What I want to learn
- make rows that train

## Why it matters
Bad rows make bad models.

## Success criteria
- I can validate: `llmops data validate FILE`
- I can clean: `llmops data clean FILE`
- I can execute: `llmops synth replay FILE`
"""
SKILL = """---
name: llmops-data-engineer
description: Makes and checks data. Use it when somebody brings rows.
metadata:
  version: "{version}"
---
# Data
{commands}
"""


def unmet(result: LessonCheckResult) -> list[str]:
    return [criterion.name for criterion in result.criteria if not criterion.is_met]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """400, 50 and 50 rows of the generator, whose wording is disjoint."""
    folder = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_WORKSPACE", str(folder))
        SYNTH_GENERATE.call({"out": "d", "num_rows": 400, "validation_rows": 50, "test_rows": 50, "seed": 5})
    names = {"train": "train", "val": "validation", "test": "test"}
    return {
        name: [
            json.loads(line)
            for line in (folder / "d" / f"{stem}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name, stem in names.items()
    }


def closed(rows: list[Row]) -> list[Row]:
    """Rows that end with a reply."""
    return [row for row in rows if row["messages"][-1].get("content")]


def test_63_0_criteria_name_their_checks(write: Write, check: Verdict) -> None:
    write("63.0/LEARNING-SPEC.md", SPEC)
    write(
        "63.0/llmops-data-engineer/SKILL.md",
        SKILL.format(version="1.0", commands="`llmops data validate FILE`"),
    )
    assert check("63.0").passed, unmet(check("63.0"))
    write("63.0/LEARNING-SPEC.md", SPEC.replace("`llmops synth replay FILE`", "I will feel it"))
    assert unmet(check("63.0")) == ["three success criteria name a command that checks them"]
    template = Path(__file__).parents[3] / "pipeline" / "lessons" / "templates" / "LEARNING-SPEC.md"
    write("63.0/LEARNING-SPEC.md", template.read_text(encoding="utf-8"))
    assert not check("63.0").passed


def test_63_1_two_formats_hold_the_same_rows(
    write: Write, check: Verdict, generated: dict[str, list[Row]], workspace: Path
) -> None:
    tools = json.loads(
        (Path(__file__).parents[3] / "pipeline" / "task_api" / "tools.json").read_text(encoding="utf-8")
    )
    rows = [{"messages": row["messages"], "tools": tools} for row in closed(generated["train"])[:6]]
    path = write("63.1/messages.jsonl", rows)
    out = workspace / "learning" / "63.1" / "sharegpt.jsonl"
    DATA_CONVERT.call({"data": str(path), "to": "sharegpt", "out": str(out)})
    assert check("63.1").passed, unmet(check("63.1"))
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text(
        "".join([*lines[:-1], lines[0]]), encoding="utf-8"
    )  # same number of rows, one of them wrong
    assert unmet(check("63.1")) == ["both hold the same conversations"]
    write("63.1/sharegpt.jsonl", path.read_text(encoding="utf-8"))
    assert "sharegpt.jsonl is sharegpt" in unmet(check("63.1"))


def failing_rows(rows: list[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if any('"error"' in str(m.get("content")) for m in row["messages"] if m["role"] == "tool")
    ]


def test_63_2_quality_is_counted(write: Write, check: Verdict, generated: dict[str, list[Row]]) -> None:
    rows = closed(generated["train"])
    failing = failing_rows(closed([row for split in generated.values() for row in split]))
    good = [*failing[:4], *[row for row in rows if row not in failing][:120]]
    write("63.2/rows.jsonl", good)
    assert check("63.2").passed, unmet(check("63.2"))
    write("63.2/rows.jsonl", [row for row in good if row not in failing_rows(good)])
    assert unmet(check("63.2")) == ["coverage: 3 rows show a call that fails"]
    invented = json.loads(json.dumps(good))
    result = next(
        m for row in invented for m in row["messages"] if m["role"] == "tool" and '"task"' in m["content"]
    )
    result["content"] = result["content"].replace('"id": ', '"id": 9', 1)
    write("63.2/rows.jsonl", invented)
    assert unmet(check("63.2")) == ["accuracy: every call in rows.jsonl gives the stored result again"]
    write("63.2/rows.jsonl", [good[0]] * 40)
    assert {"diversity: nine of ten requests are worded differently"} <= set(unmet(check("63.2")))


def by_hand(rows: list[Row]) -> list[Row]:
    return [{**row, "tags": {"voice": "mine"}} for row in rows]


def test_63_3_fifty_rows_are_not_the_generators(
    write: Write, check: Verdict, generated: dict[str, list[Row]]
) -> None:
    rows = closed(generated["train"])[:60]
    write("63.3/hand_made.jsonl", by_hand(rows))
    assert check("63.3").passed, unmet(check("63.3"))
    write("63.3/hand_made.jsonl", rows)
    assert unmet(check("63.3")) == ["none comes from the generator"]
    write("63.3/hand_made.jsonl", by_hand(rows[:49]))
    assert unmet(check("63.3")) == ["hand_made.jsonl: 50 rows or more, all valid"]


def test_63_4_the_clean_file_is_what_cleaning_gives(
    write: Write, check: Verdict, generated: dict[str, list[Row]], workspace: Path
) -> None:
    rows = closed(generated["train"])[:40]
    near = json.loads(json.dumps(rows[0]))
    near["messages"][-1]["content"] += " Bye."
    long = json.loads(json.dumps(rows[1]))
    long["messages"][1]["content"] = "word " * 3000
    dirty = write("63.4/dirty.jsonl", [*rows, rows[3], rows[3], near, long])
    DATA_CLEAN.call(
        {"file": str(dirty), "out": str(workspace / "learning" / "63.4" / "clean.jsonl"), "dry_run": False}
    )
    result = check("63.4")
    assert result.passed, unmet(result)
    write("63.4/clean.jsonl", dirty.read_text(encoding="utf-8"))
    assert "clean.jsonl is what cleaning gives" in unmet(check("63.4"))


def test_63_5_generated_rows_are_executed_and_priced(
    write: Write, check: Verdict, generated: dict[str, list[Row]]
) -> None:
    rows = closed(generated["train"])[:120]
    write("63.5/generated.jsonl", rows)
    write("63.5/cost.json", {"usd": 0, "requests": 0})
    assert check("63.5").passed, unmet(check("63.5"))
    write("63.5/cost.json", {"usd": 0, "requests": 120})
    assert unmet(check("63.5")) == ["the cost is stated, and free only if nothing was asked"]
    write("63.5/cost.json", {"usd": 0, "requests": 0})
    write("63.5/generated.jsonl", [{**row, "group": "one template"} for row in rows])
    assert unmet(check("63.5")) == ["no template makes more than 3 % of the rows"]


def test_63_7_the_lab_is_exact_executed_and_not_leaked(
    write: Write, check: Verdict, generated: dict[str, list[Row]], workspace: Path
) -> None:
    paths = {name: write(f"63.7/task_api_{name}.jsonl", rows) for name, rows in generated.items()}
    folder = workspace / "learning" / "63.7"
    DATA_REPORT.call({"data": str(folder), "out": str(folder)})
    result = check("63.7")
    assert result.passed, unmet(result)
    leaked = [*generated["train"][:399], generated["test"][0]]
    write("63.7/task_api_train.jsonl", leaked)
    assert "training shares nothing with test" in unmet(check("63.7"))
    assert "data_report.md is about these files" in unmet(check("63.7"))
    write("63.7/task_api_train.jsonl", generated["train"][:399])
    assert "task_api_train.jsonl has exactly 400 rows" in unmet(check("63.7"))
    assert paths["val"].exists()


def test_63_8_a_second_version_says_more(write: Write, check: Verdict) -> None:
    write(
        "63.0/llmops-data-engineer/SKILL.md",
        SKILL.format(version="1.0", commands="`llmops data validate FILE`"),
    )
    more = "`llmops data validate F`, `llmops data clean F`, `llmops data split F`, `llmops synth replay F`"
    write("63.8/llmops-data-engineer/SKILL.md", SKILL.format(version="2.0", commands=more))
    triggers = [{"prompt": f"p{i}", "should_trigger": i % 2 == 0} for i in range(10)]
    write("63.8/llmops-data-engineer/evals/evals.json", {"triggers": triggers})
    assert check("63.8").passed, unmet(check("63.8"))
    write("63.8/llmops-data-engineer/SKILL.md", SKILL.format(version="1.0", commands=more))
    assert unmet(check("63.8")) == ["metadata.version is 2.0 or later"]
    few = SKILL.format(version="2.0", commands="`llmops data validate F`, `llmops synth replay F`")
    write("63.8/llmops-data-engineer/SKILL.md", few)
    assert unmet(check("63.8")) == ["it names three commands that the first version did not"]


def test_63_6_a_judge_is_held_against_people(
    write: Write, check: Verdict, generated: dict[str, list[Row]]
) -> None:
    rows = closed(generated["train"])[:30]
    kept, dropped = rows[:24], rows[24:]

    def verdict(row: Row, grade: int) -> Row:
        grades = dict.fromkeys(("natural_language", "accuracy", "completeness", "format"), grade)
        return {"id": row["id"], "grades": grades, "items": {}, "keep": grade >= 4}

    verdicts = [*(verdict(row, 5) for row in kept), *(verdict(row, 3) for row in dropped)]
    labels = [{"id": row["id"], "keep": True} for row in kept[:18]] + [
        {"id": row["id"], "keep": False} for row in dropped
    ]
    write("63.6/verdicts.jsonl", verdicts)
    write("63.6/kept.jsonl", kept)
    write("63.6/labels.jsonl", labels)
    assert check("63.6").passed, unmet(check("63.6"))
    write("63.6/labels.jsonl", [{**label, "keep": index % 2 == 0} for index, label in enumerate(labels)])
    assert unmet(check("63.6")) == ["the judge agrees with you on 20 rows or more (kappa 0.6)"]
    write("63.6/labels.jsonl", labels)
    write("63.6/verdicts.jsonl", [{**verdicts[0], "grades": {"accuracy": 5}}, *verdicts[1:]])
    assert unmet(check("63.6")) == ["a row is kept if its four grades have a mean of 4 or more"]
    write("63.6/verdicts.jsonl", verdicts)
    write("63.6/kept.jsonl", rows)
    assert unmet(check("63.6")) == ["kept.jsonl holds exactly the rows that are kept"]
