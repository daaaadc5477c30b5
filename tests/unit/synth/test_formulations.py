from pathlib import Path

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.synth.formulations import FORMULATION_FILES, VALUE_FILES, Bank, load_bank, read_bank, without

LINES = {
    "create": "add {title} by {due}",
    "update": "make {id} {priority}",
    "complete": "{id} is done",
    "delete": "drop {id}",
    "list": "what is due before {due}? => status=open",
    "by_title": "the {noun} is done => action=complete",
    "followup": "delete it => action=delete",
    "ask": "add a task => ask=title",
    "talk": "hi => reply=greeting",
    "multi": "do {id} and drop {id2} => calls=complete+delete",
    "answers": "{title} => to=title",
    "titles": "buy milk",
    "nouns": "dentist appointment",
    "descriptions": "bring cash",
    "searches": "milk",
    "no_priorities": "mega",
}


def _read(folder: Path, **changed: str) -> Bank:
    paths: dict[str, Path] = {}
    for name in (*FORMULATION_FILES, *VALUE_FILES):
        paths[name] = folder / f"{name}.txt"
        paths[name].write_text(changed.get(name, LINES[name]) + "\n", encoding="utf-8")
    return read_bank(paths)


def test_slots_suffixes_comments_and_blank_lines_are_read(tmp_path: Path) -> None:
    bank = _read(tmp_path, update="# --- comment\n\n#{id} is urgent, by {due} => priority=high")
    (line,) = bank.formulations["update"]
    assert (line.text, line.constants, line.slots) == (
        "#{id} is urgent, by {due}",
        {"priority": "high"},
        {"id", "due"},
    )


@pytest.mark.parametrize(
    ("file", "line", "problem"),
    [
        ("create", "add {titel}", "unknown slot {titel}"),
        ("create", "add {title", "braces do not pair"),
        ("create", "add {title} and {title}", "a slot stands twice"),
        ("create", "add it {when}", "needs one of the slots noun, title"),
        ("create", "add {title} or {noun}", "fill the same argument"),
        ("create", "add {title} => colour=red", "unknown suffix colour=red"),
        ("create", "add {title} => priority=urgent", "unknown suffix priority=urgent"),
        ("create", "{priority} {title} => priority=high", "both a slot and a suffix"),
        ("update", "change {id}", "changes nothing"),
        ("by_title", "the {noun} is done", "the suffix action=... is missing"),
        ("by_title", "move {noun} to {due} => action=complete", "complete takes no {due}"),
        ("multi", "do {id} and add it => calls=complete+create", "call 2 has no title"),
        ("multi", "move {id} and {id2} to {due} => calls=update+update", "call 2 changes nothing"),
        ("complete", "{id} is done\n{id} is done!", "says the same as line 2"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path: Path, file: str, line: str, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _read(tmp_path, **{file: f"# first line\n{line}"})
    number = 1 + len(line.splitlines())
    assert f"{tmp_path.name}/{file}.txt:{number}: " in str(caught.value)
    assert problem in str(caught.value)


def test_all_bad_lines_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _read(tmp_path, create="{a}\n{b}", delete="delete it")
    problems = caught.value.details["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 3


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"talk\.txt: no lines"):
        _read(tmp_path, talk="# nothing")
    (tmp_path / "talk.txt").unlink()
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_bank({name: tmp_path / f"{name}.txt" for name in (*FORMULATION_FILES, *VALUE_FILES)})


def test_an_id_depends_on_the_words_and_not_on_the_place(tmp_path: Path) -> None:
    first = _read(tmp_path, complete="{id} is done").formulations["complete"][0]
    moved = _read(tmp_path, complete="# x\n\n{id} is done").formulations["complete"][0]
    other = _read(tmp_path, complete="{id} is ready").formulations["complete"][0]
    assert first.id == moved.id != other.id


def test_what_the_other_bank_says_too_is_left_out(tmp_path: Path) -> None:
    train = _read(tmp_path, delete="drop {id}", nouns="visa form")
    test = _read(tmp_path, delete="Drop {id}!\nbin {id}", nouns="Visa form\nblood test")
    left, removed = without(test, train)
    assert [line.text for line in left.formulations["delete"]] == ["bin {id}"]
    assert left.values["nouns"] == ("blood test",)
    # Beside these two, each of the 14 other files holds one line, the same on both sides.
    assert removed == 2 + 14


def test_the_shipped_banks_are_sound_and_large_enough() -> None:
    train, test = load_bank("train"), load_bank("test")
    assert sum(len(lines) for lines in train.formulations.values()) > 2000
    assert all(len(without(test, train)[0].formulations[name]) >= 20 for name in FORMULATION_FILES)
