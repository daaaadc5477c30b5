"""Rows in a persona's voice beside the neutral rows they were made from, and the shipped files."""

import json
import random
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import OperationFailedError
from pipeline.core.messages import Example
from pipeline.personas.items import passes
from pipeline.personas.spec import PERSONAS, load_persona
from pipeline.synth.full_mix import make_sides
from pipeline.synth.persona_rows import SYNTH_PERSONAS, replies_of, reword_row
from pipeline.synth.persona_voice import PersonaVoice, load_lines

SHIPPED = Path("datasets/personas")
LEAST = {"train": 200, "val": 50, "test": 100}


@pytest.fixture(scope="module")
def neutral() -> list[Example]:
    return make_sides(5, {"train": 40}, 1.0)["train"].rows


def read(persona: str, split: str) -> list[Example]:
    text = (SHIPPED / f"{persona}_{split}.jsonl").read_text(encoding="utf-8")
    return [Example.from_row(json.loads(line)) for line in text.splitlines()]


def without_wording(row: Example) -> list[dict[str, Any]]:
    return [
        message.to_openai()
        for message in row.messages
        if message.role in {"user", "tool"} or message.tool_calls
    ]


@pytest.mark.parametrize("name", PERSONAS)
def test_a_persona_changes_no_call_no_result_and_no_user_turn(name: str, neutral: list[Example]) -> None:
    voice = PersonaVoice(load_lines(name, "train"), random.Random(1))
    for row in neutral:
        made = reword_row(row, load_persona(name), voice)
        assert json.dumps(without_wording(made)) == json.dumps(without_wording(row))
        assert (made.initial_state, made.today, made.faults) == (row.initial_state, row.today, row.faults)
        assert made.messages[0].content == load_persona(name).system_prompt(row.today)


@pytest.mark.parametrize("name", PERSONAS)
def test_every_id_title_date_and_priority_of_the_neutral_reply_is_in_the_reworded_one(
    name: str, neutral: list[Example]
) -> None:
    facts = re.compile(r'"[^"\n]+"|\d{4}-\d{2}-\d{2}|(?<=task )\d+|\b(?:low|medium|high) priority')
    voice = PersonaVoice(load_lines(name, "train"), random.Random(2))
    for row in neutral:
        made = reword_row(row, load_persona(name), voice)
        for before, after in zip(replies_of([row]), replies_of([made]), strict=True):
            assert all(fact in after for fact in facts.findall(before)), (before, after)


def test_a_line_that_does_not_sound_like_the_persona_is_refused(neutral: list[Example]) -> None:
    lines = {section: ["Okay."] for section in load_lines("taskmaster", "train")}
    with pytest.raises(OperationFailedError, match="TaskMaster"):
        reword_row(neutral[0], load_persona("taskmaster"), PersonaVoice(lines, random.Random(3)))


@pytest.mark.parametrize("name", PERSONAS)
def test_splits_share_no_line_of_the_banks(name: str) -> None:
    banks = {
        split: {line.casefold() for lines in load_lines(name, split).values() for line in lines}
        for split in ("train", "validation", "test")
    }
    for one, other in combinations(banks.values(), 2):
        assert one & other == set()


@pytest.mark.parametrize("name", PERSONAS)
def test_shipped_splits_share_no_reply_and_no_user_formulation(name: str) -> None:
    rows = {split: read(name, split) for split in LEAST}
    assert all(len(rows[split]) >= least for split, least in LEAST.items())
    for one, other in combinations(rows.values(), 2):
        assert {row.group for row in one} & {row.group for row in other} == set()
        assert set(replies_of(one)) & set(replies_of(other)) == set()


@pytest.mark.parametrize("name", PERSONAS)
def test_every_shipped_reply_sounds_like_its_persona_and_no_argument_names_one(name: str) -> None:
    persona = load_persona(name)
    for row in (row for split in LEAST for row in read(name, split)):
        assert all(passes(persona, text) for text in replies_of([row]))
        arguments = json.dumps([call.arguments for message in row.messages for call in message.tool_calls])
        assert not re.search("taskmaster|taskanalyst|taskplanner", arguments, re.IGNORECASE)
        assert row.tags["prompt_sha256"] == persona.prompt_sha256


def test_the_personas_have_the_same_conversations() -> None:
    for split in LEAST:
        first, *others = [[without_wording(row) for row in read(name, split)] for name in PERSONAS]
        assert all(other == first for other in others)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_one_other_bytes(tmp_path: Path) -> None:
    sizes = {"num_rows": 10, "validation_rows": 5, "test_rows": 5}
    digests = [
        SYNTH_PERSONAS.call({"out": str(tmp_path / str(i)), "seed": seed, **sizes}).sha256
        for i, seed in enumerate((7, 7, 8))
    ]
    assert digests[0] == digests[1]
    assert not set(digests[0].values()) & set(digests[2].values())
