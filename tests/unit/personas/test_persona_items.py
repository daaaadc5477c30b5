"""The items on replies written by hand: one for each persona that is right, and many that must fail."""

from pathlib import Path

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.personas.items import judge_replies, judge_reply, passes, style_ratio
from pipeline.personas.spec import PERSONAS, load_persona, read_persona

IN_VOICE = {
    "taskmaster": [
        'Great move, that one is captured! Task 12, "call the bank", is on your list, due 2026-03-20, medium priority. '
        "Block fifteen minutes for it and you're ready.",
        "Happy to help you plan! What should we call the task? Give me a title and we'll keep the momentum.",
    ],
    "analyst": [
        'Result: 1 record created. Task 12, "call the bank", has the status open, due 2026-03-20, medium priority. '
        "Basis: the record returned by the store.",
        "Query result: 0 records. The filter on status matches no entry. Checked: the whole store.",
    ],
    "planner": [
        'That fits our plan. Task 12, "call the bank", is scheduled, due 2026-03-20, medium priority. '
        "From here we take the next step in order.",
        "Before we put it on the timeline, one point is open. What should the task be called? Then we set its place.",
    ],
}
NEUTRAL = [
    'Created task 12: "call the bank", due 2026-03-20, medium priority.',
    'Task 3 "call the bank" is completed.',
    "There is no task 5. Shall I list your tasks?",
    "What should the task be called?",
    "No open tasks found.",
    "Hello! What can I do for your task list?",
    "You're welcome!",
    "I can only help with your tasks.",
]


def failed_items(name: str, text: str) -> set[str]:
    return {verdict.item for verdict in judge_reply(load_persona(name), text) if not verdict.passed}


@pytest.mark.parametrize("name", PERSONAS)
def test_a_reply_in_the_voice_passes_every_item(name: str) -> None:
    for text in IN_VOICE[name]:
        assert failed_items(name, text) == set()
        assert passes(load_persona(name), text)


@pytest.mark.parametrize("text", NEUTRAL)
@pytest.mark.parametrize("name", PERSONAS)
def test_a_neutral_reply_is_no_persona(name: str, text: str) -> None:
    assert not passes(load_persona(name), text)
    assert style_ratio(judge_reply(load_persona(name), text)) < 0.9


@pytest.mark.parametrize("other", PERSONAS)
@pytest.mark.parametrize("name", PERSONAS)
def test_no_persona_passes_for_another(name: str, other: str) -> None:
    if name != other:
        assert not any(passes(load_persona(name), text) for text in IN_VOICE[other])


@pytest.mark.parametrize(
    ("name", "addition", "item"),
    [
        ("taskmaster", "Obviously.", "no_condescension"),
        ("taskmaster", "Amazing!!!", "no_excess"),
        ("taskmaster", "Feel free to ask.", "no_generic_reply"),
        ("taskmaster", "\U0001f389\U0001f680", "emoji"),
        ("analyst", "Well noted!", "no_exclamation"),
        ("analyst", "Good job.", "no_praise"),
        ("analyst", "It is probably fine.", "no_speculation"),
        ("analyst", "\U0001f4c8", "emoji"),
        ("planner", "We need it ASAP.", "no_alarm"),
        ("planner", "We do it someday.", "no_vague_time"),
        ("planner", "I guarantee it.", "no_promises"),
    ],
)
def test_one_forbidden_thing_fails_a_reply_that_is_right_otherwise(
    name: str, addition: str, item: str
) -> None:
    text = IN_VOICE[name][0]
    place = text.rindex(". ") + 1
    spoilt = f"{text[:place]} {addition}{text[place:]}"
    assert item in failed_items(name, spoilt)
    assert not passes(load_persona(name), spoilt)


def test_two_signature_phrases_in_one_reply_are_parroting() -> None:
    text = f"{IN_VOICE['taskmaster'][0]} Let's get this done. You're making great progress."
    assert failed_items("taskmaster", text) == {"no_parroting"}


def test_signature_phrases_in_every_reply_leave_the_band_and_so_does_their_absence() -> None:
    persona = load_persona("taskmaster")
    plain = IN_VOICE["taskmaster"][0]
    parrot = f"{plain} Let's get this done."
    assert passes(persona, parrot)
    assert not judge_replies(persona, [parrot] * 10).vocabulary_in_band
    assert not judge_replies(persona, [plain] * 10).vocabulary_in_band
    mixed = judge_replies(persona, [parrot] * 2 + [plain] * 8)
    assert (mixed.vocabulary_rate, mixed.vocabulary_in_band, mixed.num_passed) == (0.2, True, 10)


def test_titles_and_list_lines_count_neither_for_nor_against_the_voice() -> None:
    persona = load_persona("analyst")
    text = 'Result: 1 record updated. Task 4, "great job party!!!", has the status open. Source: the store.'
    assert passes(persona, text)
    listed = (
        'Query result: 1 open task.\n- 4: "asap, you\'ve got this!" (high)\nBasis: the store as returned.'
    )
    assert passes(persona, listed)
    assert not passes(load_persona("taskmaster"), 'Created task 3: "great! you\'ve got this, next step".')


def test_replies_are_counted_item_by_item() -> None:
    persona = load_persona("taskmaster")
    verdict = judge_replies(persona, [IN_VOICE["taskmaster"][0], NEUTRAL[0]])
    assert (verdict.num_replies, verdict.num_passed) == (2, 1)
    assert verdict.passed_by_item["opening"] == (1, 2)
    assert judge_replies(persona, []).vocabulary_rate == 0.0


def test_empty_text_fails_without_an_exception() -> None:
    assert not passes(load_persona("planner"), "")
    assert not passes(load_persona("planner"), '- 1: "a" (low)')


def test_the_system_prompt_names_the_day_and_its_digest_does_not_depend_on_it() -> None:
    for name in PERSONAS:
        persona = load_persona(name)
        assert persona.system_prompt("2026-03-11").endswith(" Today is 2026-03-11.")
        assert persona.title in persona.prompt
        assert len(persona.prompt_sha256) == 64
    assert len({load_persona(name).prompt_sha256 for name in PERSONAS}) == len(PERSONAS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_emoji: 1", "max_emoji: -1"),
        ("min_rate: 0.03", "min_rate: 0.9"),
        ("name: productivity_focused", "name: encouraging"),
        ("name: taskmaster", "surprise: 1\nname: taskmaster"),
        ("[dude, bro", "['(dude', bro"),
        ("traits:", "traits: ["),
    ],
)
def test_a_broken_specification_is_refused_with_a_hint(tmp_path: Path, old: str, new: str) -> None:
    source = (Path("datasets/personas") / "taskmaster.yaml").read_text(encoding="utf-8")
    assert old in source
    broken = tmp_path / "broken.yaml"
    broken.write_text(source.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidInputError) as refusal:
        read_persona(broken)
    assert refusal.value.hint


def test_an_unknown_persona_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no persona 'clown'"):
        load_persona("clown")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_persona(tmp_path / "none.yaml")
